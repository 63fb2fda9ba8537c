"""The Brier score against the mean human response, and its decomposition."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from twintrack.metrics.bins import Bins

if TYPE_CHECKING:
    from twintrack.metrics.case_tally import CaseTally


class Murphy(NamedTuple):
    """Parts of the Brier score over raters' binary answers (Murphy 1973).

    ``reliability - resolution + uncertainty`` is the Brier score of scores replaced by the mean of
    their bin.

    Attributes
    ----------
    reliability
        Σ_b (n_b / n) (mean_b - rate_b)²; 0 is perfect.
    resolution
        Σ_b (n_b / n) (rate_b - rate)²; more is better.
    uncertainty
        rate (1 - rate), of the answers alone.
    """

    reliability: float
    resolution: float
    uncertainty: float


def brier(tally: CaseTally, rater: int | None = None) -> float:
    """Return the mean of (p - MHR)², or of (p - y)² for one rater's answers y (Brier 1950).

    NaN without voxels. The tally may be the sum of several cases'.
    """
    voxels = tally.voxels
    if voxels == 0:
        return float("nan")
    if rater is None:
        mhr = np.arange(tally.raters + 1) / tally.raters
        cross = float(tally.rater_scores.sum()) / tally.raters
        squared_answer = float(tally.votes.sum(axis=0) @ (mhr * mhr))
    else:
        cross = float(tally.rater_scores[rater])
        squared_answer = float(tally.rater_voxels[rater])
    # The three are close where scores and answers are: what is left may round below 0.
    return max(0.0, (tally.squared_scores - 2 * cross + squared_answer) / voxels)


def murphy(bins: Bins, rater: int | None = None) -> Murphy:
    """Decompose the Brier score of the binned scores against raters' answers.

    Every (voxel, rater) pair is an observation, or every voxel for one rater: rate_b is the MHR of
    the bin, or the share of it that the rater marked. NaN without voxels. The bins may be those of
    several cases' summed tallies.
    """
    voxels = bins.count.sum()
    if voxels == 0:
        return Murphy(np.nan, np.nan, np.nan)
    filled = bins.count > 0
    share = bins.count[filled] / voxels
    rate = (bins.mhr if rater is None else bins.rates[:, rater])[filled]
    base = float(share @ rate)
    return Murphy(
        float(share @ (bins.mean[filled] - rate) ** 2),
        float(share @ (rate - base) ** 2),
        base * (1 - base),
    )
