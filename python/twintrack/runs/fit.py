"""Fitting over a cohort: one pass tallies every case, the map is made from the tallies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from twintrack import _core
from twintrack.calibration.bin_choice import deal
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.effective import effective_groups
from twintrack.calibration.score_tally import ScoreTally
from twintrack.cohort import Case, RegionRule
from twintrack.cohort.aligned import nothing_marked
from twintrack.cohort.score_records import ensemble_of_score, join_ensembles
from twintrack.errors import InputError
from twintrack.files import split_suffix
from twintrack.runs import pooled_tallies
from twintrack.runs.case_thresholds import find_thresholds
from twintrack.runs.editions import edition
from twintrack.runs.engine import (
    Outcome,
    Settings,
    flow_through,
    run_cases,
)
from twintrack.runs.inputs import case_files, size_of
from twintrack.runs.job import Job, Product
from twintrack.runs.memory import case_bytes
from twintrack.runs.pooled_tallies import Place, ensembles, pool_tallies
from twintrack.runs.progress import Progress
from twintrack.runs.records import Failure
from twintrack.runs.store import Store
from twintrack.runs.stored_tallies import StoredTallies
from twintrack.runs.streaming import SLAB_VOXELS, Slab, StreamedCase, open_case

KIND = pooled_tallies.KIND


@dataclass(frozen=True)
class TallyJob(Job[StreamedCase]):
    """Tallies scores and raters of a case for fitting.

    Attributes
    ----------
    region
        Which voxels count.
    tumour, ignore_header, label
        As in `align_case`.
    use_raters
        Numbers of the raters that the cases have, where these are some of a cohort's; recorded.
    ignore_label
        As in `align_case`.
    """

    region: RegionRule
    tumour: tuple[int, ...] = (1,)
    ignore_header: bool = False
    label: tuple[str, ...] = ()
    use_raters: tuple[int, ...] | None = None
    ignore_label: int | None = None

    kind = KIND

    @property
    def options(self) -> dict[str, Any]:
        """What decides a tally besides the files; tallies of one grid are alike in all versions."""
        return {
            "region": self.region,
            "tumour": list(self.tumour),
            "ignore_header": self.ignore_header,
            "grid_cells": _core.GRID_CELLS,
            **({"label": list(self.label)} if self.label else {}),
            **({"use_raters": list(self.use_raters)} if self.use_raters else {}),
            **({} if self.ignore_label is None else {"ignore_label": self.ignore_label}),
            **edition("score_tally"),
        }

    def files(self, case: Case) -> dict[str, Path]:
        """Score and raters, and the mask if it decides which voxels count."""
        return case_files(case, vessels=False, roi=self.region == "roi")

    def memory(self, case: Case) -> int:
        """Estimate the memory that a slab of the case takes."""
        return case_bytes(self.files(case), SLAB_VOXELS)

    def patient(self, case: Case) -> str | None:
        """Return whose case it is: patients are held out, and drawn, as a whole."""
        return case.patient

    def read(self, case: Case) -> StreamedCase:
        """Open the files, to be gone through in slabs."""
        return open_case(
            case, self.region, self.ignore_header, self.tumour, self.label, self.ignore_label
        )

    def compute(self, loaded: StreamedCase) -> Product:
        """Tally."""
        ensemble = ensemble_of_score(loaded.case.score, self.tumour)
        tally = ScoreTally(len(loaded.case.raters))
        unseen = loaded.aligned.unseen
        loaded.for_each(
            lambda slab: tally.update(
                slab.score, slab.raters, slab.region, ignore_label=unseen, rule=self.region
            )
        )
        counted = tally.compact().voxels
        result = {"voxels_in_region": counted, "ensemble": ensemble}
        if loaded.aligned.beyond:
            result["marked_outside"] = loaded.marked_outside()
        if loaded.notes:
            result["notes"] = loaded.notes
        return Product(loaded.place.array.size, result, tally)

    def load_tally(self, path: Path) -> ScoreTally:
        """Read a stored tally."""
        return ScoreTally.load(path)


def default_region(cases: Sequence[Case]) -> RegionRule:
    """Choose "roi" if the cases have masks, else "box", the box of the benchmark.

    "all" is never chosen: on whole CTs the tumour is less than a thousandth of the voxels and falls
    into the last of 250 bins.

    Raises
    ------
    ValueError
        Some cases have a mask and others have none.
    """
    without = [case.name for case in cases if case.roi is None]
    if not without:
        return "roi"
    if len(without) < len(cases):
        raise InputError(
            f"{len(cases) - len(without)} cases have an roi mask, but {len(without)} have none "
            f"({', '.join(without[:3])}{', …' * (len(without) > 3)}); name the missing masks, or "
            "choose the region: --region box or --region all"
        )
    return "box"


def tally_cohort(
    cases: Sequence[Case],
    job: TallyJob,
    store: Path,
    settings: Settings,
    cohort: Sequence[Case] | None = None,
) -> tuple[list[Outcome], ScoreTally | None]:
    """Tally every case and keep the tallies in a store; return what `run_cases` does.

    `cohort` is the whole cohort where `cases` is a part of it.
    """
    names = [case.name for case in cohort or cases]
    with Store(store, job.kind, job.options).writing(names) as opened:
        return run_cases(cases, job, opened, settings, "Tallying")


def fit_cohort(
    cases: Sequence[Case],
    calibrator: Calibrator,
    job: TallyJob,
    store: Path,
    *,
    skip_broken: bool = False,
    settings: Settings | None = None,
) -> list[Outcome]:
    """Fit a calibrator to a cohort.

    Parameters
    ----------
    cases
        The cohort.
    calibrator
        An unfitted Calibrator with the target, bins and so on; it is fitted in place. With
        ``exact=True`` the voxels are read a second time. What the files tell of how the scores were
        made is added to its `ensemble`.
    job
        Which voxels count, and how files are read.
    store
        Folder in which the tallies are kept: when the run is repeated, cases that are in it and
        have not changed are not read again.
    skip_broken
        Leave out cases that cannot be read. By default they are an error, raised when all cases
        have been looked at.
    settings
        How to go about it.

    Returns
    -------
    outcomes
        In the order of `cases`: `failures_of`, `marked_outside` and `notes_of` tell of them.

    Raises
    ------
    ValueError
        Broken cases, nothing to fit, no voxel that a rater marked, or scores that were made in
        different ways.
    StoreError
        The store cannot be written.
    """
    settings = settings or Settings()
    join_ensembles(_told(cases, job.tumour), calibrator.ensemble)  # contradictions, before the work
    outcomes, total = tally_cohort(cases, job, store, settings)
    failures = failures_of(outcomes)
    check_failures(failures, len(cases), skip_broken)
    entries = [outcome.entry for outcome in outcomes if outcome.entry is not None]
    calibrator.set_params(ensemble=join_ensembles(ensembles(entries), calibrator.ensemble))
    broken = {failure.case for failure in failures}
    whole = [case for case in cases if case.name not in broken]
    if total is not None and total.response == 0 and calibrator.target != "none":
        raise InputError(nothing_marked(whole, job.label))
    opened = Store(store, job.kind, job.options)
    tallies = StoredTallies(opened, [case.name for case in whole], entries)
    if calibrator.asks_cases and calibrator.target != "none":
        _add_sums(calibrator, tallies, job.region)
    else:
        if total is None:
            raise InputError("there are no cases to fit")
        calibrator.record_cases(tallies.fitted_cases().values())
        calibrator.add_tally(total, region=job.region, cases=len(whole))
    if calibrator.exact and calibrator.target != "none":
        calibrator.refine(_Voxels(whole, job, settings))
    find_thresholds(calibrator, tallies, settings.progress)
    return outcomes


def failures_of(outcomes: Iterable[Outcome]) -> list[Failure]:
    """Return why cases could not be finished."""
    return [outcome.failure for outcome in outcomes if outcome.failure is not None]


def marked_outside(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Return, by case, the voxels, over all raters, that are marked outside of what a score covers.

    They do not count. Cases without any are left out.
    """
    entries = [outcome.entry for outcome in outcomes if outcome.entry is not None]
    lost = {entry.case: int(entry.result.get("marked_outside", 0)) for entry in entries}
    return {case: voxels for case, voxels in lost.items() if voxels}


def check_failures(failures: Sequence[Failure], cases: int, skip_broken: bool) -> None:
    """Raise ValueError if all cases failed, or any that was not to be skipped."""
    if not failures or (skip_broken and len(failures) < cases):
        return
    shown = [f"\n  {failure.case}: {failure.message}" for failure in failures[:10]]
    shown += ["\n  …"] * (len(failures) > 10)
    if len(failures) == cases:
        raise InputError(f"none of the {cases} cases could be used:{''.join(shown)}")
    raise InputError(
        f"{len(failures)} of {cases} cases could not be used; mend them, or leave them out, by "
        f"name with --without CASE or all of them with --skip-broken:{''.join(shown)}"
    )


def fit_tallies(
    calibrator: Calibrator,
    tallies: StoredTallies,
    region: str,
    keep: bool = False,
    progress: Progress | None = None,
) -> Calibrator:
    """Fit a calibrator to stored tallies; `region` tells what they counted.

    Only their sum is kept in memory, or that of each fold where the number of bins is chosen by
    cross-validation, unless `keep` says that the calibrator shall know its cases, for a band. No
    patient is divided between folds. `progress` is told of what takes long.

    Raises
    ------
    InputError
        There is no tally, or the numbers of raters differ and the target follows each rater.
    """
    if not keep:
        _add_sums(calibrator, tallies, region)
        if not calibrator.exact:
            find_thresholds(calibrator.finish(), tallies, progress)
        return calibrator
    calibrator.record_cases(tallies.fitted_cases().values())
    patients = tallies.patients()
    for case, tally in tallies:
        calibrator.add_tally(tally, case, region=region, group=patients[case], record=False)
    return calibrator if calibrator.exact else calibrator.finish()


def _add_sums(calibrator: Calibrator, tallies: StoredTallies, region: str) -> None:
    """Add the sum of all tallies, or that of each fold."""
    calibrator.record_cases(tallies.fitted_cases().values())
    patients = tallies.patients()
    parts = [tallies]
    groups = list(tallies.groups().values())
    if calibrator.bins == "auto" and len(groups) > 1:
        dealt = deal(len(groups), int(calibrator.folds), int(calibrator.seed))
        parts = [tallies.of([case for k in fold for case in groups[k]]) for fold in dealt]
    bounded = "auto" in (calibrator.floor, calibrator.ceiling)
    weights = tallies.weights(calibrator.case_weight)
    for part in parts:
        alone = part.cases[0] if len(part) == 1 else None
        among = list(part.groups())
        calibrator.add_tally(
            part.total(weights, same_raters=calibrator.target in ("single", "hard")),
            alone,
            region=region,
            cases=len(part),
            group=patients[alone] if alone else among[0] if len(among) == 1 else None,
            effective=effective_groups(part.responses(weights)) if bounded else None,
            voxels=None if weights is None else part.voxels(),
            record=False,
        )


def read_tallies(
    store: Path,
    *,
    region: str | None = None,
    only: Collection[str] = (),
    without: Collection[str] = (),
    group: str | None = None,
) -> tuple[Mapping[str, Any], StoredTallies]:
    """Find the tallies that a run has stored.

    The first time they are read one by one; they are then packed into one file (`tally_pack`),
    from which thousands are read in seconds.

    Parameters
    ----------
    store
        Folder of the store.
    region
        Which tallies are meant, if the store has several sets.
    only, without
        Names of cases, or patterns such as ``"LUNG_*"``: take these alone, leave these out.
    group
        Where the names of cases have the patient, if the run that stored them did not know.

    Returns
    -------
    options, tallies
        How they were made, with what is known of the scores as "ensemble" (`join_ensembles`); pairs
        of case and tally, in the order of the names, read when they are gone through.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such store, it has no or several sets of tallies, the run that made it was not
        finished, a pattern fits no case, a tally is damaged, or `group` does not fit; names the
        file.
    """
    found = pool_tallies([Place(store)], region=region, only=only, without=without, group=group)
    return found.options, found.tallies


def _told(cases: Iterable[Case], tumour: Sequence[int]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what the files tell of scores; of those that cannot be read the run will tell.

    One of each kind and folder is asked, for thousands of files on a server are slow to open: the
    run asks all.
    """
    kinds: dict[tuple[Path, str], Case] = {}
    for case in cases:
        kinds.setdefault((case.score.parent, split_suffix(case.score.name)[1]), case)
    for case in kinds.values():
        with contextlib.suppress(OSError, ValueError):
            yield case.name, ensemble_of_score(case.score, tumour)


class _Voxels:
    """The arrays of the cases, read again each time they are gone through, in any order."""

    def __init__(self, cases: Sequence[Case], job: TallyJob, settings: Settings) -> None:
        self._cases, self._job, self._settings = cases, job, settings

    def __iter__(self) -> Iterator[tuple[ArrayLike, ArrayLike, ArrayLike | None]]:
        progress = self._settings.progress

        def slabs(case: Case) -> Iterator[Slab | Outcome]:
            start = time.perf_counter()
            streamed = self._job.read(case)
            yield from streamed.slabs()
            seconds = time.perf_counter() - start
            nbytes, voxels = size_of(self._job.files(case)), streamed.place.array.size
            yield Outcome(case.name, "done", nbytes, seconds, voxels)

        total = sum(size_of(self._job.files(case)) for case in self._cases)
        progress.start("Placing cuts", len(self._cases), total)
        try:
            for found in flow_through(self._cases, slabs, self._settings.workers):
                if isinstance(found, Outcome):
                    progress.case(found)
                else:
                    # None is missing: exact cuts are refused where one is.
                    raters = [rater for rater in found.raters if rater is not None]
                    yield found.score, raters, found.region
        finally:
            progress.stop()
