"""CellRows: voxels counted by score, as one set of raters saw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class CellRows(NamedTuple):
    """Voxels of a tally by cell of the score grid, with what n raters answered there.

    Attributes
    ----------
    score : (K,) float64
        Mean score of each cell, ascending.
    voxels : (K,) unsigned
        Their number; 0 in cells that do not occur, whose score may be any in the cell.
    votes : n of (K,) unsigned
        Voxels that each rater marked.
    exactly : n of (K,) unsigned
        Voxels that exactly 1 … n raters marked.
    """

    score: NDArray[np.float64]
    voxels: NDArray[Any]
    votes: Sequence[NDArray[Any]]
    exactly: Sequence[NDArray[Any]]

    @property
    def counts(self) -> list[NDArray[Any]]:
        """All columns of counts, in their order."""
        return [self.voxels, *self.votes, *self.exactly]

    @property
    def response(self) -> NDArray[np.float64]:
        """Sum over the voxels of each cell of votes / raters: (K,) float64."""
        votes = np.zeros(len(self.voxels), np.uint64)
        for column in self.votes:
            votes += column
        return np.asarray(votes / np.float64(len(self.votes)))
