"""Reliability curves: mean human response by score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.bounds import warn_of, with_roundings
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.rater_sets import open_parts
from twintrack.metrics.case_tally import BINS, CaseTally


@dataclass(frozen=True, eq=False)
class ReliabilityCurve(ByValue):
    """Equally wide bins of the score from 0 to 1, the value 1 in the last.

    Attributes
    ----------
    count : (B,) uint64
        Voxels in each bin.
    mean_score : (B,) float64
        Their mean score, NaN in empty bins.
    mhr : (B,) float64
        Their mean human response, NaN in empty bins.
    rater_rates : (B, N) float64
        Share of them that each rater marked, NaN in empty bins.
    """

    count: NDArray[np.uint64]
    mean_score: NDArray[np.float64]
    mhr: NDArray[np.float64]
    rater_rates: NDArray[np.float64]


def reliability_curve(
    score: ArrayLike,
    raters: ArrayLike | Sequence[ArrayLike | None],
    bins: int = BINS,
    region: ArrayLike | None = None,
    *,
    ignore_label: int | None = None,
) -> ReliabilityCurve:
    """Return the reliability curve of a case (paper, Figure 2; Appendix A's formulation).

    Parameters
    ----------
    score : array (*shape) in [0, 1]
    raters : array (N, *shape) or sequence of N arrays of 0 and 1
    bins : int
    region : array (*shape), False and True or 0 and one other value in any dtype, optional
        Voxels that count; all by default.
    ignore_label : int, optional
        Value of annotations at voxels that the rater did not look at.
    """

    def tally(bounded: Any) -> CaseTally:
        opened = open_parts(bounded, raters, region, ignore_label)
        return CaseTally(opened.number, bins).add_parts(opened)

    tallied, count = with_roundings(tally, score)
    warn_of(count)
    return curve_of(tallied)


def curve_of(tally: CaseTally) -> ReliabilityCurve:
    """Return the reliability curve of all voxels of a tally."""
    bins = tally.score_bins.closed()
    return ReliabilityCurve(bins.count, bins.mean, bins.mhr, bins.rates)
