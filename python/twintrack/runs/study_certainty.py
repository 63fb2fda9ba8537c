"""How sure differences between methods are: patients of both halves are drawn again."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.threads import ahead
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.calibration.tally_fit import TallyFit
from twintrack.errors import InputError
from twintrack.runs.engine import Outcome
from twintrack.runs.progress import Progress, once_it_takes_long
from twintrack.runs.study_cohort import Half, StudyCohort
from twintrack.runs.study_table import Column, StudyTable

CERTAINTY = "How sure are the differences?"

_Floats: TypeAlias = NDArray[np.float64]


class TestHalf:
    """The patients that maps are measured on: each one's sums by cell of the score grid."""

    __test__ = False  # for pytest

    def __init__(self, cohort: StudyCohort, patients: Sequence[str]) -> None:
        from scipy.sparse import csr_array  # SciPy takes its time to be imported

        totals = [cohort.total([patient], cohort.region) for patient in patients]
        everyone = [total.equal_mass_bins(EVERY_CELL) for total in totals]
        place = np.concatenate([total.cells for total in totals]).astype(np.intp)
        starts = np.cumsum([0, *(len(cells) for cells in everyone)])
        count = np.concatenate([cells.count for cells in everyone]).astype(np.float64)
        response = np.concatenate([cells.response for cells in everyone])
        sums = np.concatenate([cells.mean_score for cells in everyone]) * count
        self.cells, place = np.unique(place, return_inverse=True)
        shape = (len(totals), len(self.cells))
        self._count = csr_array((count, place, starts), shape)
        self._response = csr_array((response, place, starts), shape)
        self.scores = np.bincount(place, sums) / np.bincount(place, count)
        self.voxels = np.array([total.voxels for total in totals], np.float64)

    def losses(self, value: _Floats) -> _Floats:
        """Return of each patient the sum of (m - MHR)², less that of MHR², which no map changes."""
        return np.asarray(self._count @ value**2 - 2 * (self._response @ value))


def certainty_table(
    cohort: StudyCohort,
    half: Half,
    fits: Mapping[str, TallyFit | None],
    reference: str,
    *,
    draws: int,
    seed: int,
    progress: Progress,
) -> StudyTable:
    """Draw patients with replacement, `draws` times, and tell how far differences are spread.

    Parameters
    ----------
    cohort, half
        Whose maps are fitted, and measured.
    fits
        Method to how it is fitted; None leaves the scores as they are.
    reference
        The method that the others are compared with.
    draws, seed
        Number and seed.
    progress
        Told of the draws if they take more than two seconds.
    """
    groups = cohort.patients
    fitted = [patient for patient in half.fitted if patient in groups]
    tested = [patient for patient in half.tested if patient in groups]
    test = TestHalf(cohort, tested)

    def losses(drawn: Sequence[str]) -> _Floats:
        """Return the losses of all maps of some patients: (methods, test patients)."""
        times = Counter(drawn)
        weights = {case: n for patient, n in times.items() for case in groups[patient]}
        total = cohort.tallies.of(sorted(weights)).total(weights)
        found = np.full((len(fits), len(tested)), math.nan)
        for row, fit in zip(found, fits.values(), strict=True):
            try:
                m = test.scores if fit is None else fit(fit.seen(total))(test.scores)
            except InputError:  # nobody who is drawn marks a voxel
                continue
            row[:] = test.losses(m)
        return found

    at = [*fits].index(reference)

    def differences(found: _Floats, weights: _Floats) -> _Floats:
        """Return differences of Brier scores over drawn patients: (methods,)."""
        return np.asarray((found - found[at]) @ weights / (test.voxels @ weights))

    rng = np.random.default_rng([seed, 1])
    first = [rng.integers(len(fitted), size=len(fitted)) for _ in range(draws)]
    shares = np.full(len(tested), 1 / len(tested))
    second = rng.multinomial(len(tested), shares, draws).astype(np.float64)
    own = losses(fitted)
    once, both = (np.empty((draws, len(fits))) for _ in range(2))
    works = [[fitted[k] for k in one] for one in first]
    with once_it_takes_long(progress, "Drawing", draws) as tell:
        last = time.monotonic()
        for draw, found in enumerate(ahead(losses, works)):
            once[draw] = differences(own, second[draw])
            both[draw] = differences(found, second[draw])
            now = time.monotonic()
            tell(Outcome("draw", "done", 0, now - last))
            last = now
    center = differences(own, np.ones(len(tested)))
    rows = {
        name: (center[k], *_interval(once[:, k]), *_interval(both[:, k]))
        for k, name in enumerate(fits)
        if k != at
    }
    return _table(rows, reference, draws)


def _interval(values: _Floats) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if len(known) < len(values) / 2:
        return math.nan, math.nan
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _table(rows: Mapping[str, tuple[float, ...]], reference: str, draws: int) -> StudyTable:
    columns = (
        Column("brier_difference", f"Brier × 10³ against {reference}", "lower", 1e3),
        Column("test_low", "test patients drawn: from", None, 1e3),
        Column("test_high", "to", None, 1e3),
        Column("both_low", "both drawn: from", None, 1e3),
        Column("both_high", "to", None, 1e3),
    )
    certain = [name for name, (*_, low, high) in rows.items() if low > 0 or high < 0]
    lost = [
        name
        for name, (_, low, high, *_) in rows.items()
        if (low > 0 or high < 0) and name not in certain
    ]
    answer = (
        f"Different from {reference} whichever patients are drawn: {', '.join(certain)}."
        if certain
        else f"No method is certain to differ from {reference} once both sets are drawn."
    )
    if lost:
        answer += (
            f" Different for the maps at hand, not for maps of other patients: {', '.join(lost)}."
        )
    return StudyTable(
        "certainty",
        CERTAINTY,
        answer,
        "method",
        columns,
        tuple(rows.items()),
        (
            f"95% intervals of {draws} draws of patients with replacement, on the first split. "
            "Test patients drawn: how sure the difference between these maps is. Both drawn: the "
            "maps are fitted again to patients drawn from their half, too.",
            "Differences of Brier scores over the voxels of the drawn test patients, paired.",
        ),
    )
