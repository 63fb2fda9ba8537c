"""A fit with boost-histogram: three fills of the same cells, in as many threads as ours has.

Voxels are counted, scores and votes summed as weights, which it takes as float64. Not exact: cells
are equally wide, and cuts fall between them. Sums of weights depend on the threads in their last
digits.
"""

from __future__ import annotations

from typing import Any

import boost_histogram
import numpy as np
from numpy.typing import NDArray

from rows.calibration.cells import CELLS, Fitted, map_of_cells
from twintrack.arrays.threads import max_threads


def fit_with_histograms(score: NDArray[Any], raters: list[NDArray[np.uint8]], bins: int) -> Fitted:
    """Votes are summed over the raters before, so that they are one fill."""
    votes = np.sum(raters, axis=0, dtype=np.uint8)
    count, score_sum, vote_sum = (_filled(score, weight) for weight in (None, score, votes))
    return map_of_cells(count, score_sum, vote_sum, len(raters), bins)


def _filled(score: NDArray[Any], weight: NDArray[Any] | None) -> NDArray[Any]:
    # The axis ends above 1, which otherwise would be out of range.
    axis = boost_histogram.axis.Regular(
        CELLS, 0, np.nextafter(1, 2), underflow=False, overflow=False
    )
    storage = (
        boost_histogram.storage.Int64() if weight is None else boost_histogram.storage.Double()
    )
    histogram = boost_histogram.Histogram(axis, storage=storage)
    histogram.fill(score, weight=weight, threads=max_threads())
    return np.asarray(histogram.view())
