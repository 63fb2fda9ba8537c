"""``twintrack evaluate``: the benchmark's figures, and more, for every case of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from twintrack.cli import options
from twintrack.cli.extras import require_for, require_for_cases
from twintrack.cli.map_band import warn_of_box
from twintrack.cli.running import Running
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.calibration.calibrator import Calibrator
    from twintrack.cli.reporting import Report
    from twintrack.cohort import Case
    from twintrack.runs.evaluate import EvaluateJob, Evaluation


@dataclass(frozen=True)
class Measuring:
    """What is measured.

    Attributes
    ----------
    protocol
        official gives what the benchmark's evaluator returns, accidents included; corrected the
        same definitions without them. The notes say where they differ.
    region
        Where calibration errors are measured: in the box around all annotations, as the benchmark
        does and by default, inside the roi mask, or in all voxels. With --tallies: which tallies
        are meant, where there are several sets.
    ece_bins
        Number of equally wide bins of the calibration errors: 50 in the benchmark.
    millimetres
        Volumes and CRPS in mm³; the benchmark has them in voxels.
    one_more_rater
        Measure, instead of the scores, each rater against the others, as one more expert would be
        measured: the mean over the raters.
    staple
        Also Dice of the score above 0.5 against the raters' STAPLE consensus.
    """

    panel: ClassVar[str] = "Measuring"

    protocol: Literal["official", "corrected"] = "official"
    region: options.Region | None = None
    ece_bins: Annotated[int, typer.Option(min=1)] = 50
    millimetres: Annotated[bool, typer.Option("--mm3")] = False
    staple: bool = False
    one_more_rater: bool = False


@dataclass(frozen=True)
class Showing:
    """What is kept for figures.

    Attributes
    ----------
    example
        Keep a slice of this case, for the figure of twintrack compare that shows raters and scores;
        may be repeated. By default of the case of median volume, in a run in one piece.
    image
        Where the CT is that is shown behind the slice, with {case} for the case's name.
    """

    panel: ClassVar[str] = "Showing"

    example: Annotated[list[str] | None, typer.Option(metavar="CASE")] = None
    image: str | None = None

    @property
    def wanted(self) -> list[str]:
        """The cases that are named, as cohorts spell them."""
        from twintrack.cohort.names import composed

        return [composed(case) for case in self.example or ()]

    def image_of(self, case: str) -> Path | None:
        """Return where the CT of a case is, None if there is none to show."""
        from twintrack.cohort.names import as_on_disk

        return None if self.image is None else as_on_disk(Path(self.image.replace("{case}", case)))


@dataclass(frozen=True)
class EvaluationFiles(options.CohortFiles):
    """Where the files of a cohort with vessels are.

    Attributes
    ----------
    vessels
        Where vessel label maps are in the folder -i.
    """

    vessels: str = "{case}/*vessel*.nii.gz"

    @property
    def vessel_pattern(self) -> str | None:
        """Where vessel label maps are."""
        return self.vessels


def evaluate(
    output: Annotated[Path, typer.Option("-o", "--output")],
    source: Annotated[Path | None, typer.Option("-i")] = None,
    tallies: Annotated[list[str] | None, typer.Option(metavar="[NAME=]FOLDER")] = None,
    model: Annotated[Path | None, typer.Option("-m")] = None,
    method: options.Method = None,
    *,
    measuring: Measuring,
    showing: Showing,
    files: EvaluationFiles,
    run: Running,
    telling: options.Telling,
) -> None:
    """Measure scores against several raters, as the CURVAS-PDACVI benchmark does.

    The figures of each case are kept as soon as they are there: an interrupted run goes on where it
    was. A case that cannot be read is listed in failures.csv and the others are finished. Cases
    that the calibrator was fitted on are warned of and noted. The same command twice gives the same
    bytes. A folder holds the results of one method: those of another one are replaced with --force
    alone. twintrack compare makes tables and figures of several such
    folders.

    Parameters
    ----------
    output
        Folder that gets cases.csv, summary.json, failures.csv and examples.
    source
        The cohort: a manifest (CSV with the columns case, score, rater_1, rater_2, …, and vessels
        and roi if there are any), or a folder with the annotations of each case, which needs -p.
    tallies
        Instead of -i: the tallies that twintrack fit has stored (NAME.tallies). No voxel is read,
        so a map is measured on thousands of cases in seconds. Tallies of all voxels give TDSC, CRPS
        and volumes, those of the box calibration errors; vascular invasion needs voxels. May be
        repeated, as for twintrack fit.
    model
        Calibrator file of twintrack fit, applied to the scores first. If it has a band, predicted
        volumes have intervals.
    """
    from twintrack.calibration.calibrator_file import read_calibrator
    from twintrack.files import check_folder_place

    report = telling.report()
    if not run.dry_run:
        check_folder_place(output)
    if (source is None) == (not tallies):
        raise InputError("give either -i (a cohort) or --tallies (the store of a fit)")
    if model is not None:
        options.check_calibrator(model)
    calibrator = None if model is None else read_calibrator(model)
    if source is None:
        _check_needs_voxels(measuring, showing, files, run)
        _evaluate_tallies(report, tallies or (), output, calibrator, method, measuring, files, run)
    else:
        _evaluate_cohort(
            report, source, output, calibrator, model, method, measuring, showing, files, run
        )


def _evaluate_cohort(
    report: Report,
    source: Path,
    output: Path,
    calibrator: Calibrator | None,
    model: Path | None,
    method: str | None,
    measuring: Measuring,
    showing: Showing,
    files: EvaluationFiles,
    run: Running,
) -> None:
    """Read the files of a cohort, measure, and write the results."""
    from twintrack.calibration.fitted_on import told
    from twintrack.cohort.aligned import nothing_marked
    from twintrack.runs import evaluate as runs
    from twintrack.runs.earlier_results import check_results
    from twintrack.runs.method_names import any_calibrated, default_method
    from twintrack.runs.one_more_rater import OneMoreRaterJob

    if measuring.one_more_rater and model is not None:
        raise InputError("--one-more-rater measures raters, not scores: leave out -m")
    job = (OneMoreRaterJob if measuring.one_more_rater else runs.EvaluateJob)(
        calibrator=calibrator,
        tumour=options.classes(files.tumour),
        label=files.labels,
        ignore_label=files.ignore_label,
        use_raters=files.numbers_of_raters,
        ignore_header=files.ignore_header,
        protocol=measuring.protocol,
        region=measuring.region or "box",
        millimetres=measuring.millimetres,
        staple=measuring.staple,
        ece_bins=measuring.ece_bins,
    )
    cohort = files.read(source)
    options.warn_of_missing_raters(report, cohort)
    cases = run.part_of(cohort)
    require_for_cases(cases, job)
    _check_examples(showing, cohort, cases)
    store = output / "store"
    name = method or default_method(job.options, any_calibrated(cohort))
    outdated = check_results(output, name, job.options, force=run.force)
    fitted = runs.fitted_among(cases, job, store)
    if fitted:
        report.warn(f"{model or 'calibrated scores'}: {told(fitted, len(cases))}")
    if job.calibrator is not None:
        warn_of_box(report, job.calibrator)
    if run.dry_run:
        run.print_plan(report, cases, job, store)
        return
    for path in outdated:
        path.unlink(missing_ok=True)
    with run.settings(report) as settings:
        found = runs.evaluate_cohort(cases, job, store, settings=settings, cohort=cohort)
    if found.rows and not any(row["rater_volume"] for row in found.rows.values()):
        measured = [case for case in cases if case.name in found.rows]
        report.warn(nothing_marked(measured, files.labels))
    if run.parts > 1:
        report.result(
            f"Part {run.part} of {run.parts} is evaluated",
            [("cases", len(found.rows)), ("then", f"twintrack merge {output} … -o {output}")],
            output=str(output),
            cases=len(found.rows),
            failed=len(found.failures),
        )
    else:
        options.write_evaluation(report, found, output, name)
    _write_examples(report, output / "examples", found, cases, job, showing, run.parts > 1)
    options.exit_by(len(found.failures), len(cases))


def _check_needs_voxels(
    measuring: Measuring, showing: Showing, files: EvaluationFiles, run: Running
) -> None:
    """Refuse, with tallies, the options that ask for voxels."""
    needed = {
        "--mm3": measuring.millimetres,
        "--staple": measuring.staple,
        "--one-more-rater": measuring.one_more_rater,
        "--example": showing.example,
        "--image": showing.image,
        "-p": files.predictions,
        "--use-raters": files.use_raters,
        "-num_parts": run.parts > 1,
        "--dry-run": run.dry_run,
    }
    for option, asked in needed.items():
        if asked:
            raise InputError(f"{option} is about files of voxels: give the cohort (-i) for it")


def _evaluate_tallies(
    report: Report,
    stores: Sequence[str],
    output: Path,
    calibrator: Calibrator | None,
    method: str | None,
    measuring: Measuring,
    files: EvaluationFiles,
    run: Running,
) -> None:
    """Measure a map on stored tallies and write the results."""
    from twintrack.calibration.fitted_on import told
    from twintrack.cli.pooling import places, read_pool
    from twintrack.runs import tally_evaluation as runs
    from twintrack.runs.earlier_results import check_results
    from twintrack.runs.method_names import default_method

    stored, found, _ = read_pool(report, places(stores), measuring.region, files)
    made_with = runs.tally_options(stored, calibrator, measuring.protocol, measuring.ece_bins)
    name = method or default_method(made_with)
    outdated = check_results(output, name, made_with, force=run.force)
    results = runs.evaluate_tallies(found, made_with, calibrator, progress=report.progress)
    for note in results.options["notes"]:
        report.warn(f"not as of voxels: {note}")
    if results.fitted_on:
        report.warn(told(results.fitted_on, len(results.rows)))
    output.mkdir(parents=True, exist_ok=True)
    for path in outdated:
        path.unlink(missing_ok=True)
    options.write_evaluation(report, results, output, name)


def _check_examples(showing: Showing, cohort: list[Case], cases: list[Case]) -> None:
    """Find out before the work that there is nothing to show of `cases`, a part of the cohort."""
    wanted = showing.wanted
    names = {case.name for case in cohort}
    for name in wanted:
        if name not in names:
            raise InputError("is no case of the cohort", argument=f"--example {name!r}")
    if showing.image is None:
        return
    if len(cohort) > 1 and "{case}" not in showing.image:
        raise InputError(
            "it must have {case} in the place of the name", argument="--image", value=showing.image
        )
    if not wanted and len(cases) < len(cohort):
        return
    shown = [case.name for case in cases if not wanted or case.name in wanted]
    images = {name: image for name in shown if (image := showing.image_of(name)) is not None}
    missing = [name for name, image in images.items() if not image.is_file()]
    require_for(images.values())
    # Which case is of median volume is known only in the end, so that any image may do.
    if missing and (wanted or len(missing) == len(shown)):
        raise FileNotFoundError(
            2,
            f"no such image of case {missing[0]!r}; correct --image, or name with --example a case "
            "that has one",
            str(images[missing[0]]),
        )


def _write_examples(
    report: Report,
    folder: Path,
    found: Evaluation,
    cases: list[Case],
    job: EvaluateJob,
    showing: Showing,
    is_part: bool,
) -> None:
    """Write a slice of each chosen case, one case in memory at a time, and remove older ones.

    A part of a run writes those of its cases that were asked for: which one is of median volume is
    not known to it, nor what the other parts have written to the same folder.
    """
    from twintrack.cohort.score_records import calibrate_score
    from twintrack.report.examples import case_example, typical_case, write_example

    wanted = showing.wanted
    if not wanted:
        volumes = {name: row["rater_volume"] or 0.0 for name, row in found.rows.items()}
        typical = None if is_part else typical_case(volumes)
        wanted = [] if typical is None else [typical]
    written = set()
    for case in cases:
        if case.name not in wanted or case.name not in found.rows:
            continue
        loaded, of_interest = job.read(case)
        calibrated = None
        if job.calibrator is not None:
            calibrated = loaded.score.array.copy()
            calibrate_score(job.calibrator, calibrated, of_interest)
        background = showing.image_of(case.name)
        if background is not None and not background.is_file():
            report.warn(
                f"{background}: no such image; the slice of case {case.name!r} is kept without. "
                "Another case can be named with --example"
            )
            background = None
        example = case_example(case.name, loaded, calibrated, background, job.ignore_header)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{case.name}.npz"
        write_example(path, example)
        written.add(path)
    if not is_part:
        for path in set(folder.glob("*.npz")) - written:
            path.unlink()
