"""SetTally: the part of a `ScoreTally` that counts the voxels one set of raters looked at."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.arrays.backend import cuda_module
from twintrack.arrays.case import DeviceCase, OpenCase
from twintrack.arrays.cell_rows import CellRows
from twintrack.calibration.equal_mass import Rows
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack import _cuda


class SetTally:
    """Counts of cells, for raters who all looked at all voxels.

    Several threads may add to one; they take turns, each with all of the cores.

    Parameters
    ----------
    raters : int
        Their number n, at least 1.
    rows : optional
        What it holds from the beginning; not copied, never changed.
    """

    def __init__(self, raters: int, rows: Rows | None = None) -> None:
        self.raters = raters
        # One of the two is current: the dense table while voxels come in, else the rows that occur.
        self._dense: _core.ScoreTally | None = None
        self._rows: Rows | None = rows or (
            np.empty(0, np.uint32),
            np.empty((0, 2 + 2 * raters), np.uint64),
        )
        self._counts_votes: bool = self._rows[1].shape[1] == 2 + 2 * raters
        # Sums on devices, by device, of voxels that the dense table does not have yet.
        self._on_devices: dict[int, _cuda.ScoreTally] = {}
        # Held while any of these is read or changed: the core works without the interpreter's lock.
        self._lock = threading.RLock()

    @property
    def counts_votes(self) -> bool:
        """Whether voxels with exactly k votes are counted: not in tallies of earlier versions."""
        return self._counts_votes

    def add_case(self, case: OpenCase) -> None:
        """Add the voxels of a case whose arrays are converted; raises as `ScoreTally.update`."""
        with self._lock:
            dense = self._dense_table()
            if isinstance(case, DeviceCase):
                if case.device not in self._on_devices:
                    made = cuda_module().ScoreTally(self.raters, case.device, case.stream)
                    self._on_devices[case.device] = made
                self._on_devices[case.device].update(*case.compiled(), case.stream)
            else:
                dense.update(case.score, case.raters, case.region)
            self._rows = None

    def add_rows(self, rows: Rows) -> None:
        """Add occurring cells."""
        if len(rows[0]) == 0:
            return
        with self._lock:
            if self._rows is not None and len(self._rows[0]) == 0:
                self._counts_votes = rows[1].shape[1] == 2 + 2 * self.raters
            self._counts_votes &= rows[1].shape[1] == 2 + 2 * self.raters
            self._dense_table().add_rows(*rows)
            self._rows = None

    def rows(self) -> Rows:
        """Return the occurring cells and their sums."""
        with self._lock:
            if self._rows is None:
                assert self._dense is not None  # noqa: S101 - one of the two is always there
                for tally in self._on_devices.values():
                    self._dense.add_rows(*tally.take_rows())
                cells, sums = self._dense.rows()
                self._rows = cells, sums if self.counts_votes else sums[:, : 2 + self.raters]
            return self._rows

    def compact(self) -> None:
        """Keep only the cells that occur in memory (about 1 MB rather than 12), none on devices."""
        with self._lock:
            self.rows()
            self._dense = None
            self._on_devices.clear()

    def minus(self, rows: Rows, memory: NDArray[np.uint64] | None = None) -> SetTally:
        """Return this without rows that were added to it, in `memory` (2, K, C) if that is given.

        InputError if they were not.
        """
        cells, sums = self.rows()
        less_cells, less = rows
        columns = min(sums.shape[1], less.shape[1])
        first, second = (None, None) if memory is None else memory[:, :, :columns]
        # The row to be taken from each row: one of zeros where there is none.
        taken = np.full(_core.GRID_CELLS, len(less))
        taken[less_cells] = np.arange(len(less))
        taken = taken[cells]
        more = np.concatenate([less[:, :columns], np.zeros((1, columns), np.uint64)])
        rest = more.take(taken, axis=0, out=first, mode="clip")
        np.subtract(sums[:, :columns], rest, out=rest)
        if np.count_nonzero(taken < len(less)) < len(less) or np.any(rest > sums[:, :columns]):
            raise InputError("the tally to take away is no part of this tally")
        left = np.flatnonzero(rest[:, 0])
        if len(left) == len(cells):
            return SetTally(self.raters, (cells, rest))
        out = None if second is None else second[: len(left)]
        return SetTally(self.raters, (cells[left], rest.take(left, axis=0, out=out, mode="clip")))

    def _dense_table(self) -> _core.ScoreTally:
        if self._dense is None:
            assert self._rows is not None  # noqa: S101 - one of the two is always there
            self._dense = _core.ScoreTally(self.raters)
            self._dense.add_rows(*self._rows)
        return self._dense


def require_votes(counted: bool) -> None:
    """Raise InputError unless the voxels with exactly k votes were counted."""
    if not counted:
        raise InputError(
            "the tally is of an earlier version, which did not count the voxels with exactly k "
            "votes; tally the voxels again (twintrack fit -i)"
        )


def cell_rows(
    raters: int, cells: int | NDArray[np.uint32], columns: Sequence[NDArray[Any]]
) -> CellRows:
    """Return voxels by cell, from the columns that `SetTally.rows` has, of any unsigned type.

    `cells` may be the first of them, where one follows the other. InputError for tallies of
    earlier versions.
    """
    require_votes(len(columns) == 2 + 2 * raters)
    score = _core.cell_scores(cells, columns[0], columns[1])
    return CellRows(score, columns[0], columns[2 : 2 + raters], columns[2 + raters :])


def check_rows(cells: NDArray[Any], sums: NDArray[Any], raters: int) -> Rows:
    """Return rows that were read; InputError if they cannot be those of so many raters."""
    if (
        cells.ndim != 1
        or sums.ndim != 2
        or sums.shape[0] != cells.shape[0]
        or sums.shape[1] not in (2 + raters, 2 + 2 * raters)
        or raters < 1
    ):
        raise InputError("its arrays do not fit together")
    if cells.dtype != np.uint32 or sums.dtype != np.uint64:
        raise InputError("its arrays have the wrong dtype")
    if np.any(cells[1:] <= cells[:-1]) or np.any(cells >= _core.GRID_CELLS):
        raise InputError("its cells are not ascending cells of the score grid")
    count, votes, exactly = sums[:, :1], sums[:, 2 : 2 + raters], sums[:, 2 + raters :]
    if np.any(votes > count):
        raise InputError("it has more votes than voxels")
    if exactly.shape[1]:
        by_number = exactly @ np.arange(1, raters + 1, dtype=np.uint64)
        # Each against the count first: so the sum does not pass 2^64 on the way.
        if np.any(exactly > count) or np.any(by_number != votes.sum(axis=1)):
            raise InputError("its numbers of voxels with exactly k votes do not fit its votes")
        if np.any(exactly.sum(axis=1, keepdims=True) > count):
            raise InputError("it has more voxels with votes than voxels")
    return cells, sums
