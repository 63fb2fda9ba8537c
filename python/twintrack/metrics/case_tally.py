"""CaseTally: everything the metrics need of a case, gathered in one pass over the voxels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.backend import cuda_module
from twintrack.arrays.bounds import warn_of, with_roundings
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.case import DeviceCase, OpenCase
from twintrack.arrays.cell_rows import CellRows
from twintrack.arrays.checks import as_numbers, dtype_name
from twintrack.arrays.numbers import number_between, whole_number
from twintrack.arrays.rater_sets import MOST_SETS, OpenParts, RaterSet, open_parts
from twintrack.errors import InputError
from twintrack.files import naming
from twintrack.metrics.bins import Bins
from twintrack.metrics.figures import Figures, Protocol, figures_of
from twintrack.metrics.set_sums import PARTS, SetSums
from twintrack.metrics.tdsc import THRESHOLDS

BINS = 50
"""Equally wide bins of the benchmark's calibration error."""

KIND = "case tally"
_LARGEST_FILE = 64 << 20  # bytes; 255 raters and 5000 bins take 31 million


@dataclass(frozen=True, eq=False)
class CaseOverview(ByValue):
    """What a look at a whole case tells besides its sums.

    Attributes
    ----------
    marked : tuple of (int, int)
        The range in which raters marked something: first index along each axis and one past the
        last; empty if nothing is marked.
    scored : (B,) uint8 or None
        Whether each 1024 voxels, in the order of the score's memory, may hold a score other than
        0. None for a score that is not contiguous, or on a device.
    """

    marked: tuple[tuple[int, int], ...]
    scored: NDArray[np.uint8] | None


class CaseTally:
    """Integer sums from which TDSC, calibration errors, Brier scores and volumes are computed.

    The same bits for any chunking, number of threads, memory order and order of addition; tallies
    of parts, or of cases, add up. Counts are exact, scores are rounded to multiples of 2^-46.

    Voxels that not all raters looked at are counted apart, by the set of raters who did; there may
    be 128 sets.

    Parameters
    ----------
    raters : int
        Number of raters N, 1 to 255.
    bins : int
        Number of equally wide bins of [0, 1]. A value of exactly 1 has a further bin for itself, as
        in the official evaluator; `Bins.closed` joins it to the last.

    Notes
    -----
    Several threads may add to one tally. Tallies can be pickled, copied and, as plain arrays,
    saved: 9 kB for five raters.
    """

    def __init__(self, raters: int, bins: int = BINS) -> None:
        raters, bins = whole_number(raters, "raters", 1), whole_number(bins, "bins", 1)
        self._everyone: RaterSet = tuple(range(raters))
        self._bins = bins
        # Of all raters, and of other sets where they occur.
        self._sets: dict[RaterSet, SetSums] = {self._everyone: SetSums.of(raters, bins)}

    @property
    def raters(self) -> int:
        """Number of raters."""
        return len(self._everyone)

    @property
    def bins(self) -> int:
        """Number of bins of [0, 1]."""
        return self._bins

    def update(
        self,
        score: ArrayLike,
        raters: ArrayLike | Sequence[ArrayLike | None],
        region: ArrayLike | None = None,
        *,
        ignore_label: int | None = None,
    ) -> CaseTally:
        """Add the voxels of a case; arguments and errors as in `ScoreTally.update`.

        Arrays in CUDA memory are tallied there; some kilobytes of sums come back at once.
        """
        found, count = with_roundings(
            lambda bounded: self.add_parts(open_parts(bounded, raters, region, ignore_label)), score
        )
        warn_of(count)
        return found

    def add_parts(self, opened: OpenParts) -> CaseTally:
        """Add the voxels of a case that is divided by who looked; raises as `update`."""
        self._check_raters(opened.number)
        if len(opened.parts) == 1:  # all or nothing, as the core adds it
            (part,) = opened.parts
            with part.naming():
                _add(self._of(part.raters).tally, part.case)
            return self
        added = CaseTally(self.raters, self.bins)
        for part in opened.parts:
            added.add_parts(OpenParts(opened.number, (part,)))
        self += added
        return self

    def add_case(self, case: OpenCase) -> CaseTally:
        """Add the voxels of a case whose arrays are converted, all raters' at all voxels."""
        self._check_raters(len(case.raters))
        _add(self._of(self._everyone).tally, case)
        return self

    def add_and_overview(self, case: OpenCase) -> CaseOverview:
        """Add all voxels of a case, also those outside its region; tell what was seen besides."""
        self._check_raters(len(case.raters))
        tally = self._of(self._everyone).tally
        scored = None
        if isinstance(case, DeviceCase):
            ranges = _add_on_device(tally, case, overview=True)
        else:
            ranges, blocks = tally.update_and_overview(case.score, case.raters)
            scored = blocks if case.score.flags.forc else None
        return CaseOverview(tuple((int(first), int(end)) for first, end in ranges), scored)

    def add_rows(self, raters: RaterSet, score: NDArray[Any], rows: CellRows) -> float:
        """Add voxels that were counted, as if those of each row had one score.

        Parameters
        ----------
        raters
            The set that looked.
        score : (K,) float16, bfloat16, float32 or float64
            Taken in place of those of the rows.
        rows
            As `ScoreTally.cell_rows` has them for this set.

        Returns
        -------
        float
            Sum over the voxels of -(MHR ln p + (1 - MHR) ln(1 - p)) with p the score; infinite
            where p is 0 at voxels with votes, or 1 at voxels that a rater did not mark.
        """
        mine = self._of(raters).tally
        return mine.add_counted(as_numbers(score), dtype_name(score.dtype), rows.counts)

    def by_set(self) -> Mapping[RaterSet, SetSums]:
        """Return the sums by the set of raters who looked, in the order of the sets."""
        return {raters: self._sets[raters] for raters in sorted(self._sets)}

    def figures(self, protocol: Protocol = "official", *, voxel_volume: float = 1.0) -> Figures:
        """Return the figures of all voxels of the tally, which may be those of several cases.

        Parameters
        ----------
        protocol : {"official", "corrected"}
            Of `evaluate`. They differ here in the ECE alone: where a confidence of 1 belongs.
        voxel_volume : float
            Volumes are in voxels by default; give mm³ per voxel to have them in mm³.

        Returns
        -------
        Figures
            NaN where there are no voxels. CRPS and vascular invasion are not among them: a sum of
            cases has neither a volume to be right about nor contacts.

        Raises
        ------
        ValueError
            The protocol is neither, or the volume not positive.
        """
        return figures_of(self, protocol, number_between(voxel_volume, "voxel_volume", 0))

    def __copy__(self) -> CaseTally:
        """Return a tally of its own: voxels added to one do not come into the other."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> CaseTally:
        return CaseTally._with(self.raters, self.bins, {s: a.copy() for s, a in self._sets.items()})

    def __getstate__(self) -> dict[str, Any]:
        return {
            "raters": self.raters,
            "bins": self.bins,
            "sets": {raters: sums.sums for raters, sums in self._sets.items()},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        bins = state["bins"]
        made = {s: SetSums.of(len(s), bins, sums) for s, sums in state["sets"].items()}
        self.__dict__.update(CaseTally._with(state["raters"], bins, made).__dict__)

    def __iadd__(self, other: CaseTally) -> CaseTally:
        if (other.raters, other.bins) != (self.raters, self.bins):
            raise InputError(
                f"cannot add a tally of {other.raters} raters and {other.bins} bins to one of "
                f"{self.raters} raters and {self.bins} bins"
            )
        theirs = copy.copy(self) if other is self else other
        for raters, sums in theirs._sets.items():
            self._of(raters).tally += sums.tally
        return self

    def __add__(self, other: CaseTally) -> CaseTally:
        total = copy.copy(self)
        total += other
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CaseTally):
            return NotImplemented
        mine, theirs = self.__getstate__(), other.__getstate__()
        mine, theirs = (
            {**state, "sets": {s: a for s, a in state["sets"].items() if a.any()}}
            for state in (mine, theirs)
        )
        return (
            (self.raters, self.bins) == (other.raters, other.bins)
            and mine["sets"].keys() == theirs["sets"].keys()
            and all(np.array_equal(a, theirs["sets"][s]) for s, a in mine["sets"].items())
        )

    def __repr__(self) -> str:
        return f"CaseTally(raters={self.raters}, bins={self.bins}): {self.voxels} voxels"

    def save(self, path: str | Path) -> None:
        """Write the tally to an npz file, whole or not at all.

        The file holds ``format``, ``format_version``, ``bins`` and the core's integer sums:
        ``votes``, ``score_bins``, ``confidence_bins``, ``squares`` and ``rater_scores``, uint64, of
        the voxels that all raters looked at. Other sets of raters, if there are any, are the rows
        of ``sets`` (S, N), and ``set_0``, ``set_1``, … hold their sums, in one row each.
        """
        from twintrack.volumes.tally_files import write_tally  # nibabel takes its time

        others = {s: a for s, a in self.by_set().items() if s != self._everyone and a.sums.any()}
        arrays = {name: getattr(self._sets[self._everyone].tally, name) for name in PARTS}
        if others:
            members = np.zeros((len(others), self.raters), np.bool_)
            for row, (raters, sums) in enumerate(others.items()):
                members[row, list(raters)] = True
                arrays[f"set_{row}"] = sums.sums
            arrays["sets"] = members
        write_tally(Path(path), KIND, 2 if others else 1, bins=self.bins, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> CaseTally:
        """Read a tally that `save` wrote.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It is no tally, is damaged, or comes from a newer version; names the file.
        """
        from twintrack.volumes.tally_files import read_tally

        path = Path(path)
        found = read_tally(path, KIND, ("bins", *PARTS), _LARGEST_FILE, 2)
        with naming(path):
            raters, bins = len(found["rater_scores"]), int(found["bins"])
            # Before a tally of this size is made: its arrays are there.
            _require(found, _shapes(raters, bins))
            tally = cls(raters, bins)
            sums = np.concatenate([found[name].ravel() for name in PARTS])
            tally._sets[tally._everyone] = SetSums.of(raters, bins, sums)
            members = found.get("sets", np.zeros((0, raters), np.bool_))
            if members.dtype != np.bool_ or members.ndim != 2 or members.shape[1] != raters:
                raise InputError(f"its sets of raters are {members.dtype} of {members.shape}")
            for row, member in enumerate(members):
                some = tuple(np.flatnonzero(member).tolist())
                size = sum(int(np.prod(shape)) for shape in _shapes(len(some), bins).values())
                _require(found, {f"set_{row}": (size,)})
                if not some or tally._of(some).sums.any():
                    raise InputError(f"its set {row} of raters is empty, or there twice")
                tally._sets[some] = SetSums.of(len(some), bins, found[f"set_{row}"])
            return tally

    @property
    def votes(self) -> NDArray[np.uint64]:
        """Voxels by number of thresholds exceeded and number of votes: (7, N + 1).

        InputError where not all raters looked at all voxels: `by_set` has the votes of each set.
        """
        if any(int(sums.votes.sum()) for s, sums in self._sets.items() if s != self._everyone):
            raise InputError(
                "not all raters looked at all voxels, so votes are out of different numbers: "
                "by_set() has them"
            )
        return self._sets[self._everyone].votes

    @property
    def voxels(self) -> int:
        """Number of voxels tallied."""
        return sum(int(sums.votes.sum()) for sums in self._sets.values())

    @property
    def score_bins(self) -> Bins:
        """Voxels by bin of the score; votes are marks."""
        return self._pooled("score_bins")

    @property
    def confidence_bins(self) -> Bins:
        """Voxels by bin of the confidence in the predicted class; votes are agreements with it."""
        return self._pooled("confidence_bins")

    @property
    def predicted_voxels(self) -> float:
        """Sum of the scores: the predicted volume in voxels."""
        return float(self.score_bins.total.sum())

    @property
    def rater_voxels(self) -> NDArray[np.uint64]:
        """Voxels that each rater marked: (N,)."""
        return np.asarray(self.score_bins.votes.sum(axis=0))

    @property
    def looked_voxels(self) -> NDArray[np.uint64]:
        """Voxels that each rater looked at: (N,)."""
        return np.asarray(self.score_bins.count_of.sum(axis=0))

    @property
    def squared_scores(self) -> float:
        """Sum of the squared scores."""
        return sum((sums.squared_scores for sums in self.by_set().values()), 0.0)

    @property
    def rater_scores(self) -> NDArray[np.float64]:
        """Sum of the scores of the voxels that each rater marked: (N,)."""
        total = np.zeros(self.raters)
        for raters, sums in self.by_set().items():
            total[list(raters)] += sums.rater_scores
        return total

    @classmethod
    def _with(cls, raters: int, bins: int, sets: Mapping[RaterSet, SetSums]) -> CaseTally:
        made = cls(raters, bins)
        made._sets.update(sets)
        return made

    def _of(self, raters: RaterSet) -> SetSums:
        if raters not in self._sets:
            if len(self._sets) >= MOST_SETS:
                raise InputError(f"a tally holds at most {MOST_SETS} sets of raters")
            self._sets[raters] = SetSums.of(len(raters), self.bins)
        return self._sets[raters]

    def _check_raters(self, raters: int) -> None:
        if raters != self.raters:
            raise InputError(
                f"raters has {raters} masks but the tally was made for {self.raters}; pass None "
                "for a rater that this case does not have"
            )

    def _pooled(self, name: str) -> Bins:
        """Add up the bins of all sets; those of all raters alone are as they are."""
        sets = {raters: getattr(sums, name) for raters, sums in self.by_set().items()}
        filled = {raters: bins for raters, bins in sets.items() if bins[0].any()}
        if set(filled) <= {self._everyone}:
            return Bins(*sets[self._everyone])
        rows = self.bins + 1
        count, total, response = np.zeros(rows, np.uint64), np.zeros(rows), np.zeros(rows)
        votes, looked = (np.zeros((rows, self.raters), np.uint64) for _ in range(2))
        looked_total = np.zeros((rows, self.raters))
        for raters, (its_count, its_total, its_votes) in filled.items():
            own = list(raters)
            count += its_count
            total += its_total
            votes[:, own] += its_votes
            looked[:, own] += its_count[:, np.newaxis]
            looked_total[:, own] += its_total[:, np.newaxis]
            response += its_votes.sum(axis=1) / np.float64(len(raters))
        return Bins(count, total, votes, looked, looked_total, response)


def _add(tally: Any, case: OpenCase) -> None:
    if isinstance(case, DeviceCase):
        _add_on_device(tally, case)
    else:
        tally.update(case.score, case.raters, case.region)


def _add_on_device(tally: Any, case: DeviceCase, overview: bool = False) -> list[tuple[int, int]]:
    score, raters, region = case.compiled()
    if overview:
        region = None
    sums, marked = cuda_module().case_sums(
        score, raters, region, tally.bins, overview, case.device, case.stream
    )
    tally += SetSums.of(len(raters), tally.bins, sums).tally
    ranges: list[tuple[int, int]] = marked
    return ranges


def _shapes(raters: int, bins: int) -> dict[str, tuple[int, ...]]:
    return {
        "votes": (len(THRESHOLDS) + 1, raters + 1),
        "score_bins": (bins + 1, raters + 3),
        "confidence_bins": (2, bins + 1, raters + 3),
        "squares": (2,),
        "rater_scores": (raters, 2),
    }


def _require(found: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        part = found.get(name)
        if part is None:
            raise InputError(f"it is a damaged case tally: {name} missing")
        if part.dtype != np.uint64 or part.shape != shape:
            raise InputError(
                f"its {name} are {part.dtype} of shape {part.shape}, not uint64 of {shape}"
            )
