"""``twintrack evaluate``: the benchmark's figures, and more, for every case of a cohort."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twintrack.cli import options
from twintrack.cli.running import Running
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.cli.reporting import Report
    from twintrack.cohort import Case
    from twintrack.runs.evaluate import EvaluateJob, Evaluation

_MEASURE = "Measuring"
_SHOW = "Showing"


class Protocol(str, Enum):
    """Whose rules."""

    official = "official"
    corrected = "corrected"


def evaluate(
    source: options.Input,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            help="Folder that gets cases.csv, summary.json, failures.csv and examples.",
            show_default=False,
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            help="Calibrator file of twintrack fit, applied to the scores first.",
            show_default=False,
        ),
    ] = None,
    method: options.Method = None,
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="official gives what the benchmark's evaluator returns, accidents included; "
            "corrected the same definitions without them. The notes say where they differ.",
            rich_help_panel=_MEASURE,
        ),
    ] = Protocol.official,
    region: Annotated[
        options.Region,
        typer.Option(
            help="Where calibration errors are measured: in the box around all annotations, as the "
            "benchmark does, inside the roi mask, or in all voxels.",
            rich_help_panel=_MEASURE,
        ),
    ] = options.Region.box,
    millimetres: Annotated[
        bool,
        typer.Option(
            "--mm3",
            help="Volumes and CRPS in mm³; the benchmark has them in voxels.",
            rich_help_panel=_MEASURE,
        ),
    ] = False,
    staple: Annotated[
        bool,
        typer.Option(
            "--staple",
            help="Also Dice of the score above 0.5 against the raters' STAPLE consensus.",
            rich_help_panel=_MEASURE,
        ),
    ] = False,
    example: Annotated[
        list[str] | None,
        typer.Option(
            "--example",
            metavar="CASE",
            help="Keep a slice of this case, for the figure of twintrack compare that shows raters "
            "and scores; may be repeated. By default of the case of median volume, in a run in one "
            "piece.",
            show_default=False,
            rich_help_panel=_SHOW,
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            help="Where the CT is that is shown behind the slice, with {case} for the case's name.",
            show_default=False,
            rich_help_panel=_SHOW,
        ),
    ] = None,
    predictions: options.Predictions = None,
    raters: options.RaterPattern = options.RATERS,
    vessels: options.VesselPattern = options.VESSELS,
    roi: options.RoiPattern = options.ROI,
    tumour: options.Tumour = "1",
    ignore_header: options.IgnoreHeader = False,
    *,
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
    """
    from twintrack.calibration.calibrator_file import read_calibrator
    from twintrack.calibration.fitted_on import told
    from twintrack.files import check_folder_place
    from twintrack.runs import evaluate as runs
    from twintrack.runs.earlier_results import check_results

    report = telling.report()
    if not run.dry_run:
        check_folder_place(output)
    job = runs.EvaluateJob(
        protocol=protocol.value,
        calibrator=None if model is None else read_calibrator(model),
        region=region.value,
        millimetres=millimetres,
        staple=staple,
        tumour=options.classes(tumour),
        ignore_header=ignore_header,
    )
    cohort = options.read_cohort(source, predictions, raters, vessels, roi)
    cases = run.part_of(cohort)
    _check_examples(example or [], image, cohort, cases)
    store = output / "store"
    name = method or runs.default_method(job.options, runs.any_calibrated(cohort))
    outdated = check_results(output, name, job.options, force=run.force)
    fitted = runs.fitted_among(cases, job, store)
    if fitted:
        report.warn(f"{model or 'calibrated scores'}: {told(fitted, len(cases))}")
    if run.dry_run:
        run.print_plan(report, cases, job, store)
        return
    for path in outdated:
        path.unlink(missing_ok=True)
    with run.settings(report) as settings:
        found = runs.evaluate_cohort(cases, job, store, settings=settings, cohort=cohort)
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
    _write_examples(report, output / "examples", found, cases, job, example, image, run.parts > 1)
    options.exit_by(len(found.failures), len(cases))


def _check_examples(
    wanted: list[str], image: str | None, cohort: list[Case], cases: list[Case]
) -> None:
    """Find out before the work that there is nothing to show of `cases`, a part of the cohort."""
    names = {case.name for case in cohort}
    for name in wanted:
        if name not in names:
            raise InputError("is no case of the cohort", argument=f"--example {name!r}")
    if image is not None and len(cohort) > 1 and "{case}" not in image:
        raise InputError(
            "it must have {case} in the place of the name", argument="--image", value=image
        )
    if image is None or (not wanted and len(cases) < len(cohort)):
        return
    shown = [case.name for case in cases if not wanted or case.name in wanted]
    missing = [name for name in shown if not _image_of(name, image).is_file()]
    # Which case is of median volume is known only in the end, so that any image may do.
    if missing and (wanted or len(missing) == len(shown)):
        raise FileNotFoundError(
            2,
            f"no such image of case {missing[0]!r}; correct --image, or name with --example a case "
            "that has one",
            str(_image_of(missing[0], image)),
        )


def _image_of(case: str, image: str) -> Path:
    return Path(image.replace("{case}", case))


def _write_examples(
    report: Report,
    folder: Path,
    found: Evaluation,
    cases: list[Case],
    job: EvaluateJob,
    wanted: list[str] | None,
    image: str | None,
    is_part: bool,
) -> None:
    """Write a slice of each chosen case, one case in memory at a time, and remove older ones.

    A part of a run writes those of its cases that were asked for: which one is of median volume is
    not known to it, nor what the other parts have written to the same folder.
    """
    from twintrack.cohort.score_records import calibrate_score
    from twintrack.report.examples import case_example, typical_case, write_example

    if wanted is None:
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
        background = None if image is None else _image_of(case.name, image)
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
