"""The challenge's official evaluator, if its folder is named on the command line.

It is the folder `CURVAS-PDACVI_2025/evaluation_metrics` of the repository
https://github.com/SYCAI-Technologies/curvas-challenge (CC BY-NC-SA, so no part of it is here) and
needs torch and torchmetrics. It is imported under a name of its own, for one of its files imports
the other relative to a package, which the folder does not declare.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rows.row import NotRunError
from twintrack.metrics.vascular import AXES

NAME = "official evaluator"
MODULE = "metrics_evaluation"
_PACKAGE = "official_evaluator"


def official_evaluator(folder: str | None) -> ModuleType:
    """Its module, imported.

    Raises
    ------
    NotRunError
        If no folder was named.
    ImportError
        If the folder does not hold it, or what it needs is not installed.
    """
    if folder is None:
        raise NotRunError("name its folder: --official FOLDER")
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(Path(folder).resolve())]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.{MODULE}")


def tdsc_ece_crps(
    folder: str | None, score: NDArray[Any], raters: list[NDArray[np.uint8]]
) -> dict[str, float]:
    """What `rows.metrics.evaluate` compares.

    It always returns a binary Dice score as well, against a consensus that has to be given: the
    masks for it are the cheapest there are.
    """
    module = official_evaluator(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its integral seldom converges
        tdsc, _ = module.merged_dice_score(score, raters[0], raters, raters[0])
        per_rater = module.multirater_expected_calibration_error(raters, score)
        crps = module.volume_metric(raters, score)
    ece = np.mean([float(value) for value in per_rater.values()])
    return {"TDSC": float(tdsc), "ECE": float(ece), "CRPS": float(crps)}


def invasion(
    folder: str | None,
    score: NDArray[Any],
    raters: list[NDArray[np.uint8]],
    vessels: NDArray[np.uint8],
) -> tuple[dict[int, list[list[float]]], dict[str, float]]:
    """Degrees of each label by mask (raters, then thresholds) and plane; distances by vessel.

    The degrees are taken as its own code asks for them, so that nothing runs twice.
    """
    module: Any = official_evaluator(folder)
    original = module.get_involvement
    seen: dict[int, list[list[float]]] = {}

    def involvement(tumor: Any, vessel: Any, vessel_value: int, *rest: Any, **named: Any) -> Any:
        degrees = original(tumor, vessel, vessel_value, *rest, **named)
        seen.setdefault(int(vessel_value), []).append([float(degrees[axis]) for axis in AXES])
        return degrees

    module.get_involvement = involvement
    try:
        reference, prediction = module.vascular_involvement(raters, vessels, score)
        distances = module.aggregated_vascular_involvement(reference, prediction)
    finally:
        module.get_involvement = original
    return seen, {str(name): float(value) for name, value in distances.items()}
