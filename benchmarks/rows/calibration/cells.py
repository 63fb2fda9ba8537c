"""From histograms of the score to a map: what the peers of a fit that count cells share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CELLS = 1 << 16
"""Equally wide cells of the score, whichever its distribution."""


class Fitted(NamedTuple):
    """A map, as scikit-learn's `IsotonicRegression` has it."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def predict(self, score: NDArray[Any]) -> NDArray[np.float64]:
        """Linear between knots, constant outside."""
        return np.interp(score, self.x, self.y)


def map_of_cells(
    count: NDArray[Any], score: NDArray[Any], votes: NDArray[Any], raters: int, bins: int
) -> Fitted:
    """Equal-mass bins, cut between cells, and isotonic regression.

    `count`, `score` and `votes` are sums over the voxels of each cell. No cell is split, so a cut
    may be off by as many voxels as its cell has.
    """
    from sklearn.isotonic import isotonic_regression

    reached = np.cumsum(count)
    cuts = np.arange(bins) * int(reached[-1]) // bins
    starts = np.unique(np.searchsorted(reached, cuts, side="right"))
    mass = np.add.reduceat(count, starts).astype(np.float64)
    x = np.add.reduceat(score, starts) / mass
    mhr = np.add.reduceat(votes, starts) / (mass * raters)
    return Fitted(x, isotonic_regression(mhr, sample_weight=mass))
