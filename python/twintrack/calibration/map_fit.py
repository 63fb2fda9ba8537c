"""From equal-mass bins to a calibration map."""

from __future__ import annotations

from typing import Literal, get_args

from twintrack import _core
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.equal_mass import EqualMassBins

Target = Literal["mhr", "single", "hard", "none"]
TARGETS: tuple[Target, ...] = get_args(Target)

IDENTITY = CalibrationMap([0.0, 1.0], [0.0, 1.0])


def fit_map(bins: EqualMassBins, target: Target, rater: int) -> CalibrationMap:
    """Return the map through (mean score, isotonic fit) of each bin; `Calibrator` says how."""
    if target == "none":
        return IDENTITY
    return CalibrationMap(
        *_core.fitted_knots(bins.count, bins.mean_score, bins.votes, target, rater)
    )
