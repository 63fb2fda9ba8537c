"""ScoreTally: what calibration maps are fitted from, gathered in one pass over the voxels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack import _core
from twintrack.arrays.backend import cuda_module
from twintrack.arrays.bounds import warn_of, with_roundings
from twintrack.arrays.case import DeviceCase, OpenCase, open_case
from twintrack.arrays.numbers import whole_number
from twintrack.calibration.equal_mass import EqualMassBins, bins_of_cells
from twintrack.errors import InputError
from twintrack.files import naming

if TYPE_CHECKING:
    from twintrack import _cuda

KIND = "score tally"
_LARGEST_FILE = 1 << 28  # bytes of all arrays; 255 raters in every cell take 249 million


class ScoreTally:
    """Counts, score sums and votes per rater over a fine grid of score values.

    All of it is integer sums: the tally of a case is the same, bit for bit, for any chunking,
    number of threads, memory order and order of addition, and tallies of parts add up to the tally
    of the whole. The grid has a cell for every float16 and every bfloat16 in [0, 1]; a float32 or
    float64 score shares its cell with scores closer than 1/2048 of its distance to the nearer of 0
    and 1, and its exact distance enters the cell's sum (float64: rounded to 2^-32 of that
    distance). Capacity: 2^40 voxels in one cell.

    Parameters
    ----------
    raters
        Number of raters N, at least 1.

    Notes
    -----
    Several threads may add to one tally; they take turns, each with all of the cores. Pickled and
    saved tallies hold only the cells that occur: about 1 MB for a CT and five raters.
    """

    def __init__(self, raters: int) -> None:
        self._raters = whole_number(raters, "raters", 1)
        # One of the two is current: the dense table while voxels come in, else the rows that occur.
        self._dense: _core.ScoreTally | None = None
        self._rows: tuple[NDArray[np.uint32], NDArray[np.uint64]] | None = (
            np.empty(0, np.uint32),
            np.empty((0, self._raters + 2), np.uint64),
        )
        # Sums on devices, by device, of voxels that the dense table does not have yet.
        self._on_devices: dict[int, _cuda.ScoreTally] = {}
        # Held while any of these is read or changed: the core works without the interpreter's lock.
        self._lock = threading.RLock()

    @property
    def raters(self) -> int:
        """Number of raters."""
        return self._raters

    @property
    def cells(self) -> NDArray[np.uint32]:
        """Grid cells that occur, ascending: (K,) uint32."""
        return self.rows()[0]

    @property
    def counts(self) -> NDArray[np.uint64]:
        """Voxels in each occurring cell: (K,) uint64."""
        return self.rows()[1][:, 0]

    @property
    def votes(self) -> NDArray[np.uint64]:
        """Voxels that each rater marked in each occurring cell: (K, N) uint64."""
        return self.rows()[1][:, 2:]

    @property
    def voxels(self) -> int:
        """Number of voxels tallied."""
        return int(self.counts.sum())

    def update(
        self,
        score: ArrayLike,
        raters: ArrayLike | Sequence[ArrayLike],
        region: ArrayLike | None = None,
    ) -> ScoreTally:
        """Add the voxels of a case, or of a part of one.

        Arrays of four axes or more that may be a stack of several cases are an error; a list of one
        array per rater says that they are one case.

        Parameters
        ----------
        score : array (*shape), float16, bfloat16, float32 or float64 in [0, 1]
        raters : array (N, *shape) or sequence of N arrays (*shape), 0 and 1 in any dtype
        region : array (*shape), False and True or 0 and one other value in any dtype, optional
            Voxels that count; voxels outside are not looked at. All by default.

        Raises
        ------
        ValueError
            Names the array, the voxel and the value for a score that is NaN or outside [0, 1], a
            label other than 0 and 1 or a region that is no mask; also for shapes or numbers of
            raters that do not fit. The tally is then as before the call.
        TypeError
            For a dtype that does not fit, or arrays some of which lie in host memory and some on a
            device.

        Notes
        -----
        Arrays in CUDA memory are tallied there, on their library's current stream, which is waited
        for since an invalid voxel must be reported. The sums stay on the device until they are
        asked for.
        """
        found, count = with_roundings(
            lambda bounded: self.add_case(open_case(bounded, raters, region)), score
        )
        warn_of(count)
        return found

    def add_case(self, case: OpenCase) -> ScoreTally:
        """Add the voxels of a case whose arrays are converted; raises as `update`."""
        with self._lock:
            dense = self._dense_table()
            if isinstance(case, DeviceCase):
                if case.device not in self._on_devices:
                    made = cuda_module().ScoreTally(self._raters, case.device, case.stream)
                    self._on_devices[case.device] = made
                self._on_devices[case.device].update(*case.compiled(), case.stream)
            else:
                dense.update(case.score, case.raters, case.region)
            self._rows = None
        return self

    def __iadd__(self, other: ScoreTally) -> ScoreTally:
        if other.raters != self.raters:
            raise InputError(
                f"cannot add a tally of {other.raters} raters to one of {self.raters} raters"
            )
        rows = other.rows()
        with self._lock:
            self._dense_table().add_rows(*rows)
            self._rows = None
        return self

    @classmethod
    def of_all(cls, tallies: Sequence[ScoreTally]) -> ScoreTally:
        """Return the sum of one tally or more, a tally of its own."""
        total = tallies[0].copy()
        for tally in tallies[1:]:
            total += tally
        return total

    def without(self, part: ScoreTally, scratch: NDArray[np.uint64] | None = None) -> ScoreTally:
        """Return what is left when a tally that was added is taken away again; exact.

        Parameters
        ----------
        part
            What is taken away.
        scratch : (2, K, 2 + N) uint64, optional
            Memory for the K cells that occur here. What is returned lies in it, to be used before
            it is given again: new memory takes longer than the work.

        Raises
        ------
        ValueError
            It is no part of this one: a cell has more voxels or votes in it than here.
        """
        (cells, sums), (its_cells, its_sums) = self.rows(), part.rows()
        # Rows of the part by cell of the grid; a row of zeros for every cell that it does not have.
        row_of = np.full(_core.GRID_CELLS, len(its_cells))
        row_of[its_cells] = np.arange(len(its_cells))
        rows = row_of[cells]
        first, second = (None, None) if scratch is None else scratch
        if part.raters == self.raters and np.sum(rows < len(its_cells)) == len(its_cells):
            its_sums = np.concatenate([its_sums, np.zeros((1, its_sums.shape[1]), np.uint64)])
            rest = its_sums.take(rows, axis=0, out=first, mode="clip")
            np.subtract(sums, rest, out=rest)
            if not np.any(rest > sums):  # as those below 0 would be
                left = np.flatnonzero(rest[:, 0])
                tally = ScoreTally(self.raters)
                tally._rows = cells, rest
                if len(left) < len(cells):
                    out = None if second is None else second[: len(left)]
                    tally._rows = cells[left], rest.take(left, axis=0, out=out, mode="clip")
                return tally
        raise InputError("the tally to take away is no part of this tally")

    def __add__(self, other: ScoreTally) -> ScoreTally:
        return self.of_all([self, other])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoreTally):
            return NotImplemented
        if self.raters != other.raters:
            return False
        mine, theirs = self.rows(), other.rows()
        return np.array_equal(mine[0], theirs[0]) and np.array_equal(mine[1], theirs[1])

    def __repr__(self) -> str:
        return f"ScoreTally(raters={self.raters}): {self.voxels} voxels in {len(self.cells)} cells"

    def rows(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Return the occurring cells (K,) and their sums (K, 2 + N): count, residuals, votes."""
        with self._lock:
            if self._rows is None:
                assert self._dense is not None  # noqa: S101 - one of the two is always there
                for tally in self._on_devices.values():
                    self._dense.add_rows(*tally.take_rows())
                self._rows = self._dense.rows()
            return self._rows

    def compact(self) -> ScoreTally:
        """Keep only the cells that occur in memory (about 1 MB rather than 10), none on devices."""
        with self._lock:
            self.rows()
            self._dense = None
            self._on_devices.clear()
        return self

    def equal_mass_bins(self, bins: int) -> EqualMassBins:
        """Divide the voxels into at most `bins` bins of equal mass.

        With V scores sorted ascending, cut k = 1 … M-1 falls before sorted position ⌊kV/M⌋; inside
        a block of equal scores (here: a grid cell) it moves to the start of the block, and cuts
        that coincide merge. The sums inside the bins are exact.

        Raises
        ------
        ValueError
            If the tally is empty or `bins` is less than 1.
        """
        return bins_of_cells(self.rows(), bins)

    def save(self, path: str | Path) -> None:
        """Write the tally to an npz file, whole or not at all."""
        from twintrack.volumes.tally_files import write_tally  # nibabel takes its time

        cells, sums = self.rows()
        write_tally(Path(path), KIND, grid_cells=_core.GRID_CELLS, cells=cells, sums=sums)

    @classmethod
    def load(cls, path: str | Path) -> ScoreTally:
        """Read a tally that `save` wrote.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            If the file is no tally, is damaged, or comes from a newer version; names the file.
        """
        from twintrack.volumes.tally_files import read_tally

        path = Path(path)
        found = read_tally(path, KIND, ("grid_cells", "cells", "sums"), _LARGEST_FILE)
        with naming(path):
            if int(found["grid_cells"]) != _core.GRID_CELLS:
                raise InputError("it was made on another score grid")
            return cls.from_rows(found["cells"], found["sums"])

    @classmethod
    def from_rows(cls, cells: NDArray[Any], sums: NDArray[Any]) -> ScoreTally:
        """Return the tally with these rows, as `rows` gives them; ValueError if they cannot be."""
        if (
            cells.ndim != 1
            or sums.ndim != 2
            or sums.shape[0] != cells.shape[0]
            or sums.shape[1] < 3
        ):
            raise InputError("its arrays do not fit together")
        if cells.dtype != np.uint32 or sums.dtype != np.uint64:
            raise InputError("its arrays have the wrong dtype")
        if np.any(cells[1:] <= cells[:-1]) or np.any(cells >= _core.GRID_CELLS):
            raise InputError("its cells are not ascending cells of the score grid")
        if np.any(sums[:, 2:] > sums[:, :1]):
            raise InputError("it has more votes than voxels")
        tally = cls(sums.shape[1] - 2)
        tally._rows = (cells, sums)
        return tally

    def dense(self) -> NDArray[np.uint64]:
        """Return the sums of all cells of the grid: (2 + N, GRID_CELLS), rows as in `rows`."""
        cells, sums = self.rows()
        dense = np.zeros((sums.shape[1], _core.GRID_CELLS), np.uint64)
        dense[:, cells] = sums.T
        return dense

    @classmethod
    def from_dense(cls, sums: NDArray[np.uint64]) -> ScoreTally:
        """Return the tally with these sums of all cells, as `dense` gives them."""
        if sums.ndim != 2 or sums.shape[1] != _core.GRID_CELLS or sums.dtype != np.uint64:
            raise InputError(
                f"dense sums are uint64 of shape (2 + raters, {_core.GRID_CELLS}), "
                f"not {sums.dtype} of {sums.shape}"
            )
        used = np.flatnonzero(sums[0])
        tally = cls(sums.shape[0] - 2)
        tally._rows = (used.astype(np.uint32), np.ascontiguousarray(sums[:, used].T))
        return tally

    def copy(self) -> ScoreTally:
        """Return a tally of its own; the rows, which never change, are shared."""
        tally = type(self)(self.raters)
        tally._rows = self.rows()
        return tally

    def __deepcopy__(self, memo: dict[int, Any]) -> ScoreTally:
        return self.copy()

    def __getstate__(self) -> dict[str, Any]:
        cells, sums = self.rows()
        return {"cells": cells, "sums": sums}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(self.from_rows(state["cells"], state["sums"]).__dict__)

    def _dense_table(self) -> _core.ScoreTally:
        if self._dense is None:
            assert self._rows is not None  # noqa: S101 - one of the two is always there
            self._dense = _core.ScoreTally(self._raters)
            self._dense.add_rows(*self._rows)
        return self._dense
