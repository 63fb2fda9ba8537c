"""What would end a training after hours of preprocessing, found out before."""

from __future__ import annotations

import inspect
from pathlib import Path

from twintrack.errors import InputError
from twintrack.nnunet.trainer_search import quiet_search


def check_device(device: str) -> None:
    """Raise InputError if torch finds no such device: "cuda", "cpu" or "mps"."""
    import torch

    if (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    ):
        raise InputError(
            f"-device is {device!r}, but torch finds no such device here; repair its driver or "
            "name another (small networks, --small, train on a cpu)"
        )


def check_planner(planner: str, plans: str) -> None:
    """Raise InputError if nnU-Net has no planner of this class name that writes such plans."""
    import nnunetv2
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    found = recursive_find_python_class(
        str(Path(nnunetv2.__path__[0]) / "experiment_planning"),
        planner,
        "nnunetv2.experiment_planning",
    )
    if not (isinstance(found, type) and issubclass(found, ExperimentPlanner)):
        raise InputError(
            f"-pl is {planner!r}; nnU-Net has no such planner (nnUNetPlannerResEncM is one)"
        )
    written = inspect.signature(found).parameters["plans_name"].default
    if written != plans:
        raise InputError(
            f"--plans is {plans!r}, but planner {planner} writes {written}; give that name, or "
            "with -pl the planner of these plans (nnUNetPlannerResEncM writes "
            "nnUNetResEncUNetMPlans)"
        )


def check_trainer(trainer: str) -> None:
    """Raise InputError if nnU-Net finds no trainer of this class name, nor nnUNet_extTrainer."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    with quiet_search():
        try:
            recursive_find_trainer_class_by_name(trainer)
        except Exception as error:  # whatever a file of nnUNet_extTrainer raises
            raise InputError(
                f"-tr is {trainer!r}; nnU-Net finds no such trainer: "
                f"{type(error).__name__}: {error}"
            ) from error
