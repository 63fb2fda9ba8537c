"""From equal-mass bins to a calibration map."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.equal_mass import EqualMassBins

Target = Literal["mhr", "single", "hard", "majority", "none"]
TARGETS: tuple[Target, ...] = get_args(Target)

IDENTITY = CalibrationMap([0.0, 1.0], [0.0, 1.0])


def fit_map(bins: EqualMassBins, target: Target, rater: int) -> CalibrationMap:
    """Return the map through (mean score, isotonic fit) of each bin; `Calibrator` says how.

    The bins are those of a `target_tally`.
    """
    return IDENTITY if target == "none" else CalibrationMap(*fitted_knots(bins, target, rater))


def fitted_knots(
    bins: EqualMassBins, target: Target, rater: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the knots of `fit_map`, for a target that is fitted."""
    if target == "majority":  # of one rater
        target, rater = "mhr", 0
    if bins.responses is not None and target == "mhr":
        # Answers of all raters together are those of one, who answers so often at each voxel.
        answered = bins.count * np.uint64(bins.answers)
        votes = bins.responses[:, np.newaxis]
        return _core.fitted_knots(answered, bins.mean_score, votes, "single", 0)
    if bins.looked is not None and target == "hard":
        return _hard_of_those_who_looked(bins, bins.looked)
    return _core.fitted_knots(bins.count, bins.mean_score, bins.votes, target, rater)


def _hard_of_those_who_looked(
    bins: EqualMassBins, looked: NDArray[np.uint64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average the raters' own fits; where a rater did not look his fit goes on linearly."""
    rising = np.r_[True, bins.mean_score[1:] > np.maximum.accumulate(bins.mean_score)[:-1]]
    starts = np.flatnonzero(rising)
    at = bins.mean_score[starts]
    seen = np.add.reduceat(looked, starts).astype(np.float64)
    votes = np.add.reduceat(bins.votes, starts)
    fits = []
    for rater in np.flatnonzero(seen.any(axis=0)):
        own = seen[:, rater] > 0
        fit = _core.isotonic(votes[own, rater] / seen[own, rater], seen[own, rater])
        fits.append(np.interp(at, at[own], fit))
    mean = np.mean(fits, axis=0)
    return at, np.clip(np.maximum.accumulate(mean), 0, 1)
