"""`study`: what cases, bins, regions and methods do to a map, from stored tallies alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import whole_number
from twintrack.arrays.threads import ahead
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.calibration.parametric import fit_parametric
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.tally_fit import TallyFit
from twintrack.errors import InputError
from twintrack.metrics.tally_evaluation import region_notes
from twintrack.runs import study_tables as tables
from twintrack.runs.engine import Outcome
from twintrack.runs.progress import Progress, once_it_takes_long
from twintrack.runs.study_bench import AnyMap, StudyBench, Trial
from twintrack.runs.study_certainty import CERTAINTY, certainty_table
from twintrack.runs.study_cohort import StudyCohort, halves
from twintrack.runs.study_table import StudyTable

SIZES = (2, 5, 10, 20, 40, 80)
DRAWS = 12
FRESH = tables.FRESH

_MHR = TallyFit("mhr", 250, 0)
FITS: Mapping[str, TallyFit | None] = {
    tables.NONE: None,
    tables.MHR: _MHR,
    tables.CELLS: TallyFit("mhr", EVERY_CELL, 0),
    tables.of_bins(100): TallyFit("mhr", 100, 0),
    "Platt scaling": replace(_MHR, kind="platt"),
    "Beta calibration": replace(_MHR, kind="beta"),
    "Temperature scaling": replace(_MHR, kind="temperature"),
    "Majority vote": TallyFit("majority", 250, 0),
    "Single rater": TallyFit("single", 250, 0),
    "Hard labels": TallyFit("hard", 250, 0),
}
"""The methods that are compared, and how each is fitted."""


@dataclass(frozen=True, eq=False)
class Study(ByValue):
    """What a study found.

    Attributes
    ----------
    tables
        One for each question that could be answered.
    absent
        Questions that could not, and why, or what they need.
    facts
        What was studied, for people.
    notes
        Figures that are not defined, maps that could not be fitted, and why.
    """

    tables: tuple[StudyTable, ...]
    absent: tuple[tuple[str, str], ...]
    facts: Mapping[str, str]
    notes: tuple[str, ...]


def study(
    cohort: StudyCohort,
    other: StudyCohort | None = None,
    *,
    splits: int = 5,
    seed: int = 0,
    draws: int = 0,
    progress: Progress | None = None,
) -> Study:
    """Answer from tallies what methods, bins, cases, regions and another cohort's map do.

    Patients are divided at random into halves, several times: maps are fitted to one half and
    measured on the other. A map of few patients is fitted to some that are drawn from the half.

    Parameters
    ----------
    cohort
        What `open_cohort` gives.
    other
        A second cohort, for the transfer of maps between the two.
    splits
        Number of divisions, at least 1.
    seed
        Of divisions and draws, at least 0. The same seed and tallies give the same tables.
    draws
        How often patients of both halves are drawn again, for intervals of the differences between
        methods; 0 leaves them out, which take half a second a draw on some hundred patients.
    progress
        Told of what takes more than two seconds.

    Raises
    ------
    InputError
        There are too few patients, the two cohorts counted the voxels of different regions, or a
        tally is damaged or of a version that did not count voxels by number of votes.
    """
    splits, seed = whole_number(splits, "splits", 1), whole_number(seed, "seed", 0)
    draws = whole_number(draws, "draws", 0)
    progress = progress or Progress()
    cohorts = [cohort] if other is None else [cohort, other]
    if other is not None and other.region != cohort.region:
        raise InputError(
            f"{cohort.name} counted the region {cohort.region}, {other.name} the region "
            f"{other.region}; name one that both have: --region"
        )
    divided = halves(cohorts, splits, seed)
    benches = [StudyBench(one, divided) for one in cohorts]
    bench = benches[0]
    regions = (cohort.region, *cohort.others)
    _do(
        "Adding up",
        [
            *bench.adding_up(regions),
            *(work for one in benches[1:] for work in one.adding_up([one.cohort.region])),
        ],
        progress,
    )
    works: list[Callable[[], None]] = []
    fresh: dict[tuple[int, int], ScoreTally] = {}  # five patients, by bench and draw
    for number, one in enumerate(benches):
        fits = {**FITS, **{tables.of_bins(m): TallyFit("mhr", m, 0) for m in tables.BINS}}
        sizes: tuple[int, ...] = SIZES
        if number:
            fits, sizes = {name: fits[name] for name in (tables.NONE, tables.MHR)}, (FRESH,)
        others = () if number else tuple(cohort.others)
        works += [_fitting(one, split, fits, others) for split in range(splits)]
        works += [_drawing(one, number, draw, sizes, seed, fresh) for draw in range(DRAWS)]
    _do("Fitting", works, progress)
    if len(benches) == 2:
        for number, (own, theirs) in enumerate((benches, benches[::-1])):
            _take_over(own, theirs, {d: fresh[n, d] for n, d in fresh if n == number})
    measured = [one.measure(list(FITS) if one is bench else [], progress) for one in benches]

    found = [
        tables.methods_table(list(FITS), measured[0]),
        tables.bins_table(measured[0]),
    ]
    absent = []
    if draws:
        certain = certainty_table(
            cohort, divided[0], FITS, tables.MHR, draws=draws, seed=seed, progress=progress
        )
        found.append(certain)
    else:
        absent.append((CERTAINTY, "draw patients again: --draws 200"))
    learned = tables.learning_table(measured[0], SIZES)
    if learned is None:
        absent.append((tables.LEARNING, "there are fewer than three patients to fit to"))
    else:
        found.append(learned)
    if len(benches) == 2:
        found.append(tables.transfer_table([one.name for one in cohorts], measured))
    else:
        absent.append((tables.TRANSFER, "name a second store of tallies: --tallies OTHER"))
    if cohort.others:
        found.append(tables.regions_table(cohort.region, list(cohort.others), measured[0]))
    else:
        absent.append(
            (
                tables.REGIONS,
                f"the store has tallies of one region alone ({cohort.region}): tally another one "
                "into it (twintrack fit -i COHORT --region roi --store FOLDER)",
            )
        )
    if cohort.region == "all":
        found.append(tables.sizes_table(measured[0]))
    else:
        absent.append((tables.SIZES, "volumes need tallies of all voxels (--region all)"))
    notes = [*(note for one in cohorts for note in one.notes), *region_notes(cohort.region)]
    notes += [f"{name}: not fitted: {why}" for one in benches for name, why in one.failed.items()]
    return Study(tuple(found), tuple(absent), _facts(cohorts, splits, seed), tuple(notes))


def _facts(cohorts: list[StudyCohort], splits: int, seed: int) -> dict[str, str]:
    def told(one: StudyCohort) -> str:
        cases, patients = len(one.tallies.cases), len(one.patients)
        return f"{cases:,} cases of {patients:,} patients, region {one.region}"

    return {
        **{one.name: told(one) for one in cohorts},
        "splits": f"{splits}, half of the patients fitted to, half measured on; seed {seed}",
    }


def _do(what: str, works: list[Callable[[], None]], progress: Progress) -> None:
    def timed(work: Callable[[], None]) -> Outcome:
        begin = time.monotonic()
        work()
        return Outcome("maps", "done", 0, time.monotonic() - begin)

    with once_it_takes_long(progress, what, len(works)) as tell:
        for outcome in ahead(timed, works):
            tell(outcome)


def _fitting(
    bench: StudyBench, split: int, fits: Mapping[str, TallyFit | None], others: Iterable[str]
) -> Callable[[], None]:
    def fit() -> None:
        bench.fit(split, fits, bench.half(split, bench.cohort.region, fitted=True))
        for region in others:
            own = bench.half(split, region, fitted=True)
            bench.fit(split, {tables.of_region(region): _MHR}, own)

    return fit


def _drawing(
    bench: StudyBench,
    number: int,
    draw: int,
    sizes: tuple[int, ...],
    seed: int,
    fresh: dict[tuple[int, int], ScoreTally],
) -> Callable[[], None]:
    """Fit maps of a few patients, of whom the more hold the fewer, so that they can be compared."""

    def fit() -> None:
        split = draw % len(bench.halves)
        patients = [p for p in bench.halves[split].fitted if p in bench.cohort.patients]
        order = np.random.default_rng([seed, split, draw]).permutation(len(patients))
        for size, total in _growing(bench, [patients[k] for k in order], sizes):
            bench.fit(split, {tables.of_patients(size): _MHR}, total, draw)
            if size == FRESH:
                fresh[number, draw] = total

    return fit


def _growing(
    bench: StudyBench, patients: list[str], sizes: tuple[int, ...]
) -> Iterator[tuple[int, ScoreTally]]:
    total, done = None, 0
    for size in sizes:
        if size >= len(patients):
            return
        part = bench.cohort.total(patients[done:size], bench.cohort.region)
        total, done = (part if total is None else ScoreTally.of_all([total, part])), size
        yield size, total


def _take_over(own: StudyBench, theirs: StudyBench, fresh: Mapping[int, ScoreTally]) -> None:
    """Take the maps of another cohort, as they are and updated by a few patients of one's own."""
    for split in range(len(own.halves)):
        trial = Trial(split, tables.MHR)
        if trial in theirs.maps:
            own.maps[Trial(split, tables.THEIRS)] = theirs.maps[trial]
    for draw, tally in fresh.items():
        split = draw % len(own.halves)
        one = theirs.maps.get(Trial(split, tables.MHR))
        if one is not None:
            own.maps[Trial(split, tables.UPDATED, draw)] = _updated(one, tally)


def _updated(one: Callable[[Any], Any], tally: ScoreTally) -> AnyMap:
    """Return a map with its log-odds stretched and shifted so that it fits a tally."""
    cells = tally.equal_mass_bins(EVERY_CELL)
    try:
        update, _ = fit_parametric(
            "platt", replace(cells, mean_score=one(cells.mean_score)), "mhr", 0
        )
    except InputError:  # no mark, or nothing else: it says nothing of the map
        return one
    return lambda score: update(one(score))
