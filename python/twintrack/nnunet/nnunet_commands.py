"""nnU-Net's commands, each run in a process of its own, which is this module's ``__main__``.

nnU-Net's modules read the environment when they are imported.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from twintrack.nnunet.trainer_search import EXTERNAL, expect_import_warning, own_trainers

SEED = "TWINTRACK_SEED"
"""Environment variable with the seed of a training."""


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: Path, held: Sequence[int] = ()
) -> None:
    """Run an entry point of nnU-Net, its output added to the log.

    The process gets the descriptors `held`, of `locked`.

    Raises
    ------
    RuntimeError
        nnU-Net failed; has the end of what it said, and names the log.
    """
    with own_trainers() as external, log.open("a", encoding="utf-8") as file:
        print(f"\n### {' '.join(command)}", file=file, flush=True)
        result = subprocess.run(  # noqa: S603 - our own interpreter and arguments
            [sys.executable, "-m", __name__, *command],
            env={**environment, EXTERNAL: external},
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=held,
            check=False,
        )
    if result.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        told = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        raise RuntimeError(
            f"nnU-Net's {command[0]} ended with status {result.returncode}: {told} (all in {log})"
        )


def _main() -> None:
    """Run the entry point that the first argument names, from the seed in the environment."""
    import numpy as np
    import torch

    expect_import_warning()
    entry = sys.argv.pop(1)
    seed = os.environ.get(SEED)
    if seed is not None:
        random.seed(int(seed))
        np.random.seed(int(seed))  # noqa: NPY002 - the generator that nnU-Net draws from
        torch.manual_seed(int(seed))
    if entry == "run_training_entry":
        from nnunetv2.run import run_training as commands
    else:
        from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as commands
    getattr(commands, entry)()


if __name__ == "__main__":
    _main()
