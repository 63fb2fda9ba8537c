"""A map in numba: a look-up table of lines over equally wide cells, in every thread.

Not exact: where a knot lies inside a cell, a line cuts the corner, and where many do, as near 0 of
a background's scores, nothing of them is left. It may decrease at the seam of two cells by a
rounding. Nothing is checked: a score outside of [0, 1] reads where it should not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rows.loops import use_our_threads

CELLS = 1 << 14
"""128 KB of lines, of which a core's second-level cache has plenty; fewer are hardly faster."""
_CELLS = np.float32(CELLS)
_ONE, _TWO = np.uint32(1), np.uint32(2)


def apply_lines(
    score: NDArray[Any], x: NDArray[np.float64], y: NDArray[np.float64], out: NDArray[Any]
) -> NDArray[Any]:
    """Apply a map of knots `x`, `y` to scores of 16 or 32 bits; the table is made each time."""
    threads = use_our_threads()
    if score.dtype == np.float16:
        table = np.interp(_halves(), x, y).astype(np.float16).view(np.uint16)
        _each_value(score.view(np.uint16), table, out.view(np.uint16), threads)
    else:
        _each_line(score, _lines(x, y), out, threads)
    return out


def _lines(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Value at 0 and slope of the line over each cell, side by side; a score of 1 has its own."""
    edges = np.arange(CELLS + 2) / CELLS
    value = np.interp(edges, x, y)
    slope = np.diff(value) * CELLS
    return np.stack([value[:-1] - slope * edges[:-1], slope], axis=1).astype(np.float32).ravel()


@lru_cache
def _halves() -> NDArray[np.float64]:
    """Every 16-bit float from 0 to 1, by its bits."""
    bits = np.arange(int(np.float16(1).view(np.uint16)) + 1, dtype=np.uint16)
    return bits.view(np.float16).astype(np.float64)


@numba.njit(parallel=True)
def _each_line(score: Any, table: Any, out: Any, threads: int) -> None:
    each = -(-score.size // threads)
    for thread in numba.prange(threads):
        part = slice(thread * each, (thread + 1) * each)
        _lines_of(score[part], table, out[part])


@numba.njit(fastmath=True)
def _lines_of(score: Any, table: Any, out: Any) -> None:
    for i in range(score.size):
        entry = np.uint32(np.int32(score[i] * _CELLS)) * _TWO
        out[i] = table[entry] + score[i] * table[entry + _ONE]


@numba.njit(parallel=True)
def _each_value(bits: Any, table: Any, out: Any, threads: int) -> None:
    each = -(-bits.size // threads)
    for thread in numba.prange(threads):
        part = slice(thread * each, (thread + 1) * each)
        _look_up(bits[part], table, out[part])


@numba.njit
def _look_up(bits: Any, table: Any, out: Any) -> None:
    for i in range(bits.size):
        out[i] = table[bits[i]]
