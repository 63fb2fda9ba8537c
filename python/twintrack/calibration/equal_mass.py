"""Equal-mass bins: where the core cuts, and what lies between the cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import whole_number

Bins: TypeAlias = int | Literal["cells"]
EVERY_CELL = 1 << 62  # bins that are asked for where every cell shall be one


def bins_asked(bins: Bins) -> int:
    """Return a number of bins to ask for; with "cells" every occurring cell is a bin."""
    return EVERY_CELL if bins == "cells" else int(bins)


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
        Number of bins asked for, B where every cell is one. B is smaller where a block of equal
        scores holds more voxels than a bin should: such a block is never split.
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
    count, mean_score, votes = _core.equal_mass_bins(*rows, bins)
    return EqualMassBins(count, mean_score, votes, asked=len(count) if bins == EVERY_CELL else bins)


def bins_of_groups(
    count: NDArray[Any],
    mean_score: NDArray[np.float64],
    votes: NDArray[Any],
    bins: int,
    answers: int = 1,
) -> EqualMassBins:
    """Return the bins of groups of voxels whose mean scores are known, cut by the same rule.

    Parameters
    ----------
    count, mean_score : (G,) whole numbers, (G,) float64
        Voxels of each group, and their mean score; ascending.
    votes : (K, G) whole numbers
        Votes of each group; every row up to `answers` for each voxel, which then counts as many.
    bins : int
    """
    # As cells without residuals: a cut does not ask how far apart scores are.
    cells = np.arange(len(count), dtype=np.uint32)
    sums = np.stack([answers * count, np.zeros_like(count), *votes], axis=1).astype(np.uint64)
    made = bins_of_cells((cells, sums), bins)
    # The first group of each bin: the first that reaches beyond what lies before the bin.
    before = np.cumsum(made.count) - made.count
    starts = np.searchsorted(np.cumsum(sums[:, 0]), before, side="right")
    weights = count.astype(np.float64)
    mean = np.add.reduceat(weights * mean_score, starts) / np.add.reduceat(weights, starts)
    return EqualMassBins(made.count, mean, made.votes, bins)
