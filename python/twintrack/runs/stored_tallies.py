"""The score tallies of a store, read from its pack where there is one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.calibration.fitted_on import FittedCase
from twintrack.calibration.score_tally import ScoreTally
from twintrack.cohort.patients import patients_of
from twintrack.errors import InputError
from twintrack.runs.fitted_cases import score_digest
from twintrack.runs.records import Entry
from twintrack.runs.store import Store
from twintrack.runs.tally_pack import NAME, PackedTally, Stamp, TallyPack, write_pack

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
            packed = self._packed(case)
            yield case, self._from_file(case) if packed is None else packed.tally()

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

    def dense(self) -> NDArray[np.uint64]:
        """Return the sum of all tallies as dense sums (2 + N, GRID_CELLS): count, residuals, votes.

        Raises
        ------
        ValueError
            There is no tally, the numbers of raters differ, or one is damaged; names the case.
        """
        if not self.cases:
            raise InputError("there are no cases to fit")
        almost = self._from_total()
        if almost is not None:
            return almost
        first = self._narrow(self.cases[0])
        shape = (len(first.columns), _core.GRID_CELLS)

        def add_up(cases: Sequence[str]) -> NDArray[np.uint64]:
            sums = np.zeros(shape, np.uint64)
            for case in cases:
                narrow = self._narrow(case)
                if len(narrow.columns) != shape[0]:
                    raise InputError(
                        f"it has {narrow.raters} raters but the cases before it have "
                        f"{first.raters}",
                        case=case,
                    )
                narrow.add_to(sums)
            return sums

        # NumPy adds without the lock of the interpreter.
        threads = max(1, min(_core.max_threads(), len(self.cases) // 16))
        parts = [self.cases[k::threads] for k in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            total, *others = pool.map(add_up, parts)
        for other in others:
            total += other
        return total

    def _from_total(self) -> NDArray[np.uint64] | None:
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
            sums = np.zeros((len(total.columns), _core.GRID_CELLS), np.uint64)
            total.add_to(sums)
            for case in left_out:
                self._pack.read(case).take_from(sums)
        except ValueError:
            return None
        return sums

    def total(self) -> ScoreTally:
        """Return the sum of all tallies; raises as `dense`."""
        return ScoreTally.from_dense(self.dense())

    def narrow(self) -> Iterator[tuple[str, PackedTally]]:
        """Yield case and sums, as narrow as they are stored."""
        for case in self.cases:
            yield case, self._narrow(case)

    def _narrow(self, case: str) -> PackedTally:
        packed = self._packed(case)
        if packed is not None:
            return packed
        cells, sums = self._from_file(case).rows()
        return PackedTally(0, cells, list(sums.T))

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
        found: list[int] = []
        tally = self._store.tally_path(case)
        for path in (tally.with_name(f"{case}.json"), tally):
            with contextlib.suppress(OSError):
                status = Path(path).stat()
                found += [status.st_size, status.st_mtime_ns]
        return None if len(found) < 4 else (found[0], found[1], found[2], found[3])


def _known(entries: Iterable[Entry]) -> dict[str, Known]:
    def known(entry: Entry) -> Known:
        score, patient = score_digest(entry.inputs), entry.patient
        return Known(FittedCase.named(entry.case, score, patient), patient)

    return {entry.case: known(entry) for entry in entries}
