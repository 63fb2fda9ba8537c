"""``twintrack fit``: a calibrator from a cohort, or from tallies that an earlier run has stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from twintrack.cli import options
from twintrack.cli.calibrators import TARGETS, calibrator_rows, map_warnings, show_choice
from twintrack.cli.extras import require_for_cases
from twintrack.cli.map_band import tell_band, warn_of_box, write_band
from twintrack.cli.reporting import Report
from twintrack.cli.running import RUNNING, Running
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.calibration.calibrator import Calibrator
    from twintrack.cohort import Case
    from twintrack.runs.records import Failure
    from twintrack.runs.stored_tallies import StoredTallies

Target = Literal["mhr", "single", "hard", "majority", "none"]


@dataclass(frozen=True)
class Map:
    """What is fitted, to which cases.

    Attributes
    ----------
    target
        What a calibrated score estimates: the mean human response (mhr), one rater's answer
        (single), the average of one map per rater (hard), the vote of more than half of the raters
        (majority), or nothing (none, the identity).
    kind
        Isotonic regression over bins or, for comparison, a map with few parameters: Platt, beta or
        temperature scaling.
    rater
        The rater that --target single follows: 1 is rater_1.
    bins
        Number of equal-mass bins; auto: the fewest that cross-validation over the patients finds to
        be as good as the best; cells: without bins, the limit of many.
    floor
        Least value of the map, from 0; auto: half a vote per effective case in the lowest block.
    ceiling
        Largest value of the map, up to 1; auto: likewise in the highest block.
    case_weight
        voxels: every voxel counts the same, so that large tumours count most; cases: every patient
        counts the same.
    exact
        Read the voxels twice and place the cuts between bins exactly. Needless for 16-bit scores.
    folds
        Folds of --bins auto.
    seed
        Seed of --bins auto.
    region
        Which voxels count: inside the roi mask, inside the box around all annotations (grown by 20
        voxels), or all. By default roi if every case has a mask, else box. With all on whole CTs
        the tumour is lost in the last bin.
    average
        How the ensemble was averaged (probabilities or logits): recorded with the map.
    leave_one_out
        Also write to this folder, for every case, CASE.json fitted to all cases of other patients.
    band
        Also write to this CSV file the map with its band over patients, and keep the band in the
        calibrator file, with the interval of predicted volumes.
    band_kind
        The band holds the map of all patients at each score by itself (pointwise, the default) or
        at all scores at once (simultaneous).
    band_level
        The probability of that, 0.95 by default, and of the interval of predicted volumes.
    """

    panel: ClassVar[str] = "Map"

    target: Target = "mhr"
    kind: Literal["isotonic", "platt", "beta", "temperature"] = "isotonic"
    rater: Annotated[int, typer.Option(min=1)] = 1
    bins: str = "250"
    floor: str = "0"
    ceiling: str = "1"
    case_weight: Literal["voxels", "cases"] = "voxels"
    exact: bool = False
    folds: Annotated[int, typer.Option(min=2)] = 5
    seed: Annotated[int, typer.Option(min=0)] = 0
    region: options.Region | None = None
    average: str | None = None
    leave_one_out: Path | None = None
    band: Path | None = None
    band_kind: Literal["pointwise", "simultaneous"] | None = None
    band_level: float | None = None

    def check_band(self) -> None:
        """Refuse a level that is none, and what is asked of no band."""
        asked = {"--band-kind": self.band_kind, "--band-level": self.band_level}
        for option, value in asked.items():
            if value is not None and self.band is None:
                raise InputError(f"{option} is that of a band: give --band FILE.csv, too")
        if self.band_level is not None and not 0 < self.band_level < 1:
            raise InputError(
                "it must be above 0 and below 1", argument="--band-level", value=self.band_level
            )

    def calibrator(self, use_raters: Sequence[int] | None) -> Calibrator:
        """Return an unfitted calibrator with these parameters, of the raters that count."""
        from twintrack.calibration.calibrator import Calibrator

        if self.average not in (None, "probabilities", "logits"):
            raise InputError(
                "it must be probabilities or logits", argument="--average", value=self.average
            )
        rater = self.rater - 1
        if use_raters is not None and self.target == "single":
            if self.rater not in use_raters:
                raise InputError(
                    "it is not among --use-raters", argument="--rater", value=self.rater
                )
            rater = use_raters.index(self.rater)
        calibrator = Calibrator(
            self.target,
            bins=_bins(self.bins),
            floor=_bound(self.floor, "--floor"),
            ceiling=_bound(self.ceiling, "--ceiling"),
            rater=rater,
            kind=self.kind,
            exact=self.exact,
            folds=self.folds,
            seed=self.seed,
            case_weight=self.case_weight,
            ensemble=None if self.average is None else {"average": self.average},
        )
        calibrator.check_parameters()
        return calibrator

    def check_number(self, patients: int) -> None:
        """Refuse, before anything is written, what a single patient cannot give."""
        among_cases = {
            "--band": self.band is not None,
            "--leave-one-out": self.leave_one_out is not None,
            "--bins auto": self.bins == "auto" and self.target != "none",
        }
        for option, asked in among_cases.items():
            if asked and patients < 2:
                raise InputError(
                    f"{option} compares patients, so it needs at least two, here {patients}: leave "
                    f"out {option}, or fit to cases of more patients"
                )


@dataclass(frozen=True)
class FitRunning(Running):
    """How fit goes through the cases.

    Attributes
    ----------
    skip_broken
        Leave out cases that cannot be read. By default they are an error.
    store
        Folder that keeps the tallies. By default beside -o: NAME.tallies.
    """

    panel: ClassVar[str] = RUNNING

    skip_broken: bool = False
    store: Path | None = None


def fit(
    output: Annotated[Path, typer.Option("-o", "--output")],
    source: Annotated[Path | None, typer.Option("-i")] = None,
    tallies: Annotated[list[str] | None, typer.Option(metavar="[NAME=]FOLDER")] = None,
    *,
    asked: Map,
    files: options.CohortFiles,
    run: FitRunning,
    telling: options.Telling,
) -> None:
    """Fit a calibrator: the map from score to the fraction of experts who would mark the voxel.

    Every case is read once and reduced to a tally, which is kept: a run that was interrupted goes
    on where it was, and twintrack fit --tallies fits again without reading a voxel. The calibrator
    has digests of the cases' names and scores, by which twintrack evaluate knows them again.

    Parameters
    ----------
    output
        Calibrator file to write (JSON).
    source
        The cohort: a manifest (CSV with the columns case, score, rater_1, rater_2, …, and roi if
        there are masks), or a folder with the annotations of each case, which needs -p; predictions
        without annotations are left out.
    tallies
        Instead of -i: the store of an earlier fit, here or at another site. No voxel is read again,
        so other targets, bins and subsets of the cases take moments. May be repeated: the cases of
        all stores are fitted together. With a name, its cases are told apart as NAME/CASE.
    """
    from twintrack.calibration.map_band import band_scores
    from twintrack.files import check_file_place, check_folder_place
    from twintrack.runs import fit as runs
    from twintrack.runs.case_band import band_over_cases
    from twintrack.runs.leave_one_out import leave_one_out

    report = telling.report()
    for file in (output, asked.band):
        if file is not None:
            check_file_place(file)
    store = run.store or output.with_name(f"{output.stem}.tallies")
    for folder in (asked.leave_one_out, run.store if tallies else store):
        if folder is not None:
            check_folder_place(folder)
    _check_apart(
        {"-o": output, "--band": asked.band},
        {
            "-i": source,
            "--leave-one-out": asked.leave_one_out,
            "--store": run.store if tallies else store,
        },
    )
    asked.check_band()
    calibrator = asked.calibrator(files.numbers_of_raters)
    failures: list[Failure] = []
    found: StoredTallies | None = None
    if source is not None and not tallies:
        tallied = _fit_cohort(report, calibrator, asked, source, files, run, store, output)
        if tallied is None:
            return
        region, failures = tallied
    elif tallies and source is None:
        region, found = _fit_tallies(report, calibrator, asked, tallies, files)
    else:
        raise InputError("give either -i (a cohort) or --tallies (the store of an earlier fit)")
    band = None
    # The calibrator comes last: where it is, everything is that was asked for with it.
    if asked.leave_one_out is not None or asked.band is not None:
        if found is None:
            only, without = files.only or (), files.without or ()
            _, found = runs.read_tallies(store, region=region, only=only, without=without)
        if asked.leave_one_out is not None:
            for case, fitted in leave_one_out(calibrator, found, region):
                place = asked.leave_one_out / f"{case}.json"
                place.parent.mkdir(parents=True, exist_ok=True)  # of a store with a name, its own
                fitted.save(place)
        if asked.band is not None:
            band = band_over_cases(
                calibrator,
                found,
                band_scores(calibrator.map_),
                level=asked.band_level or 0.95,
                kind=asked.band_kind or "pointwise",
                progress=report.progress,
            )
            calibrator.keep_band(band)
            write_band(asked.band, band)
    calibrator.save(output)
    _tell(report, calibrator, output, failures)
    if band is not None and asked.band is not None:
        tell_band(report, band, asked.band)
        warn_of_box(report, calibrator)
    raise typer.Exit(1 if failures else 0)


def _fit_tallies(
    report: Report,
    calibrator: Calibrator,
    asked: Map,
    stores: Sequence[str],
    files: options.CohortFiles,
) -> tuple[str, StoredTallies]:
    """Fit to stored tallies; return which voxels they counted, and them."""
    from twintrack.cli.pooling import places, read_pool
    from twintrack.cohort.score_records import join_ensembles
    from twintrack.runs import fit as runs

    if asked.exact:
        raise InputError("--exact reads the voxels again: give the cohort (-i), not --tallies")
    if files.use_raters is not None:
        raise InputError(
            "--use-raters chooses annotation files, which --tallies does not read: give the cohort "
            "(-i)"
        )
    made_with, found, _ = read_pool(report, places(stores), asked.region, files)
    asked.check_number(len(found.groups()))
    known = [("of the tallies", made_with["ensemble"] or {})]
    calibrator.set_params(ensemble=join_ensembles(known, calibrator.ensemble))
    region: str = made_with["region"]
    runs.fit_tallies(calibrator, found, region, progress=report.progress)
    return region, found


def _fit_cohort(
    report: Report,
    calibrator: Calibrator,
    asked: Map,
    source: Path,
    files: options.CohortFiles,
    run: FitRunning,
    store: Path,
    output: Path,
) -> tuple[str, list[Failure]] | None:
    """Tally a cohort and fit to it; return which voxels counted, and the failures.

    None if nothing was fitted, as only the plan was asked for or a part of the cohort was tallied.
    """
    from twintrack.runs import fit as runs
    from twintrack.runs.engine import notes_of

    then = f"twintrack fit --tallies {store} -o {output}"
    if run.parts > 1 and (asked.band or asked.leave_one_out):
        raise InputError(
            "a part of a run (-num_parts) only tallies: leave out --band and --leave-one-out, and "
            f"give them after all parts to {then}"
        )

    def left_out(names: list[str]) -> None:
        report.warn(
            f"{len(names)} predictions have no annotations in {source} and are left out: "
            f"{', '.join(names[:3])}{', …' * (len(names) > 3)}"
        )

    cohort = files.read(source, left_out)
    options.warn_of_missing_raters(report, cohort)
    region = asked.region or runs.default_region(cohort)
    asked.check_number(_patients(cohort))
    if asked.target == "single" and cohort and int(calibrator.rater) >= len(cohort[0].raters):
        raise InputError(
            f"there are only {len(cohort[0].raters)} raters", argument="--rater", value=asked.rater
        )
    cases = run.part_of(cohort)
    job = runs.TallyJob(
        region,
        options.classes(files.tumour),
        files.ignore_header,
        files.labels,
        files.numbers_of_raters,
        files.ignore_label,
    )
    require_for_cases(cases, job)
    if run.dry_run:
        run.print_plan(report, cases, job, store)
        return None
    with run.settings(report) as settings:
        if run.parts > 1:
            outcomes, _ = runs.tally_cohort(cases, job, store, settings, cohort)
        else:
            outcomes = runs.fit_cohort(
                cases, calibrator, job, store, skip_broken=run.skip_broken, settings=settings
            )
    failures = runs.failures_of(outcomes)
    _warn_of_marks(report, runs.marked_outside(outcomes))
    report.warn_of_notes(notes_of(outcomes))
    if run.parts == 1:
        broken = {failure.case for failure in failures}
        asked.check_number(_patients([case for case in cases if case.name not in broken]))
        return region, failures
    runs.check_failures(failures, len(cases), run.skip_broken)
    report.result(
        f"Part {run.part} of {run.parts} is tallied",
        [("store", store), ("then", then)],
        store=str(store),
    )
    raise typer.Exit(1 if failures else 0)


def _patients(cases: Sequence[Case]) -> int:
    """Return the number of patients; a case without one is one of its own."""
    return len({case.patient or case.name for case in cases})


def _bins(text: str) -> Any:
    if text in ("auto", "cells"):
        return text
    try:
        return int(text)
    except ValueError:
        raise InputError(
            "it must be a number, auto or cells", argument="--bins", value=text
        ) from None


def _bound(text: str, option: str) -> Any:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise InputError("it must be a number or auto", argument=option, value=text) from None


def _check_apart(files: Mapping[str, Path | None], others: Mapping[str, Path | None]) -> None:
    """Refuse to write a file where another is written, or what is read."""
    taken: dict[Path, str] = {}
    for option, place in {**others, **files}.items():
        if place is None:
            continue
        known = taken.setdefault(place.resolve(), option)
        if known != option and option in files:
            raise InputError(f"{option} is {place}, which {known} is too; choose another name")


def _warn_of_marks(report: Report, marked_outside: Mapping[str, int]) -> None:
    """Tell which raters' marks are no part of the fit, as their scores are crops without them."""
    if marked_outside:
        named = [f"{case} ({voxels:,} voxels)" for case, voxels in marked_outside.items()]
        report.warn(
            f"raters mark voxels outside of what the score covers in {len(named)} cases; they do "
            f"not count: {', '.join(named[:3])}{', …' * (len(named) > 3)}"
        )


_TOLD = ("target", "raters", "cases", "voxels", "region", "bins", "bounds", "facts", "thresholds")


def _tell(
    report: Report, calibrator: Calibrator, output: Path, failures: Sequence[Failure]
) -> None:
    from twintrack.calibration.fitted_on import patients_among

    made_of = calibrator.provenance_
    rows, patients = calibrator_rows(calibrator), patients_among(calibrator.fitted_on_ or ())
    if patients is not None:
        rows["cases"] += f" of {patients:,} patients"
    if failures:
        rows["cases"] += f" ({len(failures)} broken)"
    report.result(
        f"Calibrator for {TARGETS[made_of['target']]}",
        [*rows.items(), ("written to", output)],
        output=str(output),
        knots=len(calibrator.X_thresholds_),
        failed=len(failures),
        **{name: made_of[name] for name in _TOLD},
    )
    choice = made_of["cross_validation"]
    if choice is not None:
        show_choice(report, choice)
    for warning in map_warnings(calibrator):
        report.warn(warning)
