"""Contested voxels: those that some, but not all, of the raters who looked have marked."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from twintrack.metrics.tdsc import THRESHOLDS


def disagreement(votes: Iterable[NDArray[np.uint64]]) -> float:
    """Return the share of contested voxels among those that any rater marked.

    0 where all raters mark the same, 1 where no voxel is marked by all. NaN where nothing is
    marked, and where no voxel was looked at by two raters.

    Parameters
    ----------
    votes
        As in `tdsc`: for each set of raters its voxels by thresholds exceeded and votes. Voxels
        that one rater alone looked at are left out.
    """
    tables = [table for table in votes if table.shape[1] > 2]
    marked = sum(int(table[:, 1:].sum()) for table in tables)
    contested = sum(int(table[:, 1:-1].sum()) for table in tables)
    return contested / marked if marked else float("nan")


def contested_error(votes: Iterable[NDArray[np.uint64]]) -> float:
    """Return how many of TDSC's six thresholds lie between p and MHR, mean of contested voxels.

    As a share of the six, so in [0, 1]: the mean over thresholds t of the share of contested voxels
    of which [p > t] is not [MHR > t]. It is |p - MHR| as coarsely as TDSC sees it. NaN where no
    voxel is contested.

    Parameters
    ----------
    votes
        As in `disagreement`.
    """
    between, voxels = 0, 0
    for table in votes:
        contested = table[:, 1:-1]
        raters = table.shape[1] - 1
        mhr = np.arange(1, raters) / np.float64(raters)
        exceeded = (mhr[:, np.newaxis] > THRESHOLDS).sum(axis=1)
        apart = np.abs(np.arange(len(table))[:, np.newaxis] - exceeded)
        between += int((contested * apart.astype(np.uint64)).sum())
        voxels += int(contested.sum())
    return between / (len(THRESHOLDS) * voxels) if voxels else float("nan")
