"""ScoreTally: what calibration maps are fitted from, gathered in one pass over the voxels."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.bounds import warn_of, with_roundings
from twintrack.arrays.case import OpenCase
from twintrack.arrays.cell_rows import CellRows
from twintrack.arrays.checks import dtype_name
from twintrack.arrays.numbers import whole_number
from twintrack.arrays.rater_sets import (
    MOST_RATERS,
    MOST_SETS,
    OpenParts,
    RaterSet,
    open_parts,
    parts_of,
)
from twintrack.calibration.equal_mass import (
    EqualMassBins,
    Rows,
    bins_of_cells,
    bins_of_sets,
)
from twintrack.calibration.set_tally import SetTally, cell_rows, require_votes
from twintrack.errors import InputError


class ScoreTally:
    """Counts, score sums and votes over a fine grid of score values.

    All of it is integer sums: the tally of a case is the same, bit for bit, for any chunking,
    number of threads, memory order and order of addition, and tallies of parts add up to the tally
    of the whole. The grid has a cell for every float16 and every bfloat16 in [0, 1]; a float32 or
    float64 score shares its cell with scores closer than 1/2048 of its distance to the nearer of 0
    and 1, and its exact distance enters the cell's sum (float64: rounded to 2^-32 of that
    distance). Capacity: 2^40 voxels in one cell.

    Per cell there are the voxels, the votes of each rater, and the voxels that exactly k raters
    marked (k = 1 … N): so any map can be fitted and any map can be evaluated (`evaluate_tally`).
    Voxels that not all raters looked at are counted apart, by the set of raters who did; there may
    be 128 sets.

    Parameters
    ----------
    raters
        Number of raters N, 1 to 255.

    Notes
    -----
    Several threads may add to one tally; they take turns, each with all of the cores. Pickled and
    saved tallies hold only the cells that occur: about 1 MB for a CT and five raters.
    """

    def __init__(self, raters: int) -> None:
        self._everyone: RaterSet = tuple(range(whole_number(raters, "raters", 1, MOST_RATERS)))
        self._sets: dict[RaterSet, SetTally] = {}
        self._regions: set[str] = set()
        self._score_types: set[str] = set()
        self._lock = threading.RLock()

    @property
    def raters(self) -> int:
        """Number of raters."""
        return len(self._everyone)

    @property
    def regions(self) -> frozenset[str]:
        """Which voxels were counted: "all", "box", "roi" or "mask"; empty if it is not known."""
        return frozenset(self._regions)

    @property
    def score_types(self) -> frozenset[str]:
        """Dtypes of the scores, such as "float16"; empty if they are not known."""
        return frozenset(self._score_types)

    @property
    def counts_votes(self) -> bool:
        """Whether voxels with exactly k votes are counted: not in tallies of earlier versions."""
        return all(tally.counts_votes for tally in self._sets.values())

    @property
    def cells(self) -> NDArray[np.uint32]:
        """Grid cells that occur, ascending: (K,) uint32."""
        return self.pooled_rows()[0]

    @property
    def counts(self) -> NDArray[np.uint64]:
        """Voxels in each occurring cell: (K,) uint64."""
        return self.pooled_rows()[1][:, 0]

    @property
    def votes(self) -> NDArray[np.uint64]:
        """Voxels that each rater marked in each occurring cell: (K, N) uint64."""
        return self.pooled_rows()[1][:, 2 : 2 + self.raters]

    @property
    def exactly(self) -> NDArray[np.uint64]:
        """Voxels that exactly 1 … N raters marked in each occurring cell: (K, N) uint64.

        InputError where not all raters looked at all voxels (`by_set` has each set), or in tallies
        of earlier versions.
        """
        self._require_votes()
        if not set(self.set_rows()) <= {self._everyone}:
            raise InputError(
                "not all raters looked at all voxels, so votes are out of different numbers: "
                "by_set() has them"
            )
        return self._of(self._everyone).rows()[1][:, 2 + self.raters :]

    @property
    def response(self) -> float:
        """Sum over voxels of votes / raters who looked: what the raters mark on average."""
        return sum(
            float(sums[:, 2 : 2 + len(raters)].sum()) / len(raters)
            for raters, (_, sums) in self.set_rows().items()
        )

    @property
    def voxels(self) -> int:
        """Number of voxels tallied."""
        return sum(int(tally.rows()[1][:, 0].sum()) for tally in self._sets.values())

    def update(
        self,
        score: ArrayLike,
        raters: ArrayLike | Sequence[ArrayLike | None],
        region: ArrayLike | None = None,
        *,
        ignore_label: int | None = None,
        rule: str | None = None,
    ) -> ScoreTally:
        """Add the voxels of a case, or of a part of one.

        Arrays of four axes or more that may be a stack of several cases are an error; a list of one
        array per rater says that they are one case.

        Parameters
        ----------
        score : array (*shape), float16, bfloat16, float32 or float64 in [0, 1]
        raters : array (N, *shape) or sequence of N arrays (*shape), 0 and 1 in any dtype
            None in a list is a rater that this case does not have; what a NumPy masked array masks,
            the rater did not look at.
        region : array (*shape), False and True or 0 and one other value in any dtype, optional
            Voxels that count; voxels outside are not looked at. All by default.
        ignore_label : int, optional
            Value of annotations at voxels that the rater did not look at, such as 255.
        rule : str, optional
            What the region is, for `regions`: "box" or "roi". By default "mask", and "all" without.

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
        rule = rule or ("all" if region is None else "mask")
        _, count = with_roundings(
            lambda bounded: self.add_parts(open_parts(bounded, raters, region, ignore_label), rule),
            score,
        )
        warn_of(count)
        return self

    def add_parts(self, opened: OpenParts, rule: str | None = None) -> ScoreTally:
        """Add the voxels of a case that is divided by who looked; raises as `update`."""
        if opened.number != self.raters:
            raise InputError(
                f"raters has {opened.number} masks but the tally was made for {self.raters}; pass "
                "None for a rater that this case does not have"
            )
        with self._lock:
            if len(opened.parts) == 1:  # all or nothing, as the core adds it
                (part,) = opened.parts
                with part.naming():
                    self._of(part.raters).add_case(part.case)
            else:
                added = ScoreTally(self.raters)
                for part in opened.parts:
                    added.add_parts(OpenParts(opened.number, (part,)))
                    added.compact()
                self += added
            self._score_types |= {dtype_name(part.case.score.dtype) for part in opened.parts}
            self._regions |= {rule} if rule else set()
        return self

    def add_case(self, case: OpenCase) -> ScoreTally:
        """Add the voxels of a case whose arrays are converted and whose raters all looked."""
        return self.add_parts(parts_of(case))

    def __iadd__(self, other: ScoreTally) -> ScoreTally:
        if other.raters != self.raters:
            raise InputError(
                f"cannot add a tally of {other.raters} raters to one of {self.raters} raters"
            )
        theirs = other.set_rows()
        with self._lock:
            for raters, rows in theirs.items():
                self._of(raters).add_rows(rows)
            self._regions |= other.regions
            self._score_types |= other.score_types
        return self

    @classmethod
    def of_all(cls, tallies: Sequence[ScoreTally]) -> ScoreTally:
        """Return the sum of one tally or more, a tally of its own, of the most raters."""
        raters = max(tally.raters for tally in tallies)
        total = tallies[0].among(raters).copy()
        for tally in tallies[1:]:
            total += tally.among(raters)
        return total

    def __add__(self, other: ScoreTally) -> ScoreTally:
        return self.of_all([self, other])

    def __sub__(self, other: ScoreTally) -> ScoreTally:
        """Return this without another tally that was added to it; exact.

        InputError if it is no part of this one: a cell has more voxels or votes in it than here.
        """
        return self.minus(other)

    def minus(
        self, other: ScoreTally, memory: dict[RaterSet, NDArray[np.uint64]] | None = None
    ) -> ScoreTally:
        """Return this without another tally, in memory that is used again.

        `memory` is empty the first time, and given again for the next tally to be taken from this
        one, when what was returned before is not needed any more: fresh memory takes longer than
        the work.
        """
        rest = self.copy()
        for raters, rows in other.set_rows().items():
            own = rest._of(raters)
            place = None
            if memory is not None:
                if raters not in memory:
                    memory[raters] = np.empty((2, *own.rows()[1].shape), np.uint64)
                place = memory[raters]
            rest._sets[raters] = own.minus(rows, place)
        return rest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoreTally):
            return NotImplemented
        mine, theirs = self.set_rows(), other.set_rows()
        return (
            self.raters == other.raters
            and mine.keys() == theirs.keys()
            and all(
                np.array_equal(rows[0], theirs[raters][0])
                and np.array_equal(rows[1], theirs[raters][1])
                for raters, rows in mine.items()
            )
        )

    def __repr__(self) -> str:
        return f"ScoreTally(raters={self.raters}): {self.voxels} voxels in {len(self.cells)} cells"

    def by_set(self) -> Mapping[RaterSet, SetTally]:
        """Return the tallies by the set of raters who looked, in the order of the sets."""
        with self._lock:
            return {raters: self._sets[raters] for raters in sorted(self._sets)}

    def set_rows(self) -> dict[RaterSet, Rows]:
        """Return the rows of each set that has voxels, in the order of the sets."""
        rows = {raters: tally.rows() for raters, tally in self.by_set().items()}
        return {raters: own for raters, own in rows.items() if len(own[0])}

    def seen_by(self, rater: int) -> ScoreTally:
        """Return the tally of the voxels that a rater looked at; it shares what it can."""
        rows = self.set_rows()
        if all(rater in raters for raters in rows):
            return self
        some = {raters: own for raters, own in rows.items() if rater in raters}
        return self.of_rows(self.raters, some, [*self._regions], [*self._score_types])

    def among(self, raters: int) -> ScoreTally:
        """Return the tally as that of more raters, of whom the others looked at nothing."""
        if raters == self.raters:
            return self
        if raters < self.raters:
            raise InputError(f"it must be at least {self.raters}", argument="raters", value=raters)
        rows = {some: tally.rows() for some, tally in self.by_set().items()}
        return self.of_rows(raters, rows, [*self._regions], [*self._score_types])

    def pooled_rows(self) -> Rows:
        """Return the occurring cells (K,) and their sums over all sets (K, 2 + N …).

        Columns are count, residuals and votes of each rater; more may follow.
        """
        rows = self.set_rows()
        if set(rows) <= {self._everyone}:
            return self._of(self._everyone).rows()
        cells = np.unique(np.concatenate([own for own, _ in rows.values()]))
        pooled = np.zeros((len(cells), 2 + self.raters), np.uint64)
        for raters, (own, sums) in rows.items():
            at = np.searchsorted(cells, own)
            for column, k in enumerate((0, 1, *(2 + rater for rater in raters))):
                pooled[at, k] += sums[:, column]
        return cells, pooled

    def cell_rows(self) -> dict[RaterSet, CellRows]:
        """Return the voxels by set and cell; InputError for tallies of earlier versions."""
        rows = self.set_rows().items()
        return {raters: cell_rows(len(raters), cells, [*sums.T]) for raters, (cells, sums) in rows}

    def compact(self) -> ScoreTally:
        """Keep only the cells that occur in memory (about 1 MB rather than 12), none on devices."""
        for tally in self.by_set().values():
            tally.compact()
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
        rows = self.set_rows()
        if set(rows) <= {self._everyone}:
            return bins_of_cells(self._of(self._everyone).rows(), self.raters, bins)
        return bins_of_sets(rows, self.raters, bins)

    def save(self, path: str | Path) -> None:
        """Write the tally to an npz file, whole or not at all; see `score_tally_file`."""
        from twintrack.calibration.score_tally_file import write_score_tally

        write_score_tally(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> ScoreTally:
        """Read a tally that `save` wrote, in this version or an earlier one.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            If the file is no tally, is damaged, or comes from a newer version; names the file.
        """
        from twintrack.calibration.score_tally_file import read_score_tally

        return read_score_tally(Path(path))

    @classmethod
    def of_rows(
        cls,
        raters: int,
        sets: Mapping[RaterSet, Rows],
        regions: Sequence[str] = (),
        score_types: Sequence[str] = (),
    ) -> ScoreTally:
        """Return the tally with these rows by set of raters; they are shared, and not checked."""
        tally = cls(raters)
        tally._sets = {some: SetTally(len(some), rows) for some, rows in sets.items()}
        tally._regions, tally._score_types = set(regions), set(score_types)
        return tally

    def copy(self) -> ScoreTally:
        """Return a tally of its own; the rows, which never change, are shared."""
        with self._lock:
            sets = {raters: tally.rows() for raters, tally in self.by_set().items()}
            return self.of_rows(self.raters, sets, [*self._regions], [*self._score_types])

    def __deepcopy__(self, memo: dict[int, Any]) -> ScoreTally:
        return self.copy()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "raters": self.raters,
            "sets": self.set_rows(),
            "regions": sorted(self._regions),
            "score_types": sorted(self._score_types),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(self.of_rows(**state).__dict__)

    def _of(self, raters: RaterSet) -> SetTally:
        with self._lock:
            if raters not in self._sets:
                if len(self._sets) >= MOST_SETS:
                    raise InputError(f"a tally holds at most {MOST_SETS} sets of raters")
                self._sets[raters] = SetTally(len(raters))
            return self._sets[raters]

    def _require_votes(self) -> None:
        require_votes(self.counts_votes)
