"""CaseTallies: what a calibrator has gathered, case by case; several threads may add to it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from twintrack.arrays.case import OpenCase
from twintrack.arrays.numbers import whole_number
from twintrack.calibration.effective import effective_groups
from twintrack.calibration.fitted_on import FittedCase
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError
from twintrack.files import natural_order

# The name of a case or of a sum of cases; None for the stream of unnamed voxels, which is one case;
# a number for an unnamed sum of several cases.
Key = str | int | None


class CaseTallies:
    """Tallies of cases by name, and sums of several cases.

    Any number of threads may use one object at a time. Voxels of different cases are tallied in
    parallel: the lock is held to look a case up, not while its voxels are counted.
    """

    def __init__(self) -> None:
        self._tallies: dict[Key, ScoreTally] = {}
        self._sums: dict[Key, int] = {}  # those of several cases, and of how many
        self._effective: dict[Key, float] = {}  # effective number of cases of sums, where known
        self._regions: set[str] = set()
        self._fitted_on: dict[str, str | None] = {}  # the items are those of `FittedCase`
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._tallies)

    @property
    def cases(self) -> int:
        """Number of cases."""
        with self._lock:
            return len(self._tallies) + sum(cases - 1 for cases in self._sums.values())

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return sum(tally.voxels for tally in self.tallies())

    @property
    def effective(self) -> float:
        """Effective number of cases by their votes (`effective_groups`)."""
        with self._lock:
            held = {key: tally.copy() for key, tally in self._tallies.items()}
            within = [max(self._effective.get(key, self._sums.get(key, 1)), 1) for key in held]
        votes = [tally.votes.sum() / tally.raters for tally in held.values()]
        return effective_groups(votes, within)

    @property
    def regions(self) -> frozenset[str]:
        """Which voxels counted, as recorded with what was added."""
        with self._lock:
            return frozenset(self._regions)

    @property
    def fitted_on(self) -> tuple[FittedCase, ...] | None:
        """Digests of the cases that were recorded, sorted; None if none was."""
        with self._lock:
            return tuple(sorted(FittedCase(*case) for case in self._fitted_on.items())) or None

    def record_cases(self, cases: Iterable[FittedCase]) -> None:
        """Record which cases the voxels and tallies are of, with the score's file where known."""
        with self._lock:
            for name, score in cases:
                if score is not None or name not in self._fitted_on:
                    self._fitted_on[name] = score

    def add_voxels(self, opened: OpenCase, case: str | None, rule: str) -> None:
        """Tally voxels of a case; nothing is changed if one of them is invalid.

        Raises as `ScoreTally.update`, and ValueError for another number of raters than before.
        """
        raters = len(opened.raters)
        with self._lock:
            self._check_raters(raters)
            tally = self._tallies.get(case)
        if tally is None:
            tally = ScoreTally(raters)
        tally.add_case(opened)
        with self._lock:
            self._check_raters(raters)
            held = self._tallies.setdefault(case, tally)
            self._regions.add(rule)
        if held is not tally:  # another thread began the case meanwhile
            held += tally
        if case is not None:
            held.compact()  # one case among many; an unnamed stream keeps its table at hand

    def add_tally(
        self,
        tally: ScoreTally,
        case: str | None,
        cases: int = 1,
        rule: str | None = None,
        effective: float | None = None,
    ) -> None:
        """Add the tally of a case, or of a part of one, or the sum of several `cases`.

        `effective` is the effective number of cases of a sum; by default all count the same.

        Raises
        ------
        ValueError
            Its number of raters is not that of the others, or a sum has a name that is taken.
        """
        cases = whole_number(cases, "cases", 1)
        own = tally.copy()
        with self._lock:
            self._check_raters(own.raters)
            key: Key = case
            if cases > 1:
                if case is None:
                    key = sum(isinstance(name, int) for name in self._tallies)
                elif case in self._tallies:
                    raise InputError(
                        f"case {case!r} is there already: a sum of several cases needs a name of "
                        "its own, or none"
                    )
                self._sums[key] = cases
                if effective is not None:
                    self._effective[key] = effective
            held = self._tallies.setdefault(key, own)
            if rule is not None:
                self._regions.add(rule)
        if held is not own:
            held += own
        held.compact()

    def merge(self, other: CaseTallies) -> None:
        """Add all that another object holds; ValueError, and nothing added, if a name is in both.

        Unnamed sums of the two stay apart, as they hold different cases.
        """
        theirs = other.copy()
        with self._lock:
            for key in theirs._tallies:
                if isinstance(key, str) and key in self._tallies:
                    what = "the sum of several cases" if key in theirs._sums else "case"
                    raise InputError(f"{what} {key!r} is in both calibrators")
            for key, tally in theirs._tallies.items():
                name = None if isinstance(key, int) else key
                known = theirs._effective.get(key)
                self.add_tally(tally, name, theirs._sums.get(key, 1), effective=known)
            self._regions |= theirs._regions
            self.record_cases(theirs.fitted_on or ())

    def tallies(self) -> list[ScoreTally]:
        """Return all tallies, in an order that does not depend on when they came.

        Unnamed ones come first, then those whose names are numbers, by size, then by name.
        """

        def place(key: Key) -> tuple[Any, ...]:
            if isinstance(key, str):
                return (2, natural_order(key), key) if key.isdecimal() else (3, key)
            return (0,) if key is None else (1, key)

        with self._lock:
            return [self._tallies[key] for key in sorted(self._tallies, key=place)]

    def each_case(self) -> list[ScoreTally]:
        """Return copies of the cases' tallies in the order of `tallies`, to be drawn one by one.

        Raises
        ------
        ValueError
            Some cases are there in sums of several alone.
        """
        held = self.copy()
        if held._sums:
            raise InputError(
                f"a band draws single cases, but {sum(held._sums.values())} of {held.cases} cases "
                "are there in sums of several alone: use `twintrack fit --band` or "
                "twintrack.runs.case_band.band_over_cases, which read stored tallies, or add each "
                "case "
                "by name"
            )
        return held.tallies()

    def each_part(self) -> list[ScoreTally]:
        """Return the tallies in their order, to be held out one by one, sums of cases among them.

        Raises
        ------
        ValueError
            There is one sum of all cases alone.
        """
        with self._lock:
            if len(self._tallies) == 1 and self._sums:
                raise InputError(
                    f"bins='auto' holds out cases, but all {self.cases} are there in one sum "
                    "alone: add each case, or sums of some of them, or give a number of bins"
                )
            return self.tallies()

    def by_case(self) -> dict[str | None, ScoreTally]:
        """Return copies of the cases' tallies by name; under None the sum of all that are no case.

        That is, of unnamed voxels and of sums of several cases.
        """
        found: dict[str | None, ScoreTally] = {}
        held = self.copy()
        for key, tally in held._tallies.items():
            name = key if isinstance(key, str) and key not in held._sums else None
            if name in found:
                found[name] += tally
            else:
                found[name] = tally
        return found

    def total(self) -> ScoreTally:
        """Return the sum of all, a tally of its own; ValueError if there is nothing."""
        tallies = self.tallies()
        if not tallies:
            raise InputError("no voxels were given")
        return ScoreTally.of_all(tallies)

    def copy(self) -> CaseTallies:
        """Return what is there at the moment, to which voxels can be added apart."""
        copied = CaseTallies()
        with self._lock:
            held = dict(self._tallies)
            copied._sums = dict(self._sums)
            copied._effective = dict(self._effective)
            copied._regions = set(self._regions)
            copied._fitted_on = dict(self._fitted_on)
        copied._tallies = {key: tally.copy() for key, tally in held.items()}
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> CaseTallies:
        return self.copy()

    def __getstate__(self) -> dict[str, Any]:
        copied = self.copy()
        return {name: value for name, value in copied.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.__dict__.update(state)

    def _check_raters(self, raters: int) -> None:
        known = next(iter(self._tallies.values()), None)
        if known is not None and known.raters != raters:
            raise InputError(f"it has {raters} raters but the cases before it have {known.raters}")
