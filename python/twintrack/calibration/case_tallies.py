"""CaseTallies: what a calibrator has gathered, case by case; several threads may add to it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

from twintrack.arrays.numbers import whole_number
from twintrack.arrays.rater_sets import OpenParts
from twintrack.calibration.case_weights import (
    Load,
    equal_weights,
    times,
    whole_weights,
)
from twintrack.calibration.effective import effective_groups
from twintrack.calibration.fitted_on import FittedCase
from twintrack.calibration.group_tally import GroupTally
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
        self._groups: dict[Key, str] = {}  # of the cases that have one
        self._weights: dict[Key, float] = {}  # 1 where there is none
        self._times_weights = False  # whether the tallies are multiplied by them
        self._plain: dict[Key, ScoreTally] = {}  # before they were
        self._voxels: dict[Key, int] = {}  # of sums whose cases are weighted already
        # By the digest of the name and by score: two hospitals may call cases alike.
        self._fitted_on: dict[str, dict[str | None, FittedCase]] = {}
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
        with self._lock:
            return sum(self._voxels.get(key, tally.voxels) for key, tally in self._tallies.items())

    @property
    def raters(self) -> int:
        """Number of raters: the most of any case."""
        return max((tally.raters for tally in self.tallies()), default=0)

    @property
    def effective(self) -> float:
        """Effective number of cases by their votes (`effective_groups`)."""
        with self._lock:
            held = {key: tally.copy() for key, tally in self._tallies.items()}
            within = [max(self._effective.get(key, self._sums.get(key, 1)), 1) for key in held]
        votes = [tally.response for tally in held.values()]
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
            return (
                tuple(sorted(c for same in self._fitted_on.values() for c in same.values())) or None
            )

    def record_cases(self, cases: Iterable[FittedCase]) -> None:
        """Record which cases the voxels and tallies are of, with the score's file where known.

        What is said of a name without a score is said of the case of that name.
        """
        with self._lock:
            for case in cases:
                same = self._fitted_on.setdefault(case.case, {})
                unscored = same.pop(None, case)
                for score in {case.score} if case.score is not None else set(same) or {None}:
                    known = same.get(score, unscored)
                    same[score] = FittedCase(case.case, score, case.patient or known.patient)

    def add_voxels(
        self,
        opened: OpenParts,
        case: str | None,
        rule: str,
        group: str | None = None,
        weight: float = 1.0,
    ) -> None:
        """Tally voxels of a case; nothing is changed if one of them is invalid.

        Raises as `ScoreTally.update`, and ValueError for another group or weight than before.
        """
        with self._lock:
            self._check_group(case, group)
            self._check_weight(case, weight)
            tally = self._tallies.get(case)
        if tally is None:
            tally = ScoreTally(opened.number)
        tally.add_parts(opened, rule)
        with self._lock:
            self._set_group(case, group)
            self._check_weight(case, weight)
            self._weights[case] = weight
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
        group: str | None = None,
        effective: float | None = None,
        weight: float = 1.0,
        voxels: int | None = None,
    ) -> None:
        """Add the tally of a case, or of a part of one, or the sum of several `cases`.

        A sum with a `group` is of cases of that group alone. `effective` is the effective number of
        patients of a sum; by default all its cases count the same. `weight` is that of the case;
        `voxels` says of a sum that its cases are weighted already, and how many voxels they have.

        Raises
        ------
        ValueError
            A case is of another group or weight than before, or a sum has a name that is taken.
        """
        cases = whole_number(cases, "cases", 1)
        own = tally.copy()
        with self._lock:
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
            self._set_group(key, group)
            self._check_weight(key, weight)
            self._weights[key] = weight
            if voxels is not None:
                self._voxels[key] = voxels
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
                cases, group = theirs._sums.get(key, 1), theirs._groups.get(key)
                known = theirs._effective.get(key)
                self.add_tally(
                    tally,
                    name,
                    cases,
                    group=group,
                    effective=known,
                    weight=theirs._weights.get(key, 1.0),
                    voxels=theirs._voxels.get(key),
                )
            self._regions |= theirs._regions
            self.record_cases(theirs.fitted_on or ())

    def tallies(self) -> list[ScoreTally]:
        """Return all tallies, in an order that does not depend on when they came.

        Unnamed ones come first, then those whose names are numbers, by size, then by name.
        """
        with self._lock:
            return [self._tallies[key] for key in self._ordered()]

    def single_cases(self) -> list[ScoreTally] | None:
        """Return the tally of each case; None if some are there in sums of several alone."""
        with self._lock:
            return None if self._sums else [*self._tallies.values()]

    def each_group(self) -> list[GroupTally]:
        """Return the cases of each group: the units that are independent.

        A case without a group is one of its own, called as the case is. The order is that of the
        first case of each group in `tallies`: with a group for every case it is that of the cases,
        whatever the groups are called.

        Raises
        ------
        ValueError
            Some cases are there in sums of several groups alone.
        """
        held = self.copy()
        mixed = [cases for key, cases in held._sums.items() if key not in held._groups]
        if mixed:
            raise InputError(
                f"a band leaves out single cases, but {sum(mixed)} of {held.cases} cases "
                "are there in sums of several alone: use `twintrack fit --band` or "
                "twintrack.runs.case_band.band_over_cases, which read stored tallies, or add each "
                "case by name"
            )
        return [held._group(keys) for keys in held._members()]

    def each_part(self) -> list[ScoreTally]:
        """Return what is held out one by one: groups as in `each_group`, and sums of several.

        Raises
        ------
        ValueError
            There is one sum of all cases alone, or all cases are of one group.
        """
        with self._lock:
            if len(self._tallies) == 1 and self._sums and not self._groups:
                raise InputError(
                    f"bins='auto' holds out cases, but all {self.cases} are there in one sum "
                    "alone: add each case, or sums of some of them, or give a number of bins"
                )
            parts = [self._group(keys).total for keys in self._members()]
            if len(parts) == 1 and self.cases > 1:
                raise InputError(
                    f"bins='auto' holds out patients, but all {self.cases} cases are of one: give "
                    "a number of bins"
                )
            return parts

    def _members(self) -> list[list[Key]]:
        members: dict[Key, list[Key]] = {}
        for key in self._ordered():
            members.setdefault(self._groups.get(key, key), []).append(key)
        return [*members.values()]

    def _group(self, keys: list[Key]) -> GroupTally:
        own = [self._tallies[key] for key in keys]
        total = own[0] if len(own) == 1 else ScoreTally.of_all(own)
        if any(key in self._sums or key in self._voxels for key in keys):
            return GroupTally(total, None)
        plain = [self._plain.get(key, tally) for key, tally in zip(keys, own, strict=True)]
        return GroupTally(total, [p for p, t in zip(plain, own, strict=True) if t.voxels])

    def _ordered(self) -> list[Key]:
        def place(key: Key) -> tuple[Any, ...]:
            if isinstance(key, str):
                return (2, natural_order(key), key) if key.isdecimal() else (3, key)
            return (0,) if key is None else (1, key)

        return sorted(self._tallies, key=place)

    @property
    def is_weighted(self) -> bool:
        """Whether voxels count differently."""
        unequal = any(weight != 1 for weight in self._weights.values())
        return bool(self._voxels) or self._times_weights or unequal

    def weighted(self, rule: str) -> CaseTallies:
        """Return the tallies in which voxels count as the weights say (`case_weights`).

        Parameters
        ----------
        rule : {"voxels", "cases"}
            "cases": all groups count the same, times their cases' weights.

        Raises
        ------
        ValueError
            As `whole_weights`; or cases are to count the same and are there in sums of several.
        """
        held = self.copy()
        if rule == "voxels" and all(weight == 1 for weight in held._weights.values()):
            return held
        keys = [key for key in held._ordered() if key not in held._voxels]
        weights = [held._weights.get(key, 1.0) for key in keys]
        if rule == "cases":
            if any(key in held._sums and key not in held._groups for key in keys):
                raise InputError(
                    "case_weight='cases' needs each case, but some are there in sums of several "
                    "alone: add each case by name"
                )
            sizes: dict[Key, int] = {}
            for key in keys:
                group = held._groups.get(key, key)
                sizes[group] = sizes.get(group, 0) + held._tallies[key].voxels
            of_group = dict(zip(sizes, equal_weights(list(sizes.values())), strict=True))
            weights = [
                weight * of_group[held._groups.get(key, key)]
                for key, weight in zip(keys, weights, strict=True)
            ]
        held._times_weights = True
        held._plain = dict(held._tallies)
        if keys:
            loads = [Load.of(held._tallies[key]) for key in keys]
            for key, weight in zip(keys, whole_weights(weights, loads), strict=True):
                held._tallies[key] = times(held._tallies[key], weight)
        return held

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
            copied._groups = dict(self._groups)
            copied._weights = dict(self._weights)
            copied._voxels = dict(self._voxels)
            copied._plain = dict(self._plain)
            copied._effective = dict(self._effective)
            copied._regions = set(self._regions)
            copied._fitted_on = {name: dict(same) for name, same in self._fitted_on.items()}
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

    def _check_weight(self, key: Key, weight: float) -> None:
        if not 0 <= weight < math.inf:
            raise InputError(
                "it must be a finite number, 0 or more", argument="case weight", value=weight
            )
        known = self._weights.get(key, weight)
        if known != weight:
            raise InputError(f"its weight is {weight} here, and was {known} before", case=key)

    def _check_group(self, key: Key, group: str | None) -> None:
        known = self._groups.get(key)
        if None not in (group, known) and group != known:
            raise InputError(
                f"it is of the group {group!r} here, and was of {known!r} before",
                case=None if key is None else str(key),
            )

    def _set_group(self, key: Key, group: str | None) -> None:
        self._check_group(key, group)
        if group is not None:
            self._groups[key] = group
