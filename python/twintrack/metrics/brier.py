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

    NaN without voxels. The tally may be the sum of several cases'. The MHR is that of the raters
    who looked at a voxel; of one rater the voxels are those that he looked at.
    """
    voxels, squared_score, cross, squared_answer = 0, 0.0, 0.0, 0.0
    for raters, sums in tally.by_set().items():
        if rater is not None and rater not in raters:
            continue  # voxels that he did not look at
        voxels += int(sums.votes.sum())
        squared_score += sums.squared_scores
        if rater is None:
            mhr = np.arange(len(raters) + 1) / len(raters)
            cross += float(sums.rater_scores.sum()) / len(raters)
            squared_answer += float(sums.votes.sum(axis=0) @ (mhr * mhr))
        else:
            own = raters.index(rater)
            cross += float(sums.rater_scores[own])
            squared_answer += float(sums.rater_voxels[own])
    if voxels == 0:
        return float("nan")
    # The three are close where scores and answers are: what is left may round below 0.
    return max(0.0, (squared_score - 2 * cross + squared_answer) / voxels)


def murphy(bins: Bins, rater: int | None = None) -> Murphy:
    """Decompose the Brier score of the binned scores against raters' answers.

    Every (voxel, rater) pair is an observation, or every voxel for one rater: rate_b is the MHR of
    the bin, or the share of it that the rater marked. NaN without voxels. The bins may be those of
    several cases' summed tallies.
    """
    count = bins.count if rater is None else bins.count_of[:, rater]
    total = bins.total if rater is None else bins.total_of[:, rater]
    voxels = count.sum()
    if voxels == 0:
        return Murphy(np.nan, np.nan, np.nan)
    filled = count > 0
    share = count[filled] / voxels
    rate = (bins.mhr if rater is None else bins.rates[:, rater])[filled]
    base = float(share @ rate)
    return Murphy(
        float(share @ (total[filled] / count[filled] - rate) ** 2),
        float(share @ (rate - base) ** 2),
        base * (1 - base),
    )
