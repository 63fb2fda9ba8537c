"""Floor and ceiling of a map: no certain 0 or 1 unless they are wanted."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.equal_mass import EqualMassBins
from twintrack.calibration.map_fit import Target

Bound: TypeAlias = float | Literal["auto"]


def auto_bounds(
    bins: EqualMassBins, target: Target, rater: int, effective: float
) -> tuple[float, float]:
    """Return the floor and the ceiling that half a vote per effective case makes.

    The lowest value of an isotonic fit is the least mean of the first k bins over all k. Voxels of
    a case answer alike, so a lowest block without votes says no more than that none of n effective
    cases has any. With X votes in A answers of the first k bins, and one answer more of each
    effective case that is half a vote (Krichevsky and Trofimov's estimate, with cases for trials)::

        floor   = min over k of (X + n/2) / (A + n),     first k bins
        ceiling = max over k of (X + n/2) / (A + n),     last k bins

    For a lowest block of V voxels that no rater marked this is about n / (2 V N). A map whose
    values are brought into these bounds is the isotonic fit to the bins and n more answers at
    either end. So a small end block is pooled with its neighbours rather than lifted above them,
    and a block with more votes than these keeps its value.

    Parameters
    ----------
    bins : EqualMassBins
        What the map was fitted on.
    target, rater
        Whose answers it follows: of "single" this rater's, else all.
    effective : float
        Effective number of cases; at least one is taken.
    """
    single = target == "single"
    votes = (bins.votes[:, rater] if single else bins.votes.sum(axis=1)).astype(np.float64)
    answers = bins.count.astype(np.float64) if single else bins.answered
    more = max(effective, 1.0)

    def means(step: int) -> NDArray[Any]:
        pooled: NDArray[Any] = (np.cumsum(votes[::step]) + more / 2) / (
            np.cumsum(answers[::step]) + more
        )
        return pooled

    return float(means(1).min()), float(means(-1).max())


def bounded(fitted: CalibrationMap, floor: float, ceiling: float) -> CalibrationMap:
    """Return the map with the values of its knots brought into [floor, ceiling]."""
    y = np.clip(fitted.y, floor, ceiling)
    if np.array_equal(y, fitted.y):
        return fitted
    kept = corners(y)
    return CalibrationMap(fitted.x[kept], y[kept])


def corners(*values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which knots are needed: interior ones of a plateau of all `values` change nothing."""
    y = np.stack(values)
    kept = np.ones(y.shape[1], np.bool_)
    kept[1:-1] = ((y[:, 1:-1] != y[:, :-2]) | (y[:, 1:-1] != y[:, 2:])).any(axis=0)
    return kept
