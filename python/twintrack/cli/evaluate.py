"""``twintrack evaluate``: the benchmark's figures, and more, for every case of a cohort."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from twintrack.cli import options
from twintrack.cli.reporting import Report

__all__ = ["evaluate"]

_MEASURE = "Measuring"


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
            help="Folder that gets cases.csv, summary.json and failures.csv.",
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
    predictions: options.Predictions = None,
    raters: options.RaterPattern = options.RATERS,
    vessels: options.VesselPattern = options.VESSELS,
    roi: options.RoiPattern = options.ROI,
    tumour: options.Tumour = "1",
    ignore_header: options.IgnoreHeader = False,
    npp: options.AtOnce = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    workers: options.Workers = None,
    parts: options.Parts = 1,
    part: options.Part = 0,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    log_json: options.LogJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure scores against several raters, as the CURVAS-PDACVI benchmark does.

    The figures of each case are kept as soon as they are there: an interrupted run goes on where it
    was. A case that cannot be read is listed in failures.csv and the others are finished. The same
    command twice gives the same bytes. twintrack compare makes tables and figures of several such
    folders.
    """
    from twintrack.calibrator_file import read_calibrator
    from twintrack.runs import evaluate as runs

    report = Report(quiet, log_json, verbose)
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
    cases = options.part_of(cohort, parts, part)
    store = output / "store"
    if dry_run:
        options.print_plan(report, cases, job, store, memory, force)
        return
    with options.running(report, npp, memory, force, scheduler, workers) as settings:
        found = runs.evaluate_cohort(cases, job, store, settings=settings, cohort=cohort)
    if parts > 1:
        report.result(
            f"Part {part} of {parts} is evaluated",
            [("cases", len(found.rows)), ("then", f"twintrack merge {output} … -o {output}")],
            output=str(output),
            cases=len(found.rows),
            failed=len(found.failures),
        )
    else:
        options.write_evaluation(report, found, output, method)
    options.exit_by(len(found.failures), len(cases))
