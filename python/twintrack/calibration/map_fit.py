"""From equal-mass bins to a calibration map."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.equal_mass import EqualMassBins

Target = Literal["mhr", "single", "hard", "none"]
TARGETS: tuple[Target, ...] = get_args(Target)

IDENTITY = CalibrationMap([0.0, 1.0], [0.0, 1.0])


def fit_map(bins: EqualMassBins, target: Target, rater: int) -> CalibrationMap:
    """Return the map through (mean score, isotonic fit) of each bin; `Calibrator` says how."""
    return IDENTITY if target == "none" else CalibrationMap(*fitted_knots(bins, target, rater))


def fitted_knots(
    bins: EqualMassBins, target: Target, rater: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the knots of `fit_map`, for a target that is fitted."""
    return _core.fitted_knots(bins.count, bins.mean_score, bins.votes, target, rater)
