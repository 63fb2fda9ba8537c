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

from twintrack.errors import InputError
from twintrack.files import replacing, split_suffix
from twintrack.nnunet.locks import locked
from twintrack.nnunet.panorama import STORE
from twintrack.nnunet.train_checks import check_device, check_planner, check_trainer
from twintrack.nnunet.trainer_search import expect_import_warning, own_trainers

SMALL_TRAINER = "TwinTrackSmallTrainer"
SMALL_PLANS = "twintrackSmallPlans"
PLANS = "nnUNetPlans"
PLANNER = "ExperimentPlanner"
FINGERPRINT = "dataset_fingerprint.json"


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
            raise InputError(
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
    plans
        Name of the plans, which is the one that `planner` gives them.
    planner
        Class name, such as nnUNetPlannerResEncM, whose plans are nnUNetResEncUNetMPlans.
    fold
        Number, or "all" to train on every case.
    device
        "cuda", "cpu" or "mps".
    processes
        For preprocessing and, at most, augmentation.
    small
        Train small networks; takes the place of configuration, trainer, plans and planner.
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
    plans: str = PLANS
    planner: str = PLANNER
    fold: int | str = "all"
    device: str = "cuda"
    processes: int = 8
    small: Small | None = None
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.device not in ("cuda", "cpu", "mps"):
            raise InputError(f"-device is {self.device!r}; nnU-Net trains on cuda, cpu or mps")
        npz = "--npz" in self.extra
        if npz and self.small:
            raise InputError(
                "--npz with --small: small networks are not validated, so there would be no "
                "probabilities; leave one of them out"
            )
        if npz and self.fold == "all":
            raise InputError(
                "--npz with -f all: the network would be validated on the cases that it was "
                "trained on, and no map may be fitted on those probabilities; train folds, -f 0 "
                "to -f 4, or leave --npz out and predict other cases"
            )
        if self.small:
            for option, value, default in (
                ("-c", self.configuration, "3d_fullres"),
                ("-tr", self.trainer, "nnUNetTrainer"),
                ("-p", self.plans, PLANS),
                ("-pl", self.planner, PLANNER),
            ):
                if value != default:
                    raise InputError(
                        f"{option} is {value!r}, but --small brings its own; leave one of them out"
                    )

    @property
    def used_plans(self) -> str:
        """Name of the plans that the network is trained from."""
        return SMALL_PLANS if self.small else self.plans

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


@dataclass(frozen=True)
class _DataSet:
    """A raw data set, and where it is preprocessed for a training."""

    raw: Path
    home: Path
    stamp: Path
    wanted: str

    @property
    def ready(self) -> bool:
        """Whether it is preprocessed, as it is now."""
        return self.stamp.is_file() and self.stamp.read_text(encoding="utf-8") == self.wanted


def _find_data_set(number: int, training: Training) -> _DataSet:
    """Return a data set whose splits, if there are any, fit its cases.

    Raises
    ------
    FileNotFoundError
        There is no such data set.
    ValueError
        Cases have come since nnU-Net has made its splits.
    """
    found = sorted(training.raw.glob(f"Dataset{number:03d}_*"))
    if len(found) != 1:
        raise FileNotFoundError(
            2, f"{len(found)} data sets of this number; twintrack prepare makes them",
            f"{training.raw}/Dataset{number:03d}_*",
        )  # fmt: skip
    home = training.preprocessed / found[0].name
    configuration, small = training.used_configuration, training.small
    # The length of a training has no part in its data.
    network = None if small is None else [small.features, small.patch, small.batch]
    data = _DataSet(
        raw=found[0],
        home=home,
        stamp=home / f"twintrack_{training.used_plans}_{configuration}.done",
        wanted=json.dumps([training.used_plans, configuration, network, _files(found[0])]),
    )
    if training.fold != "all" and data.stamp.is_file() and not data.ready:
        _check_splits(home / "splits_final.json", found[0])
    return data


def plan_and_preprocess(number: int, training: Training, log: Path) -> str:
    """Run nnU-Net's planning and preprocessing for a data set; return the data set's name.

    What is done is not done again, unless a file of the data set has changed since.

    Raises
    ------
    FileNotFoundError
        There is no such data set, or the planner's plans have another name.
    BlockingIOError
        Another process is at it.
    ValueError
        Cases have come since nnU-Net has made its splits, or the plans lack the configuration.
    RuntimeError
        nnU-Net failed; has the end of what it said, and names the log.
    """
    data = _find_data_set(number, training)
    if data.ready:
        return data.raw.name
    with locked(data.home / "twintrack.lock", "plans and preprocesses this data set") as held:
        # Another process may have finished between the two looks.
        if not data.ready:
            _plan_and_preprocess(number, data, training, log, held)
    return data.raw.name


def _plan_and_preprocess(
    number: int, data: _DataSet, training: Training, log: Path, held: Sequence[int]
) -> None:
    # nnU-Net plans with the number of augmentation processes and does not understand 0.
    environment = {
        **training.environment(training.results),
        "nnUNet_n_proc_DA": str(max(1, training.processes)),
    }
    # Without --clean nnU-Net plans by the fingerprint of the data that were there before.
    _run(
        [
            *("plan_and_preprocess_entry", "-d", str(number), "-pl", training.planner),
            *("--clean", "--no_pp", "-npfp", str(training.processes)),
        ],
        environment,
        log,
        held,
    )
    # Before the hours that preprocessing takes: it skips a configuration that is not there.
    _check_configuration(data.home / f"{training.plans}.json", training)
    if training.small is not None:
        _write_small_plans(data.home, training.small)
    _run(
        [
            *("preprocess_entry", "-d", str(number), "-c", training.used_configuration),
            *("-plans_name", training.used_plans, "-np", str(training.processes)),
        ],
        environment,
        log,
        held,
    )
    with replacing(data.stamp) as temporary:
        temporary.write_text(data.wanted, encoding="utf-8")


def _check_configuration(plans: Path, training: Training) -> None:
    there = json.loads(plans.read_text(encoding="utf-8"))["configurations"]
    if training.used_configuration not in there:
        raise InputError(
            f"has no configuration {training.used_configuration!r}; -c may be "
            f"{' or '.join(there)} (data sets that need different ones are trained one by one)",
            file=plans,
        )


def _files(dataset: Path) -> list[list[Any]]:
    """Return name, size and time of every file of a raw data set, the store of prepare left out."""
    files = sorted(file for file in dataset.rglob("*") if file.is_file())
    own = dataset / STORE
    files = [file for file in files if own not in file.parents]
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
        raise InputError(
            f"was made before {len(left_out)} cases of {dataset.name} were there, such "
            f"as {left_out[0]}, and leaves them out; delete it to have nnU-Net make it again, or "
            "add them",
            file=splits,
        )


def train_network(name: str, seed: int, training: Training, home: Path, log: Path) -> Path:
    """Run ``nnUNetv2_train`` from a seed; return the folder of the trained model.

    A training that is finished is not done again, one that was interrupted goes on; with ``--npz``
    that includes the validation.

    Parameters
    ----------
    name
        Data set, planned and preprocessed.
    seed
        Of the weights and, without worker processes, the augmentation. torch starts every process
        from the same one, so that without it all members would begin alike.
    home
        Folder that takes the place of ``nnUNet_results``.
    log
        File to which nnU-Net's output is added.

    Raises
    ------
    ValueError
        The data set has been planned again since the network, or another fold of it, was trained.
    BlockingIOError
        Another process trains it.
    RuntimeError
        nnU-Net failed.
    """
    network = _Network(name, seed, training, home)
    if network.finished:
        return network.model
    network.check_data()
    fold = network.fold
    with locked(fold / "twintrack.lock", "trains this network") as held:
        if network.finished:  # by another process, between the two looks
            return network.model
        if network.trained:
            # The validation is to be repeated, and is whole when nnU-Net has written this again.
            (fold / "validation" / "summary.json").unlink(missing_ok=True)
        begun = not network.trained and any(
            (fold / f"checkpoint_{which}.pth").is_file() for which in ("latest", "best")
        )
        _run(
            ["run_training_entry", name, training.used_configuration, str(training.fold)]
            + ["-tr", training.used_trainer, "-p", training.used_plans, "-device", training.device]
            + (["--val"] if network.trained else ["--c"] if begun else [])
            + list(training.extra),
            {**training.environment(home), "TWINTRACK_SEED": str(seed)},
            log,
            held,
        )
    return network.model


@dataclass(frozen=True)
class _Network:
    """A network to be trained, and how far it is."""

    name: str
    seed: int
    training: Training
    home: Path

    @property
    def model(self) -> Path:
        """nnU-Net's folder of it."""
        given = self.training
        model = f"{given.used_trainer}__{given.used_plans}__{given.used_configuration}"
        return self.home / self.name / model

    @property
    def fold(self) -> Path:
        return self.model / f"fold_{self.training.fold}"

    @property
    def trained(self) -> bool:
        return (self.fold / "checkpoint_final.pth").is_file()

    @property
    def finished(self) -> bool:
        """Whether it is trained and, if that is wanted, its validation has left probabilities."""
        if not self.trained or "--npz" not in self.training.extra:
            return self.trained
        validation = self.fold / "validation"
        # nnU-Net writes the summary when it has validated every case, with probabilities or not.
        if not (validation / "summary.json").is_file():
            return False
        files = [split_suffix(file.name) for file in validation.iterdir()]
        probabilities = {case for case, suffix in files if suffix == ".npz"}
        return bool(probabilities) and all(
            case in probabilities for case, suffix in files if suffix
        )

    @property
    def same_data(self) -> bool:
        """Whether the data set is as it was when the network, or a fold of it, was trained."""
        before = self.model / FINGERPRINT
        now = self.training.preprocessed / self.name / FINGERPRINT
        if not any(self.model.glob("fold_*/checkpoint_*.pth")) or not before.is_file():
            return True
        return not now.is_file() or before.read_bytes() == now.read_bytes()

    def check_data(self) -> None:
        """Refuse to go on with other data: all folds of a model share one plans.json."""
        if not self.same_data:
            raise InputError(
                f"was trained before {self.name} changed and was planned again, and "
                "would be a mixture of both; delete it to train it on what there is now, or name "
                "another folder with --results",
                file=self.model,
            )

    def doing(self, what: str) -> str:
        """Say what will be done to it."""
        if self.finished:
            # Whatever has changed since, the data included: let nobody take it for a new one.
            told, again = "trained already", self.fold
            if not self.same_data:
                told, again = "trained already, before its data set changed", self.model
            return f"keeping {what}, which is {told} (delete {again} to train it again)"
        return f"validating {what}, which is trained" if self.trained else f"training {what}"


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

    Raises
    ------
    FileNotFoundError, ValueError
        Before anything is run: a data set is not there, its splits leave out cases, nnU-Net finds
        no such trainer or planner, or there is no such device. After planning: see
        `plan_and_preprocess`. Before any network is trained: see `train_network`.
    BlockingIOError, RuntimeError
        See there.
    """
    results = training.results
    numbers = [number for number in (coarse, fine) if number is not None]
    names = {number: _find_data_set(number, training).raw.name for number in numbers}
    networks = []
    if coarse is not None:
        network = _Network(names[coarse], 0, training, results / "coarse")
        networks.append(("the coarse network", network))
    if fine is not None:
        for index, seed in enumerate(seeds, start=1):
            network = _Network(names[fine], seed, training, results / f"member_{seed}")
            networks.append((f"member {index} of {len(seeds)} (seed {seed})", network))
    check_planner(training.planner, training.plans)
    if not all(network.finished for _, network in networks):
        check_device(training.device)
        if training.small is None:  # that trainer is ours: nnU-Net would look through its own first
            check_trainer(training.trainer)
    results.mkdir(parents=True, exist_ok=True)
    for number, name in ((coarse, "coarse.log"), (fine, "members.log")):
        if number is not None:
            told(f"planning and preprocessing data set {number}")
            plan_and_preprocess(number, training, results / name)
    for _, network in networks:
        if not network.finished:
            network.check_data()
    for what, network in networks:
        told(network.doing(what))
        log = results / f"{network.home.name}.log"
        train_network(network.name, network.seed, training, network.home, log)
    models = [network.model for _, network in networks]
    return (None, models) if coarse is None else (models[0], models[1:])


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


def _run(
    command: Sequence[str], environment: Mapping[str, str], log: Path, held: Sequence[int] = ()
) -> None:
    """Run an entry point of nnU-Net in a process of its own, its output added to the log.

    The process gets the descriptors `held`, of `locked`.
    """
    with own_trainers():
        external = os.environ["nnUNet_extTrainer"]  # noqa: SIM112 - nnU-Net's spelling
    with log.open("a", encoding="utf-8") as file:
        print(f"\n### {' '.join(command)}", file=file, flush=True)
        result = subprocess.run(  # noqa: S603 - our own interpreter and arguments
            [sys.executable, "-m", "twintrack.nnunet.train", *command],
            env={**environment, "nnUNet_extTrainer": external},
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
