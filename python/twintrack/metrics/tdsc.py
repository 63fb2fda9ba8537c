"""TDSC, the thresholded Dice score of soft multi-rater segmentation."""

from __future__ import annotations

from collections.abc import Iterable

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
    tables = [
        (table, np.arange(table.shape[1]) / np.float64(table.shape[1] - 1)) for table in votes
    ]
    scores = []
    for exceeded, threshold in enumerate(THRESHOLDS, start=1):
        predicted = sum(int(table[exceeded:].sum()) for table, _ in tables)
        marked = sum(int(table[:, mhr > threshold].sum()) for table, mhr in tables)
        both = sum(int(table[exceeded:, mhr > threshold].sum()) for table, mhr in tables)
        empty = predicted == 0 and marked == 0
        scores.append(1.0 if empty else 2 * both / (predicted + marked + SMOOTHING))
    return float(np.mean(scores))
