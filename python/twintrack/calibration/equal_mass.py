"""Equal-mass bins: where the core cuts, and what lies between the cuts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import whole_number


@dataclass(frozen=True, eq=False)
class EqualMassBins(ByValue):
    """Bins of equally many voxels, ascending in score.

    Attributes
    ----------
    count : (B,) uint64
        Voxels in each bin.
    mean_score : (B,) float64
        Mean score of each bin.
    votes : (B, N) uint64
        Voxels of each bin that each rater marked.
    asked : int
        Number of bins asked for. B is smaller where a block of equal scores holds more voxels than
        a bin should: such a block is never split.
    """

    count: NDArray[np.uint64]
    mean_score: NDArray[np.float64]
    votes: NDArray[np.uint64]
    asked: int

    def __len__(self) -> int:
        return len(self.count)

    @property
    def mhr(self) -> NDArray[np.float64]:
        """Mean human response of each bin: the mean over its voxels and all raters."""
        mhr: NDArray[np.float64] = self.votes.sum(axis=1) / (
            self.count * np.float64(self.votes.shape[1])
        )
        return mhr


def bins_of_cells(rows: tuple[NDArray[np.uint32], NDArray[np.uint64]], bins: int) -> EqualMassBins:
    """Return the bins of grid cells, as `ScoreTally.rows` has them; raises as `equal_mass_bins`."""
    bins = whole_number(bins, "bins", 1)
    return EqualMassBins(*_core.equal_mass_bins(*rows, bins), asked=bins)
