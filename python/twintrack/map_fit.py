"""From equal-mass bins to a calibration map."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration_map import CalibrationMap, isotonic
from twintrack.score_tally import EqualMassBins

__all__ = ["TARGETS", "Target", "fit_map", "fitted_values"]

Target = Literal["mhr", "single", "hard", "none"]
TARGETS: tuple[Target, ...] = get_args(Target)


def fitted_values(
    count: NDArray[np.uint64], votes: NDArray[np.uint64], target: Target, rater: int
) -> NDArray[np.float64]:
    """Return the isotonic fit of each bin.

    Parameters
    ----------
    count : (B,) voxels in each bin, not 0
    votes : (B, N) voxels of each bin that each rater marked
    target, rater
        As in `Calibrator`. ``"mhr"`` fits the mean over raters (paper, equation 4), ``"single"``
        one rater (equation 1), ``"hard"`` each rater by itself and averages the fits, which lie on
        the same knots.
    """
    weights = count.astype(np.float64)
    if target == "mhr":
        return isotonic(votes.sum(axis=1) / (weights * votes.shape[1]), weights)
    if target == "single":
        return isotonic(votes[:, rater] / weights, weights)
    fits = [isotonic(marked / weights, weights) for marked in votes.T]
    return np.mean(fits, axis=0)  # type: ignore[no-any-return]


def fit_map(bins: EqualMassBins, target: Target, rater: int) -> CalibrationMap:
    """Return the map through (mean score, fitted value) of each bin."""
    x = bins.mean_score
    y = np.clip(fitted_values(bins.count, bins.votes, target, rater), 0.0, 1.0)
    # Two bins of float64 scores may have means that round to one double: keep the upper.
    distinct = np.append(x[1:] > x[:-1], True)
    x, y = x[distinct], np.maximum.accumulate(y[distinct])
    # Interior knots of a plateau change nothing.
    needed = np.ones(len(x), bool)
    needed[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return CalibrationMap(x[needed], y[needed])
