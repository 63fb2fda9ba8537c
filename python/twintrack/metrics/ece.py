"""Calibration errors: gaps between what bins of voxels claim and what raters answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twintrack.metrics.bins import Bins


def expected_error_per_rater(bins: Bins) -> NDArray[np.float64]:
    """Return Σ_b (n_b / n) |rate_b - mean_b| for each rater: (N,); NaN without voxels.

    The voxels are those that the rater looked at.

    Guo et al. 2017; per rater as in the paper's Appendix B. On `CaseTally.confidence_bins` it is
    the top-label error of the official evaluator, on `CaseTally.score_bins` that of the tumour
    probability, as Appendix B writes it.
    """
    voxels = bins.count_of.sum(axis=0).astype(np.float64)
    # n_b |rate - mean| = |votes - total|: nothing is divided that need not be.
    gaps = np.abs(bins.votes - bins.total_of).sum(axis=0)
    errors: NDArray[np.float64] = np.full(len(voxels), np.nan)
    np.divide(gaps, voxels, out=errors, where=voxels > 0)
    return errors


def expected_error(bins: Bins) -> float:
    """Return Σ_b (n_b / n) |MHR_b - mean_b|: the calibration error against the MHR."""
    voxels = bins.count.sum()
    if voxels == 0:
        return float("nan")
    return float(np.abs(bins.response - bins.total).sum() / voxels)


def average_error(bins: Bins) -> float:
    """Return the mean of |MHR_b - mean_b| over the bins that hold voxels (ACE).

    Neumann, Zisserman and Vedaldi 2018. Every bin counts alike, so background does not dominate.
    """
    filled = bins.count > 0
    if not filled.any():
        return float("nan")
    return float(np.mean(np.abs(bins.mhr[filled] - bins.mean[filled])))


def mean_of_raters(errors: NDArray[np.float64]) -> float:
    """Return the mean over the raters that have an error; NaN if none has one."""
    known = errors[~np.isnan(errors)]
    return float(known.mean()) if known.size else float("nan")
