"""Training of the coarse network and of the members, by nnU-Net's own commands."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twintrack.files import replacing, split_suffix
from twintrack.nnunet.models import expect_import_warning, own_trainers

__all__ = ["Small", "Training", "plan_and_preprocess", "train_ensemble", "train_network"]

SMALL_TRAINER = "TwinTrackSmallTrainer"
SMALL_PLANS = "twintrackSmallPlans"
PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class Small:
    """A network small enough for two CPU cores, in a configuration of nnU-Net's own plans.

    Parameters
    ----------
    features
        Channels of each stage of the U-Net, three or more; every further one halves the resolution.
    patch
        Voxels of a patch, in the plans' order (z, y, x); halved once for each further stage.
    batch
        Patches a step.
    epochs, iterations
        Length of the training: epochs, and steps of each.

    Raises
    ------
    ValueError
        There are too few stages, or a length of `patch` cannot be halved that often.
    """

    features: tuple[int, ...] = (8, 16, 32)
    patch: tuple[int, int, int] = (32, 48, 48)
    batch: int = 2
    epochs: int = 4
    iterations: int = 25

    def __post_init__(self) -> None:
        divisor = 2 ** (len(self.features) - 1)
        # nnU-Net gives the lowest output no weight; two stages have no other, and a loss of 0/0.
        if len(self.features) < 3 or any(length % divisor for length in self.patch):
            raise ValueError(
                f"patch {self.patch} of {len(self.features)} stages: three stages or more, and "
                f"lengths that {divisor} divides, are needed"
            )


@dataclass(frozen=True)
class Training:
    """Where nnU-Net works and how.

    Parameters
    ----------
    raw, preprocessed, results
        nnU-Net's ``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``. Each network gets a
        folder of its own in `results`, for nnU-Net tells networks apart by data set, trainer, plans
        and fold, but not by seed.
    configuration
        Of the plans.
    trainer
        Class name; one outside nnU-Net is looked for in ``nnUNet_extTrainer``.
    fold
        Number, or "all" to train on every case.
    device
        "cuda", "cpu" or "mps".
    processes
        For preprocessing and, at most, augmentation.
    small
        Train small networks; takes the place of configuration, trainer and plans.
    extra
        Further arguments of ``nnUNetv2_train``, such as ``--npz``.

    Raises
    ------
    ValueError
        An unknown device, or settings that would have no effect together, or a misleading one.
    """

    raw: Path
    preprocessed: Path
    results: Path
    configuration: str = "3d_fullres"
    trainer: str = "nnUNetTrainer"
    fold: int | str = "all"
    device: str = "cuda"
    processes: int = 8
    small: Small | None = None
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.device not in ("cuda", "cpu", "mps"):
            raise ValueError(f"-device is {self.device!r}; nnU-Net trains on cuda, cpu or mps")
        npz = "--npz" in self.extra
        if npz and self.small:
            raise ValueError(
                "--npz with --small: small networks are not validated, so there would be no "
                "probabilities; leave one of them out"
            )
        if npz and self.fold == "all":
            raise ValueError(
                "--npz with -f all: the network would be validated on the cases that it was "
                "trained on, and no map may be fitted on those probabilities; train folds, -f 0 "
                "to -f 4, or leave --npz out and predict other cases"
            )
        if self.small:
            for option, value, default in (
                ("-c", self.configuration, "3d_fullres"),
                ("-tr", self.trainer, "nnUNetTrainer"),
            ):
                if value != default:
                    raise ValueError(
                        f"{option} is {value!r}, but --small brings its own; leave one of them out"
                    )

    @property
    def plans(self) -> str:
        """Name of the plans."""
        return SMALL_PLANS if self.small else PLANS

    @property
    def used_configuration(self) -> str:
        """Name of the configuration."""
        return "3d_fullres" if self.small else self.configuration

    @property
    def used_trainer(self) -> str:
        """Class name of the trainer."""
        return SMALL_TRAINER if self.small else self.trainer

    def environment(self, results: Path) -> dict[str, str]:
        """Return the environment for nnU-Net's commands."""
        given = dict(os.environ)
        given.update(
            nnUNet_raw=str(self.raw.absolute()),
            nnUNet_preprocessed=str(self.preprocessed.absolute()),
            nnUNet_results=str(results.absolute()),
        )
        given.setdefault("nnUNet_def_n_proc", str(self.processes))
        if self.small is None:
            given.setdefault("nnUNet_n_proc_DA", str(max(1, self.processes)))
        else:
            # Starting workers takes longer than the training; in one process the seed decides all.
            given["nnUNet_n_proc_DA"] = "0"
            # Threads that spin while they wait make small steps several times as long as soon as
            # something else needs a core.
            given.setdefault("OMP_WAIT_POLICY", "passive")
            given["TWINTRACK_EPOCHS"] = str(self.small.epochs)
            given["TWINTRACK_ITERATIONS"] = str(self.small.iterations)
        return given


def plan_and_preprocess(number: int, training: Training, log: Path) -> str:
    """Run ``nnUNetv2_plan_and_preprocess`` for a data set; return the data set's name.

    Raises
    ------
    FileNotFoundError
        There is no such data set.
    ValueError
        Cases have come since nnU-Net has made its splits.
    RuntimeError
        nnU-Net failed; has the end of what it said, and names the log.
    """
    found = sorted(training.raw.glob(f"Dataset{number:03d}_*"))
    if len(found) != 1:
        raise FileNotFoundError(
            2, f"{len(found)} data sets of this number; twintrack prepare makes them",
            f"{training.raw}/Dataset{number:03d}_*",
        )  # fmt: skip
    name = found[0].name
    home = training.preprocessed / name
    configuration = training.used_configuration
    stamp = home / f"twintrack_{training.plans}_{configuration}.done"
    small = training.small
    # The length of a training has no part in its data.
    network = None if small is None else [small.features, small.patch, small.batch]
    wanted = json.dumps([training.plans, configuration, network, _files(found[0])])
    if stamp.is_file():
        if stamp.read_text(encoding="utf-8") == wanted:
            return name
        if training.fold != "all":
            _check_splits(home / "splits_final.json", found[0])
    environment = training.environment(training.results)
    common = ["-d", str(number), "-c", configuration]
    # nnU-Net plans with the number of augmentation processes and does not understand 0.
    planning = {**environment, "nnUNet_n_proc_DA": str(max(1, training.processes))}
    entry = "plan_and_preprocess_entry"
    _run(
        [entry, *common, "-npfp", str(training.processes), "-np", str(training.processes)]
        + (["--no_pp"] if training.small else []),
        planning,
        log,
    )
    if training.small is not None:
        _write_small_plans(home, training.small)
        _run(
            [
                *("preprocess_entry", *common, "-plans_name", SMALL_PLANS),
                *("-np", str(training.processes)),
            ],
            planning,
            log,
        )
    with replacing(stamp) as temporary:
        temporary.write_text(wanted, encoding="utf-8")
    return name


def _files(dataset: Path) -> list[list[Any]]:
    """Return name, size and time of every file of a raw data set."""
    files = sorted(file for file in dataset.rglob("*") if file.is_file())
    found = [(file.relative_to(dataset).as_posix(), file.stat()) for file in files]
    return [[name, status.st_size, status.st_mtime_ns] for name, status in found]


def _check_splits(splits: Path, dataset: Path) -> None:
    """Refuse splits that were made before cases came: nnU-Net makes them once and keeps them."""
    if not splits.is_file():
        return
    parts = json.loads(splits.read_text(encoding="utf-8"))
    named = {case for part in parts for cases in part.values() for case in cases}
    there = {split_suffix(file.name)[0] for file in (dataset / "labelsTr").glob("[!.]*")}
    left_out = sorted(there - named)
    if left_out:
        raise ValueError(
            f"{splits}: was made before {len(left_out)} cases of {dataset.name} were there, such "
            f"as {left_out[0]}, and leaves them out; delete it to have nnU-Net make it again, or "
            "add them"
        )


def train_network(name: str, seed: int, training: Training, home: Path, log: Path) -> Path:
    """Run ``nnUNetv2_train`` from a seed; return the folder of the trained model.

    A training that is finished is not done again, one that was interrupted goes on; with ``--npz``
    that includes the validation.

    Parameters
    ----------
    name
        Data set.
    seed
        Of the weights and, without worker processes, the augmentation. torch starts every process
        from the same one, so that without it all members would begin alike.
    home
        Folder that takes the place of ``nnUNet_results``.
    log
        File to which nnU-Net's output is added.

    Raises
    ------
    RuntimeError
        nnU-Net failed.
    """
    model = _model_folder(name, training, home)
    if _is_finished(model, training):
        return model
    fold = model / f"fold_{training.fold}"
    trained = (fold / "checkpoint_final.pth").is_file()
    if trained:
        # The validation is to be repeated, and is whole when nnU-Net has written this again.
        (fold / "validation" / "summary.json").unlink(missing_ok=True)
    begun = not trained and any(
        (fold / f"checkpoint_{which}.pth").is_file() for which in ("latest", "best")
    )
    home.mkdir(parents=True, exist_ok=True)
    _run(
        ["run_training_entry", name, training.used_configuration, str(training.fold)]
        + ["-tr", training.used_trainer, "-p", training.plans, "-device", training.device]
        + (["--val"] if trained else ["--c"] if begun else [])
        + list(training.extra),
        {**training.environment(home), "TWINTRACK_SEED": str(seed)},
        log,
    )
    return model


def _model_folder(name: str, training: Training, home: Path) -> Path:
    return home / name / f"{training.used_trainer}__{training.plans}__{training.used_configuration}"


def _is_finished(model: Path, training: Training) -> bool:
    """Whether a network is trained and, if that is wanted, its validation left probabilities."""
    fold = model / f"fold_{training.fold}"
    trained = (fold / "checkpoint_final.pth").is_file()
    if not trained or "--npz" not in training.extra:
        return trained
    validation = fold / "validation"
    # nnU-Net writes the summary when it has validated every case, with probabilities or not.
    if not (validation / "summary.json").is_file():
        return False
    files = [split_suffix(file.name) for file in validation.iterdir()]
    probabilities = {case for case, suffix in files if suffix == ".npz"}
    return bool(probabilities) and all(case in probabilities for case, suffix in files if suffix)


def train_ensemble(
    training: Training,
    seeds: Sequence[int],
    fine: int | None,
    coarse: int | None,
    told: Callable[[str], None] = lambda _: None,
) -> tuple[Path | None, list[Path]]:
    """Plan, preprocess and train the coarse network and one member for each seed.

    Parameters
    ----------
    training
        Where and how.
    seeds
        One for each member.
    fine, coarse
        Numbers of the data sets; None trains no such network.
    told
        Told what is worked on.

    Returns
    -------
    coarse, members
        Folders of the trained models, for `twintrack.nnunet.Pipeline`.
    """
    training.results.mkdir(parents=True, exist_ok=True)
    coarse_model = None

    def tell(what: str, name: str, home: Path) -> None:
        model = _model_folder(name, training, home)
        if _is_finished(model, training):
            # Whatever has changed since, the data included: let nobody take it for a new one.
            fold = model / f"fold_{training.fold}"
            told(f"keeping {what}, which is trained already (delete {fold} to train it again)")
        else:
            told(f"training {what}")

    if coarse is not None:
        log = training.results / "coarse.log"
        told(f"planning and preprocessing data set {coarse}")
        name = plan_and_preprocess(coarse, training, log)
        home = training.results / "coarse"
        tell("the coarse network", name, home)
        coarse_model = train_network(name, 0, training, home, log)
    models: list[Path] = []
    if fine is None:
        return coarse_model, models
    told(f"planning and preprocessing data set {fine}")
    name = plan_and_preprocess(fine, training, training.results / "members.log")
    for number, seed in enumerate(seeds, start=1):
        home = training.results / f"member_{seed}"
        tell(f"member {number} of {len(seeds)} (seed {seed})", name, home)
        log = training.results / f"member_{seed}.log"
        models.append(train_network(name, seed, training, home, log))
    return coarse_model, models


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
    with replacing(home / f"{SMALL_PLANS}.json") as temporary:
        temporary.write_text(json.dumps(plans, indent=1) + "\n", encoding="utf-8")


def _run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Run an entry point of nnU-Net in a process of its own, its output added to the log."""
    with own_trainers():
        external = os.environ["nnUNet_extTrainer"]  # noqa: SIM112 - nnU-Net's spelling
    with log.open("a", encoding="utf-8") as file:
        print(f"\n### {' '.join(command)}", file=file, flush=True)
        result = subprocess.run(  # noqa: S603 - our own interpreter and arguments
            [sys.executable, "-m", "twintrack.nnunet.train", *command],
            env={**environment, "nnUNet_extTrainer": external},
            stdout=file,
            stderr=subprocess.STDOUT,
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
    seed = os.environ.get("TWINTRACK_SEED")
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
