"""Equal-mass bins: where the core cuts, and what lies between the cuts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import whole_number
from twintrack.arrays.rater_sets import RaterSet
from twintrack.errors import InputError

Rows: TypeAlias = tuple[NDArray[np.uint32], NDArray[np.uint64]]
"""Occurring cells (K,), ascending, and their sums (K, C): count, residuals, votes of each rater,
and, except in tallies of earlier versions, the voxels that exactly 1 … N raters marked."""

_MOST_ANSWERS = 1 << 23  # times 2^40 voxels in a cell fit 64 bits

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
    looked : (B, N) uint64, optional
        Voxels of each bin that each rater looked at; None if all raters looked at all.
    responses : (B,) uint64, optional
        Sum over a bin's voxels of votes / raters who looked, in units of 1 / `answers`.
    answers : int
        1 where `responses` is None.
    asked : int
        Number of bins asked for, B where every cell is one. B is smaller where a block of equal
        scores holds more voxels than a bin should: such a block is never split.
    """

    count: NDArray[np.uint64]
    mean_score: NDArray[np.float64]
    votes: NDArray[np.uint64]
    asked: int
    looked: NDArray[np.uint64] | None = None
    responses: NDArray[np.uint64] | None = None
    answers: int = 1

    def __len__(self) -> int:
        return len(self.count)

    @property
    def response(self) -> NDArray[np.float64]:
        """Sum over each bin's voxels of votes / raters who looked: (B,)."""
        if self.responses is not None:
            return np.asarray(self.responses / np.float64(self.answers))
        return np.asarray(self.votes.mean(axis=1))

    @property
    def answered(self) -> NDArray[np.float64]:
        """Answers in each bin: raters who looked, over its voxels: (B,)."""
        if self.looked is not None:
            return np.asarray(self.looked.sum(axis=1).astype(np.float64))
        return np.asarray(self.count * np.float64(self.votes.shape[1]))

    @property
    def mhr(self) -> NDArray[np.float64]:
        """Mean human response of each bin: the mean over its voxels, and raters who looked."""
        if self.responses is not None:
            return np.asarray(self.responses / (self.count * np.float64(self.answers)))
        mhr: NDArray[np.float64] = self.votes.sum(axis=1) / (
            self.count * np.float64(self.votes.shape[1])
        )
        return mhr


def bins_of_cells(rows: Rows, raters: int, bins: int) -> EqualMassBins:
    """Return the bins of grid cells, as `SetTally.rows` has them; raises as `equal_mass_bins`."""
    bins = whole_number(bins, "bins", 1)
    count, mean_score, votes = _core.equal_mass_bins(*rows, raters, bins)
    return EqualMassBins(count, mean_score, votes, asked=len(count) if bins == EVERY_CELL else bins)


def bins_of_sets(sets: Mapping[RaterSet, Rows], raters: int, bins: int) -> EqualMassBins:
    """Return the bins of voxels that not all of the raters looked at, from the rows of each set.

    Raises
    ------
    ValueError
        As `ScoreTally.equal_mass_bins`; or the numbers of raters who looked have a least common
        multiple of more than 2^23, which 16 raters do not reach.
    """
    answers = math.lcm(*(len(own) for own in sets))
    if answers > _MOST_ANSWERS:
        raise InputError(
            f"votes are out of {sorted({len(own) for own in sets})} raters, whose least common "
            f"multiple {answers} is more than {_MOST_ANSWERS}; leave out raters (--use-raters)"
        )
    cells = np.unique(np.concatenate([own for own, _ in sets.values()]))
    # Count, residuals; votes and voxels looked at by rater; responses.
    pooled = np.zeros((len(cells), 3 + 2 * raters), np.uint64)
    for some, (own, sums) in sets.items():
        at = np.searchsorted(cells, own)
        pooled[at, :2] += sums[:, :2]
        for column, rater in enumerate(some, start=2):
            pooled[at, 2 + rater] += sums[:, column]
            pooled[at, 2 + raters + rater] += sums[:, 0]
        votes = sums[:, 2 : 2 + len(some)].sum(axis=1)
        pooled[at, -1] += votes * np.uint64(answers // len(some))
    made = bins_of_cells((cells, pooled), 2 * raters + 1, bins)
    votes, looked, responses = np.split(made.votes, [raters, 2 * raters], axis=1)
    return replace(
        made,
        votes=np.ascontiguousarray(votes),
        looked=np.ascontiguousarray(looked),
        responses=np.ascontiguousarray(responses[:, 0]),
        answers=answers,
    )


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
    made = bins_of_cells((cells, sums), len(votes), bins)
    # The first group of each bin: the first that reaches beyond what lies before the bin.
    before = np.cumsum(made.count) - made.count
    starts = np.searchsorted(np.cumsum(sums[:, 0]), before, side="right")
    weights = count.astype(np.float64)
    mean = np.add.reduceat(weights * mean_score, starts) / np.add.reduceat(weights, starts)
    return EqualMassBins(made.count, mean, made.votes, bins)
