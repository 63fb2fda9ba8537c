"""A raw data set, planned and preprocessed for a training by nnU-Net's own commands."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from twintrack.errors import InputError
from twintrack.files import read_record, split_suffix, write_text
from twintrack.nnunet.locks import locked
from twintrack.nnunet.nnunet_commands import run_command
from twintrack.nnunet.panorama import STORE
from twintrack.nnunet.prediction_record import write_json
from twintrack.nnunet.training import PLANS, SMALL_PLANS, Small, Training


class _Plans(Struct):
    configurations: dict[str, dict[str, Any]]


class TrainingData:
    """A raw data set, and where it is preprocessed for a training.

    Parameters
    ----------
    number
        Of the data set.
    training
        Where it is, and for which networks.

    Attributes
    ----------
    name
        nnU-Net's ``DatasetNNN_NAME``.

    Raises
    ------
    FileNotFoundError
        There is no such data set.
    InputError
        Cases have come since nnU-Net has made its splits, which it makes once and keeps.
    """

    def __init__(self, number: int, training: Training) -> None:
        pattern = f"Dataset{number:03d}_*"
        found = sorted(training.raw.glob(pattern))
        if len(found) != 1:
            raise FileNotFoundError(
                errno.ENOENT,
                f"{len(found)} data sets of this number; twintrack prepare makes them",
                f"{training.raw}/{pattern}",
            )
        self._number, self._training, self._raw = number, training, found[0]
        self.name: str = self._raw.name
        self._home = training.preprocessed / self.name
        plans, configuration, _ = training.used
        self._stamp = self._home / f"twintrack_{plans}_{configuration}.done"
        small = training.small
        # The length of a training has no part in its data.
        network = None if small is None else [small.features, small.patch, small.batch]
        self._wanted = json.dumps([plans, configuration, network, files_of(self._raw)])
        if training.fold != "all" and self._stamp.is_file() and not self.ready:
            self._check_splits()

    @property
    def ready(self) -> bool:
        """Whether it is preprocessed, as it is now."""
        stamp = self._stamp
        return stamp.is_file() and stamp.read_text(encoding="utf-8") == self._wanted

    def plan_and_preprocess(self, log: Path) -> None:
        """Run nnU-Net's planning and preprocessing.

        What is done is not done again, unless a file of the data set has changed since.

        Raises
        ------
        FileNotFoundError
            The planner's plans have another name.
        BlockingIOError
            Another process is at it.
        InputError
            The plans lack the configuration.
        RuntimeError
            nnU-Net failed; has the end of what it said, and names the log.
        """
        if self.ready:
            return
        lock = self._home / "twintrack.lock"
        with locked(lock, "plans and preprocesses this data set") as held:
            # Another process may have finished between the two looks.
            if not self.ready:
                self._plan_and_preprocess(log, held)

    def _plan_and_preprocess(self, log: Path, held: Sequence[int]) -> None:
        training, processes = self._training, str(self._training.processes)
        # nnU-Net plans with the number of augmentation processes and does not understand 0.
        environment = {**training.environment(training.results), "nnUNet_n_proc_DA": processes}
        # Without --clean nnU-Net plans by the fingerprint of the data that were there before.
        plan = ["plan_and_preprocess_entry", "-d", str(self._number), "-pl", training.planner]
        plan += ["--clean", "--no_pp", "-npfp", processes]
        run_command(plan, environment, log, held)
        # Before the hours that preprocessing takes: it skips a configuration that is not there.
        plans = self._home / f"{training.plans}.json"
        there = read_record(plans, _Plans).configurations
        name, wanted, _ = training.used
        if wanted not in there:
            raise InputError(
                f"has no configuration {wanted!r}; -c may be "
                f"{' or '.join(there)} (data sets that need different ones are trained one by one)",
                file=plans,
            )
        if training.small is not None:
            _write_small_plans(self._home, training.small)
        preprocess = ["preprocess_entry", "-d", str(self._number), "-c", wanted]
        preprocess += ["-plans_name", name, "-np", processes]
        run_command(preprocess, environment, log, held)
        write_text(self._stamp, self._wanted)

    def _check_splits(self) -> None:
        splits = self._home / "splits_final.json"
        if not splits.is_file():
            return
        parts = read_record(splits, list[dict[str, list[str]]])
        named = {case for part in parts for cases in part.values() for case in cases}
        labels = self._raw / "labelsTr"
        there = {split_suffix(file.name)[0] for file in labels.glob("[!.]*")}
        left_out = sorted(there - named)
        if left_out:
            raise InputError(
                f"was made before {len(left_out)} cases of {self.name} were there, such as "
                f"{left_out[0]}, and leaves them out; delete it to have nnU-Net make it again, or "
                "add them",
                file=splits,
            )


def files_of(dataset: Path) -> list[list[Any]]:
    """Return name, size and time of every file of a raw data set, the store of prepare left out."""
    own = dataset / STORE
    files = sorted(file for file in dataset.rglob("*") if file.is_file())
    found = [
        (file.relative_to(dataset).as_posix(), file.stat())
        for file in files
        if own not in file.parents
    ]
    return [[name, status.st_size, status.st_mtime_ns] for name, status in found]


def _write_small_plans(home: Path, small: Small) -> None:
    """Write plans like nnU-Net's own, but for the network and the patch."""
    plans: dict[str, Any] = json.loads((home / f"{PLANS}.json").read_text(encoding="utf-8"))
    configuration = plans["configurations"]["3d_fullres"]
    stages = len(small.features)
    kwargs = configuration["architecture"]["arch_kwargs"]
    blocks = "n_blocks_per_stage" if "n_blocks_per_stage" in kwargs else "n_conv_per_stage"
    kwargs.update(
        {
            "n_stages": stages,
            "features_per_stage": list(small.features),
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
            blocks: [2] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
        }
    )
    configuration.update(patch_size=list(small.patch), batch_size=small.batch)
    configuration["data_identifier"] = f"{SMALL_PLANS}_3d_fullres"
    plans["configurations"] = {"3d_fullres": configuration}
    plans["plans_name"] = SMALL_PLANS
    write_json(home / f"{SMALL_PLANS}.json", plans)
