"""The score tallies of a store, read from its pack where there is one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from twintrack import _core
from twintrack.calibration.case_weights import Load, equal_weights, whole_weights
from twintrack.calibration.fitted_on import FittedCase
from twintrack.calibration.score_tally import ScoreTally
from twintrack.cohort.patients import patients_of
from twintrack.errors import InputError
from twintrack.runs.fitted_cases import score_digest
from twintrack.runs.records import Entry
from twintrack.runs.store import Store
from twintrack.runs.tally_pack import (
    NAME,
    DenseSums,
    PackedTally,
    Stamp,
    TallyPack,
    write_pack,
)

# Fewer tallies than this are read from their own files in a second.
_WORTH_PACKING = 32


class Known(NamedTuple):
    """What records say of a case: digests for the file of a map, and the name of its patient."""

    fitted: FittedCase
    patient: str | None


class StoredTallies:
    """Cases and their tallies, in the order of the names; can be gone through several times.

    Parameters
    ----------
    store
        Where they are.
    cases
        Names of finished cases.
    entries
        Their records, where they have been read already.
    """

    def __init__(
        self, store: Store, cases: Sequence[str], entries: Iterable[Entry] | None = None
    ) -> None:
        self.cases: list[str] = sorted(cases)
        self._store = store
        self._known = None if entries is None else _known(entries)
        self._loads: dict[str, Load] = {}  # as far as they were asked for
        self._pack: TallyPack | None = None
        with contextlib.suppress(OSError, ValueError):  # none, or to be written again
            self._pack = TallyPack(store.folder / NAME)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[tuple[str, ScoreTally]]:
        """Yield case and tally.

        Raises
        ------
        ValueError
            A tally is damaged, or not the one that its record names; names the file.
        """
        for case in self.cases:
            yield case, self.tally(case)

    def tally(self, case: str) -> ScoreTally:
        """Return the tally of a case; raises as iterating does."""
        packed = self._packed(case)
        return self._from_file(case) if packed is None else packed.tally()

    def of(self, cases: Sequence[str]) -> StoredTallies:
        """Return the tallies of some cases."""
        some = copy.copy(self)
        some.cases = list(cases)
        return some

    def with_patients(self, pattern: str) -> StoredTallies:
        """Return them with the patients that a pattern finds in the names of the cases.

        Raises
        ------
        InputError
            As `twintrack.cohort.patients.patients_of`, also where the run that stored them knew
            other patients.
        """
        found = patients_of(self.cases, pattern, self.patients())
        some = copy.copy(self)
        some._known = {
            case: Known(known.fitted.of(found[case]), found[case])
            for case, known in self._of_cases()
        }
        return some

    def patients(self) -> dict[str, str | None]:
        """Return the patient of each case; None for one that is a patient of its own."""
        return {case: known.patient for case, known in self._of_cases()}

    def groups(self) -> dict[str, list[str]]:
        """Return the cases of each patient, the units that are independent.

        In the order of the cases, and of each patient's first case; a case without a patient is one
        of its own, called as the case is.
        """
        groups: dict[str, list[str]] = {}
        for case, patient in self.patients().items():
            groups.setdefault(patient or case, []).append(case)
        return groups

    def fitted_cases(self) -> dict[str, FittedCase]:
        """Return by name what a map that is fitted to the tallies keeps of the cases."""
        return {case: known.fitted for case, known in self._of_cases()}

    def entry(self, case: str) -> Entry:
        """Return the record of a case; raises as `Store.tallied`."""
        return self._store.tallied(case)

    def known(self) -> dict[str, Known]:
        """Return what the records say of each case."""
        return dict(self._of_cases())

    def _of_cases(self) -> Iterator[tuple[str, Known]]:
        if self._known is None:
            self._known = _known(filter(None, map(self._store.find, self.cases)))
        for case in self.cases:
            yield case, self._known.get(case, Known(FittedCase.named(case), None))

    def pack(self) -> None:
        """Write the pack again if many tallies are not in it; nothing happens if it cannot be."""
        finished = self._store.cases()
        missing = sum(not self._is_packed(case) for case in finished)
        if missing < max(_WORTH_PACKING, len(finished) // 10):
            return

        def everything() -> Iterator[tuple[str, Stamp, ScoreTally]]:
            for case, tally in StoredTallies(self._store, finished):
                stamp = self._stamp(case)
                if stamp is not None:
                    yield case, stamp, tally

        # A cache: a folder that is read-only, a full disk or one damaged tally cost only time here.
        with contextlib.suppress(OSError, ValueError):
            write_pack(self._store.folder / NAME, everything())
            self._pack = TallyPack(self._store.folder / NAME)

    def total(
        self, weights: Mapping[str, int] | None = None, *, same_raters: bool = False
    ) -> ScoreTally:
        """Return the sum of all tallies, of the most raters that one has.

        Parameters
        ----------
        weights
            Whole number by which the voxels of each case count.
        same_raters
            Refuse cases of different numbers of raters: for targets that follow each by his number.

        Raises
        ------
        ValueError
            There is no tally, one is damaged, or numbers of raters differ that may not.
        """
        if not self.cases:
            raise InputError("there are no cases to fit")
        almost = self._from_total() if weights is None else None
        if almost is not None:
            return almost.tally()

        def add_up(cases: Sequence[str]) -> dict[int, DenseSums]:
            sums: dict[int, DenseSums] = {}
            for case in cases:
                narrow = self.packed(case)
                own = sums.setdefault(narrow.raters, DenseSums(narrow.raters))
                own.add(narrow, 1 if weights is None else weights[case])
            return sums

        # NumPy adds without the lock of the interpreter.
        threads = max(1, min(_core.max_threads(), len(self.cases) // 16))
        parts = [self.cases[k::threads] for k in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(add_up, parts))
        total: dict[int, DenseSums] = {}
        for part in found:
            for raters, sums in part.items():
                if raters in total:
                    total[raters].merge(sums)
                else:
                    total[raters] = sums
        if same_raters and len(total) > 1:
            raise InputError(
                f"cases have {' or '.join(map(str, sorted(total)))} raters, and the target follows "
                "each rater by his number; fit the mean human response (--target mhr), or choose "
                "cases of the same raters"
            )
        return ScoreTally.of_all([sums.tally() for sums in total.values()])

    def _from_total(self) -> DenseSums | None:
        """Return the pack's total less what is not asked for, if that is the shorter way."""
        if self._pack is None:
            return None
        packed = self._pack.cases
        left_out = set(packed).difference(self.cases)
        if len(packed) - len(left_out) < len(self.cases) or len(left_out) > len(self.cases):
            return None
        if not all(map(self._is_packed, packed)):
            return None
        try:
            total = self._pack.total()
            if total is None:
                return None
            sums = DenseSums(total.raters)
            sums.add(total)
            for case in left_out:
                sums.add(self._pack.read(case), -1)
        except ValueError:
            return None
        return sums

    def voxels(self) -> int:
        """Return the number of voxels of all tallies."""
        return sum(load.voxels for load in self._all_loads().values())

    def responses(self, weights: Mapping[str, int] | None = None) -> list[float]:
        """Return for each of `groups` what its raters mark on average, in voxels."""
        loads = self._all_loads()
        return [
            sum(loads[case].response * (1 if weights is None else weights[case]) for case in cases)
            for cases in self.groups().values()
        ]

    def weights(self, rule: str) -> dict[str, int] | None:
        """Return the whole number by which the voxels of each case count; None if all are 1.

        `rule` is that of `Calibrator` (case_weight).
        """
        if rule == "voxels":
            return None
        loads, groups = self._all_loads(), self.groups()
        sizes = [sum(loads[case].voxels for case in cases) for cases in groups.values()]
        weighed = {
            case: weight
            for cases, weight in zip(groups.values(), equal_weights(sizes), strict=True)
            for case in cases
        }
        whole = whole_weights([*weighed.values()], [loads[case] for case in weighed])
        return dict(zip(weighed, whole, strict=True))

    def _all_loads(self) -> dict[str, Load]:
        for case, packed in self.narrow() if set(self.cases) - set(self._loads) else ():
            if case not in self._loads:
                self._loads[case] = packed.load()
        return {case: self._loads[case] for case in self.cases}

    def narrow(self) -> Iterator[tuple[str, PackedTally]]:
        """Yield case and sums, as narrow as they are stored."""
        for case in self.cases:
            yield case, self.packed(case)

    def raters(self) -> int:
        """Return the number of raters of the case that has the most."""
        return max(
            self._pack.raters(case)
            if self._pack is not None and self._is_packed(case)
            else self._from_file(case).raters
            for case in self.cases
        )

    def packed(self, case: str) -> PackedTally:
        """Return the sums of a case, as narrow as they are stored; raises as iterating does."""
        packed = self._packed(case)
        if packed is not None:
            return packed
        return PackedTally.of(self._from_file(case))

    def _packed(self, case: str) -> PackedTally | None:
        if self._pack is None or not self._is_packed(case):
            return None
        try:
            return self._pack.read(case)
        except ValueError:
            return None

    def _is_packed(self, case: str) -> bool:
        stamp = self._stamp(case)
        return self._pack is not None and stamp is not None and self._pack.has(case, stamp)

    def _from_file(self, case: str) -> ScoreTally:
        self._store.tallied(case)
        return ScoreTally.load(self._store.tally_path(case))

    def _stamp(self, case: str) -> Stamp | None:
        tally = self._store.tally_path(case)
        try:
            found = [path.stat() for path in (tally.with_name(f"{case}.json"), tally)]
        except OSError:
            return None
        record, sums = ((status.st_size, status.st_mtime_ns) for status in found)
        return (*record, *sums)


def _known(entries: Iterable[Entry]) -> dict[str, Known]:
    def known(entry: Entry) -> Known:
        score, patient = score_digest(entry.inputs), entry.patient
        return Known(FittedCase.named(entry.case, score, patient), patient)

    return {entry.case: known(entry) for entry in entries}
