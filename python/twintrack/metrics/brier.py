"""The Brier score against the mean human response, and its decomposition."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from twintrack.metrics.case_tally import Bins, CaseTally

__all__ = ["Murphy", "brier", "murphy"]


class Murphy(NamedTuple):
    """Parts of the Brier score over raters' binary answers (Murphy 1973).

    Attributes
    ----------
    reliability
        Σ_b (n_b / n) (mean_b - MHR_b)²; 0 is perfect.
    resolution
        Σ_b (n_b / n) (MHR_b - MHR)²; more is better.
    uncertainty
        MHR (1 - MHR), of the data alone.
    """

    reliability: float
    resolution: float
    uncertainty: float


def brier(tally: CaseTally) -> float:
    """Return the mean of (p - MHR)² over the voxels; NaN without voxels (Brier 1950)."""
    voxels = tally.voxels
    if voxels == 0:
        return float("nan")
    mhr = np.arange(tally.raters + 1) / tally.raters
    squared_mhr = float(tally.votes.sum(axis=0) @ (mhr * mhr))
    cross = float(tally.rater_scores.sum()) / tally.raters
    # The three are close where score and MHR are: what is left may round below 0.
    return max(0.0, (tally.squared_scores - 2 * cross + squared_mhr) / voxels)


def murphy(bins: Bins) -> Murphy:
    """Decompose the Brier score of the binned scores, every (voxel, rater) pair an observation."""
    voxels = bins.count.sum()
    if voxels == 0:
        return Murphy(np.nan, np.nan, np.nan)
    filled = bins.count > 0
    share = bins.count[filled] / voxels
    mean, mhr = bins.mean[filled], bins.mhr[filled]
    base = float(share @ mhr)
    return Murphy(
        float(share @ (mean - mhr) ** 2), float(share @ (mhr - base) ** 2), base * (1 - base)
    )
