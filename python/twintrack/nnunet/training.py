"""Where nnU-Net trains, and which networks: nnU-Net's own, or small ones for a CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from twintrack.errors import InputError

SMALL_TRAINER = "TwinTrackSmallTrainer"
SMALL_PLANS = "twintrackSmallPlans"
PLANS = "nnUNetPlans"
PLANNER = "ExperimentPlanner"


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
    InputError
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
    InputError
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
            names = {"-c": "configuration", "-tr": "trainer", "--plans": "plans", "-pl": "planner"}
            for option, name in names.items():
                value = getattr(self, name)
                if value != getattr(type(self), name):
                    raise InputError(
                        f"{option} is {value!r}, but --small brings its own; leave one of them out"
                    )

    @property
    def used(self) -> tuple[str, str, str]:
        """Names of the plans, of the configuration and of the trainer's class."""
        if self.small:
            return SMALL_PLANS, "3d_fullres", SMALL_TRAINER
        return self.plans, self.configuration, self.trainer

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
