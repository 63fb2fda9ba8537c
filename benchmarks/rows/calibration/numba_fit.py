"""A fit in numba: a histogram for each thread, their sum, equal-mass bins, isotonic regression.

Every cell of the score counts voxels and votes in the halves of one 64-bit integer. Cells and votes
of a block of voxels are computed first, in vector instructions, then scattered. Not exact: cells
are equally wide, so crowds of scores share one, and cuts fall between cells. Nothing is checked: a
score outside of [0, 1] writes where it should not. Its sums are of one case and one set of raters.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rows.calibration.cells import CELLS, Fitted, map_of_cells
from rows.loops import use_our_threads

BLOCK = 1024  # voxels whose cells and votes wait in the first-level cache
FINE_BITS = 8  # of a score within its cell; 24 in all, as float32 has
VOXEL = np.uint64(1 << 32)  # one voxel in the upper half; votes are in the lower half
_FINE, _CELL = np.uint32((1 << FINE_BITS) - 1), np.uint32(FINE_BITS)
_ONE, _TWO = np.uint32(1), np.uint32(2)
_SCALE, _MOST = np.float32(CELLS << FINE_BITS), np.int32((CELLS << FINE_BITS) - 1)
_BITS_OF_ONE = int(np.float16(1).view(np.uint16))


def fit_with_sums(score: NDArray[np.float32], raters: list[NDArray[np.uint8]], bins: int) -> Fitted:
    """Each cell also sums its scores, to 2^-24: what a bin's mean score is made of."""
    tables = np.zeros((use_our_threads(), 2 * CELLS), np.uint64)
    _with_sums(score, tuple(raters), tables)
    fine, packed = tables.sum(axis=0).reshape(-1, 2).T
    count, votes = _halves(packed)
    score_sum = (np.arange(CELLS) * count) / CELLS + fine / float(_SCALE)
    return map_of_cells(count, score_sum, votes, len(raters), bins)


def fit_at_centres(
    score: NDArray[np.float32], raters: list[NDArray[np.uint8]], bins: int
) -> Fitted:
    """Every score is taken to be the centre of its cell."""
    tables = np.zeros((use_our_threads(), CELLS), np.uint64)
    _counts(score, tuple(raters), tables)
    return _fitted(tables, (np.arange(CELLS) + 0.5) / CELLS, len(raters), bins)


def fit_by_value(score: NDArray[np.float16], raters: list[NDArray[np.uint8]], bins: int) -> Fitted:
    """Every 16-bit score is a cell of its own, so this is exact."""
    bits = np.arange(_BITS_OF_ONE + 1, dtype=np.uint16)
    tables = np.zeros((use_our_threads(), bits.size), np.uint64)
    _values(score.view(np.uint16), tuple(raters), tables)
    return _fitted(tables, bits.view(np.float16).astype(np.float64), len(raters), bins)


def _fitted(
    tables: NDArray[np.uint64], value: NDArray[np.float64], raters: int, bins: int
) -> Fitted:
    count, votes = _halves(tables.sum(axis=0))
    return map_of_cells(count, value * count, votes, raters, bins)


def _halves(packed: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    halves = np.ascontiguousarray(packed).view(np.uint32).reshape(-1, 2).astype(np.int64)
    return halves[:, 1], halves[:, 0]


@numba.njit
def _add_votes(masks: Any, first: int, last: int, votes: Any) -> None:
    votes[:] = 0
    for mask in masks:
        part = mask[first:last]
        for i in range(part.size):
            votes[i] += part[i]


@numba.njit(fastmath=True)
def _fine_cells(score: Any, fine: Any) -> None:
    # At most _MOST: a score of 1 belongs to the last cell.
    for i in range(score.size):
        fine[i] = np.uint32(min(np.int32(score[i] * _SCALE), _MOST))


@numba.njit(parallel=True)
def _with_sums(score: Any, masks: Any, tables: Any) -> None:
    each = -(-score.size // len(tables))
    for thread in numba.prange(len(tables)):
        _add_with_sums(score, masks, thread * each, (thread + 1) * each, tables[thread])


@numba.njit
def _add_with_sums(score: Any, masks: Any, begin: int, end: int, table: Any) -> None:
    fine, votes = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint8)
    for first in range(begin, min(end, score.size), BLOCK):
        part = score[first : min(first + BLOCK, end)]
        _fine_cells(part, fine)
        _add_votes(masks, first, first + part.size, votes)
        for i in range(part.size):
            entry = (fine[i] >> _CELL) * _TWO
            table[entry] += np.uint64(fine[i] & _FINE)
            table[entry + _ONE] += VOXEL + np.uint64(votes[i])


@numba.njit(parallel=True)
def _counts(score: Any, masks: Any, tables: Any) -> None:
    each = -(-score.size // len(tables))
    for thread in numba.prange(len(tables)):
        _add_counts(score, masks, thread * each, (thread + 1) * each, tables[thread])


@numba.njit
def _add_counts(score: Any, masks: Any, begin: int, end: int, table: Any) -> None:
    fine, votes = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint8)
    for first in range(begin, min(end, score.size), BLOCK):
        part = score[first : min(first + BLOCK, end)]
        _fine_cells(part, fine)
        _add_votes(masks, first, first + part.size, votes)
        for i in range(part.size):
            table[fine[i] >> _CELL] += VOXEL + np.uint64(votes[i])


@numba.njit(parallel=True)
def _values(bits: Any, masks: Any, tables: Any) -> None:
    each = -(-bits.size // len(tables))
    for thread in numba.prange(len(tables)):
        _add_values(bits, masks, thread * each, (thread + 1) * each, tables[thread])


@numba.njit
def _add_values(bits: Any, masks: Any, begin: int, end: int, table: Any) -> None:
    votes = np.empty(BLOCK, np.uint8)
    for first in range(begin, min(end, bits.size), BLOCK):
        part = bits[first : min(first + BLOCK, end)]
        _add_votes(masks, first, first + part.size, votes)
        for i in range(part.size):
            table[part[i]] += VOXEL + np.uint64(votes[i])
