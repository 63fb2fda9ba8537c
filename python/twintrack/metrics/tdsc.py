"""TDSC, the thresholded Dice score of soft multi-rater segmentation."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from twintrack import _core

THRESHOLDS: NDArray[np.float64] = np.asarray(_core.DICE_THRESHOLDS, np.float64)
"""Thresholds of the benchmark: 0.1, 0.24, 0.38, 0.52, 0.66, 0.8."""

SMOOTHING = 1e-6


def tdsc(votes: Iterable[NDArray[np.uint64]]) -> float:
    """Return the mean over thresholds t of the Dice score of [p > t] and [MHR > t].

    2 |A ∩ G| / (|A| + |G| + 1e-6), and 1 where both are empty; t = 0.1, 0.24, 0.38, 0.52, 0.66, 0.8
    (evaluation protocol of CURVAS–PDACVI; paper, Appendix B).

    Parameters
    ----------
    votes : for each set of raters an array (7, N + 1) uint64, where N is their number
        Voxels that these raters looked at, by number of thresholds that the score exceeds and
        number of votes. The MHR of a voxel is out of its own N.
    """
    predicted, marked, both = np.zeros((3, len(THRESHOLDS)), np.uint64)
    exceeded = np.arange(1, len(THRESHOLDS) + 1)
    for table in votes:
        # Voxels that exceed so many thresholds at least and have so many votes at least.
        beyond = table[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
        needed = _votes_beyond(table.shape[1] - 1)
        predicted += beyond[exceeded, 0]
        marked += beyond[0, needed]
        both += beyond[exceeded, needed]
    union = (predicted + marked).astype(np.float64)
    dice = (2 * both).astype(np.float64) / (union + SMOOTHING)
    return float(np.mean(np.where(union > 0, dice, 1.0)))


@lru_cache
def _votes_beyond(raters: int) -> NDArray[np.intp]:
    """Return for each threshold the least number of votes whose MHR exceeds it."""
    mhr = np.arange(raters + 1) / np.float64(raters)
    return np.searchsorted(mhr, THRESHOLDS, side="right")
