"""CaseGatherer: the part of a calibrator that takes in cases, from one or several threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from twintrack.arrays.bounds import warn_of, with_roundings
from twintrack.arrays.case_arguments import group_name
from twintrack.arrays.rater_sets import OpenParts, open_parts
from twintrack.calibration.case_tallies import CaseTallies
from twintrack.calibration.fitted_on import FittedCase
from twintrack.calibration.parameters import CalibratorParameters
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self


class CaseGatherer(CalibratorParameters):
    """Gathers the tallies of cases; `Calibrator` makes the map of them."""

    _cases: CaseTallies  # there from the first case on
    _lock: threading.RLock  # held while the map, or the object that gathers, is replaced or read

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make the lock, which no copy or pickle takes over."""
        made = super().__new__(cls)
        made._lock = threading.RLock()
        return made

    def __copy__(self) -> Self:
        """Return a Calibrator of its own: voxels added to one do not come into the other."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {
                name: value.copy() if name == "_cases" else value
                for name, value in self.__dict__.items()
                if name != "_lock"
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        cases = state.get("_cases")
        # Another thread may have added voxels between the map and the copy of the tallies.
        if cases and (cases.cases, cases.voxels) != (state.get("n_cases_"), state.get("n_voxels_")):
            self._forget_map()

    def partial_fit(
        self,
        score: ArrayLike,
        raters: ArrayLike | Sequence[ArrayLike | None],
        region: ArrayLike | None = None,
        case: str | None = None,
        group: str | None = None,
        *,
        weight: float = 1.0,
        ignore_label: int | None = None,
    ) -> Self:
        """Add the voxels of a case, or of a part of one; memory does not grow with their number.

        The map is as `fit` would make it from all voxels so far, in any order; with ``exact=True``
        it is there after `refine`.

        Parameters
        ----------
        score, raters, region
            As in `fit`, one case. A score of four axes or more that may be a stack of cases is an
            error; a list of one array per rater says that it is none.
        case : str, optional
            Name of the case; a named case takes about 1 MB. Unnamed voxels are all counted as one
            case.
        group : str, optional
            The patient, where one has several cases: they belong together when patients are
            left out (`band`) or held out (``bins="auto"``). By default a case is a
            patient of its own, called as the case is.
        weight : float
            By which the case's voxels are multiplied, as in `fit`.
        ignore_label : int, optional
            As in `fit`.

        Raises
        ------
        ValueError, TypeError
            As `fit`; nothing is added then.
        """
        self.check_parameters()
        group = None if group is None else group_name(group, "group")
        if group is not None and case is None:
            raise InputError("needs the name of the case, too (case)", argument="group")

        def add(bounded: Any) -> None:
            opened = open_parts(bounded, raters, region, ignore_label)
            with self._adding() as cases:
                self._add(cases, opened, case, region is not None, group, weight)
                if case is not None:
                    cases.record_cases([FittedCase.named(case, None, group)])

        warn_of(with_roundings(add, score)[1])
        return self

    def add_tally(
        self,
        tally: ScoreTally,
        case: str | None = None,
        *,
        region: str | None = None,
        cases: int = 1,
        group: str | None = None,
        effective: float | None = None,
        weight: float = 1.0,
        voxels: int | None = None,
        record: bool = True,
    ) -> Self:
        """Add a tally made elsewhere, as `partial_fit` adds voxels.

        Parameters
        ----------
        tally : ScoreTally
        case : str, optional
            Name of the case; see `partial_fit`.
        region : str, optional
            Which voxels it counted ("roi", "box", …): recorded with the map.
        cases : int
            Number of cases whose sum it is. If there are several, they are held out together
            (``bins="auto"``), and there is no `band` unless they are of one group; a name
            must be new.
        group : str, optional
            The patient, see `partial_fit`; of a sum, the one whose cases they all are.
        effective : float, optional
            Effective number of patients of a sum (`effective_groups`), for ``floor="auto"``; by
            default `cases`, which is the most that it can be.
        weight : float
            By which the case's voxels are multiplied, as in `fit`.
        voxels : int, optional
            Says of a sum that its cases are weighted already, and how many voxels they have.
        record : bool
            Record the name of the case for `fitted_on_`. False where `record_cases` has done so, by
            the name that the case has elsewhere.
        """
        self.check_parameters()
        self._check_raters(tally.raters)
        group = None if group is None else group_name(group, "group")
        if group is not None and case is None and cases == 1:
            raise InputError("needs the name of the case, too (case)", argument="group")
        with self._adding() as gathered:
            self._check_same_raters(gathered, tally.raters)
            gathered.add_tally(tally, case, cases, region, group, effective, weight, voxels)
            if record and case is not None and cases == 1:
                gathered.record_cases([FittedCase.named(case, None, group)])
        return self

    def record_cases(self, cases: Iterable[FittedCase]) -> Self:
        """Record which cases the voxels and tallies are of that are added: for `fitted_on_`.

        `partial_fit` and `add_tally` record the names that they are given, but not the scores'
        files, nor the cases of a sum of tallies.
        """
        with self._adding() as gathered:
            gathered.record_cases(cases)
        return self

    def merge(self, other: CaseGatherer) -> Self:
        """Add everything that another, unfinished or finished, Calibrator has seen.

        Raises
        ------
        ValueError
            If a case name occurs in both, or raters or parameters differ (those of the next map
            here from those that the other's map was made with, or is going to be); nothing is added
            then.
        """
        if other is self:
            raise InputError("a Calibrator merged with itself would count every voxel twice")
        if "_cases" not in other.__dict__:
            raise InputError("the other Calibrator holds no tallies to merge")
        mine = self.get_params()
        theirs = other.made_with_ if "map_" in other.__dict__ else other.get_params()
        differing = [name for name in mine if mine[name] != theirs[name]]
        if differing:
            name = differing[0]
            raise InputError(f"{name} is {mine[name]!r} here but {theirs[name]!r} in the other")
        with self._adding() as gathered:
            gathered.merge(other._cases)
        return self

    @property
    def tallies_(self) -> dict[str | None, ScoreTally]:
        """Copy of the tally of each case, by name.

        Under None is the sum of all that is not known by case: unnamed voxels, and tallies of
        several cases, such as the folds of a cohort's ``bins="auto"``.
        """
        return self._tallies().by_case()

    @property
    def weighing(self) -> str:
        """How voxels count: as "voxels", so that "cases" are equal, or by "numbers" of cases."""
        if self.case_weight == "voxels" and self._tallies().is_weighted:
            return "numbers"
        return self.case_weight

    def _check_raters(self, raters: int) -> None:
        if self.target == "single" and not 0 <= self.rater < raters:
            raise InputError(f"rater is {self.rater} but there are {raters} raters, counted from 0")

    def _check_same_raters(self, gathered: CaseTallies, raters: int) -> None:
        """Refuse another number of raters than before where it matters who is who."""
        known = gathered.raters
        if self.target in ("single", "hard") and known and known != raters:
            raise InputError(
                f"it has {raters} raters but the cases before it have {known}, and the target "
                f"{self.target!r} follows each by his number: pass None for a rater that a case "
                "does not have"
            )

    @contextmanager
    def _adding(self) -> Iterator[CaseTallies]:
        """Give what a case is added to; the map is then another, unless nothing could be added."""
        with self._lock:
            if "_cases" not in self.__dict__:
                if "map_" in self.__dict__:
                    raise InputError(
                        "this Calibrator was loaded from a file, which holds no tallies"
                    )
                self._cases = CaseTallies()
            cases = self._cases
        yield cases
        with self._lock:
            if self._cases is cases:  # a fit in another thread begins anew
                self._forget_map()

    @property
    def made_with_(self) -> dict[str, Any]:
        """Parameters that the map was made with, by name."""
        raise NotImplementedError

    def _forget_map(self) -> None:
        raise NotImplementedError

    def _tallies(self) -> CaseTallies:
        if "_cases" not in self.__dict__:
            raise InputError("this Calibrator holds no tallies: it is not fitted or was loaded")
        return self._cases

    def _add(
        self,
        cases: CaseTallies,
        opened: OpenParts,
        case: str | None,
        with_region: bool,
        group: str | None = None,
        weight: float = 1.0,
    ) -> None:
        self._check_raters(opened.number)
        self._check_same_raters(cases, opened.number)
        rule = self.region_rule or ("mask" if with_region else "all")
        cases.add_voxels(opened, case, rule, group, weight)

    def _add_arrays(
        self,
        case: str,
        group: str | None,
        weight: float,
        ignore_label: int | None,
        score: Any,
        raters: Any,
        region: Any,
    ) -> None:
        opened = open_parts(score, raters, region, ignore_label)
        self._add(self._cases, opened, case, region is not None, group, weight)


def case_weights(weights: Sequence[float] | None, cases: int) -> list[float]:
    """Return the weight of each case; that each can be one `CaseTallies` sees to."""
    if weights is None:
        return [1.0] * cases
    if isinstance(weights, (str, bytes)) or len(weights) != cases:
        raise InputError(
            f"must have a number for each of {cases} cases; 'cases' and 'voxels' are given to "
            "Calibrator",
            argument="case_weight",
        )
    return [float(weight) for weight in weights]
