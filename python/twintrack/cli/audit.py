"""``twintrack audit``: whether a map is still right, from few new cases with several raters."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twintrack.cli import options
from twintrack.cli.extras import require_for_cases
from twintrack.cli.fit import FitRunning
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.calibration.calibrator import Calibrator
    from twintrack.calibration.fitted_on import Overlap
    from twintrack.cli.reporting import Report
    from twintrack.runs.audit_result import Audit
    from twintrack.runs.stored_tallies import StoredTallies


@dataclass(frozen=True)
class Question:
    """What is asked of the new cases.

    Attributes
    ----------
    calibration
        The tallies that the map was fitted to (NAME.tallies of twintrack fit), for the error of the
        map itself. By default those beside -m. May be repeated, as --tallies.
    bound
        Relative error of the volume that would not matter: the map is kept where its error is
        surely smaller.
    region
        The voxels that count, which must be those of the map; by default they are.
    write
        Also write the map that the audit recommends, if it is to be replaced, to this calibrator
        file.
    """

    panel: ClassVar[str] = "Question"

    calibration: Annotated[list[str] | None, typer.Option(metavar="[NAME=]FOLDER")] = None
    bound: float = 0.25
    region: options.Region | None = None
    write: Path | None = None


def audit(
    model: Annotated[Path, typer.Option("-m")],
    output: Annotated[Path, typer.Option("-o", "--output")],
    source: Annotated[Path | None, typer.Option("-i")] = None,
    tallies: Annotated[list[str] | None, typer.Option(metavar="[NAME=]FOLDER")] = None,
    *,
    question: Question,
    files: options.CohortFiles,
    run: FitRunning,
    telling: options.Telling,
) -> None:
    """Say from few new cases whether a map is still right here: keep, refit, or too few cases.

    New cases are of another year, scanner, hospital or network, with several raters, and none of
    them is one that the map was fitted on. Ten tell of large errors, forty of smaller ones.

    Parameters
    ----------
    model
        Calibrator file of twintrack fit.
    output
        Folder that gets audit.json, audit.csv (old and new maps), audit.svg and, with -i, tallies.
    source
        The new cases: a manifest (CSV), or a folder with the annotations of each case, which needs
        -p; as for twintrack fit.
    tallies
        Instead of -i: the tallies of the new cases, that twintrack fit has stored. May be repeated.
    """
    from twintrack.calibration.calibrator_file import read_calibrator
    from twintrack.files import check_file_place, check_folder_place
    from twintrack.runs import audit as runs

    report = telling.report()
    check_folder_place(output)
    if question.write is not None:
        check_file_place(question.write)
    if (source is None) == (not tallies):
        raise InputError("give either -i (the new cases) or --tallies (the store of their fit)")
    options.check_calibrator(model)
    calibrator = read_calibrator(model)
    runs.check_question(calibrator, question.bound)
    if calibrator.fitted_on_ is None:
        report.warn(f"{model} does not say which cases it was fitted on: see that these are others")
    if question.region is not None:
        runs.check_region(calibrator, question.region)
    known = _calibration(question, model, calibrator)
    if tallies:
        _check_needs_files(files, run)
        failed, found = 0, _stored(report, tallies, calibrator, files)
    else:
        assert source is not None  # noqa: S101 - one of the two is given
        tallied = _tallied(report, source, calibrator, files, run, output)
        if tallied is None:
            return
        failed, found = tallied
    results = runs.audit_map(
        calibrator, found, known, bound=question.bound, progress=report.progress
    )
    written = None
    if question.write is not None and results.recommended is not None:
        updated = runs.updated_calibrator(results, calibrator, found, calibrator.region_)
        updated.save(question.write)
        written = question.write
    _write(output, results)
    _tell(report, results, output, written)
    raise typer.Exit(1 if failed else 0)


def _calibration(question: Question, model: Path, calibrator: Calibrator) -> StoredTallies | None:
    """Return the tallies that the map was fitted to, if they are named or lie beside it."""
    from twintrack.cli.pooling import places
    from twintrack.runs.pooled_tallies import pool_tallies

    beside = model.with_name(f"{model.stem}.tallies")
    there = beside.is_dir() and not calibrator.provenance_.get("update")
    named = question.calibration or ([str(beside)] if there else [])
    if not named:
        return None
    return pool_tallies(places(named), region=calibrator.region_).tallies


def _check_needs_files(files: options.CohortFiles, run: FitRunning) -> None:
    """Refuse, with tallies, the options that ask for files of voxels."""
    needed = {
        "-p": files.predictions,
        "--use-raters": files.use_raters,
        "--store": run.store,
        "-num_parts": run.parts > 1,
        "--dry-run": run.dry_run,
    }
    for option, asked in needed.items():
        if asked:
            raise InputError(f"{option} is about files of voxels: give the new cases (-i) for it")


def _stored(
    report: Report,
    stores: Sequence[str],
    calibrator: Calibrator,
    files: options.CohortFiles,
) -> StoredTallies:
    """Return the tallies of the new cases."""
    from twintrack.cli.pooling import places, read_pool
    from twintrack.cohort.score_records import join_ensembles
    from twintrack.runs import audit as runs

    made_with, found, _ = read_pool(report, places(stores), calibrator.region_, files)
    _tell_overlap(report, runs.overlap_with(calibrator, found), len(found))
    try:
        join_ensembles(
            [("of the new tallies", made_with["ensemble"] or {})],
            calibrator.provenance_.get("ensemble"),
        )
    except InputError as error:
        report.warn(str(error))
    return found


def _tallied(
    report: Report,
    source: Path,
    calibrator: Calibrator,
    files: options.CohortFiles,
    run: FitRunning,
    output: Path,
) -> tuple[int, StoredTallies] | None:
    """Tally the new cases in the region of the map; return how many failed, and the tallies.

    None if only the plan was asked for.
    """
    from twintrack.runs import fit as runs
    from twintrack.runs.engine import notes_of
    from twintrack.runs.fitted_cases import find_among
    from twintrack.runs.store import Store

    if run.parts > 1:
        raise InputError("an audit goes through all cases: leave out -num_parts")
    region: Any = calibrator.region_
    if region not in ("roi", "box", "all"):
        raise InputError(
            f"the map was fitted in Python to the region {region!r}, which the command line cannot "
            "find in files: fit it with twintrack fit",
            argument="-m",
        )
    cohort = files.read(source)
    options.warn_of_missing_raters(report, cohort)
    job = runs.TallyJob(
        region,
        options.classes(files.tumour),
        files.ignore_header,
        files.labels,
        files.numbers_of_raters,
        files.ignore_label,
    )
    require_for_cases(cohort, job)
    store = run.store or output / "tallies"
    opened = Store(store, job.kind, job.options)
    among = find_among(cohort, calibrator.fitted_on_ or (), job.files, opened)
    _tell_overlap(report, among, len(cohort))
    if run.dry_run:
        run.print_plan(report, cohort, job, store)
        return None
    with run.settings(report) as settings:
        outcomes, _ = runs.tally_cohort(cohort, job, store, settings)
    failures = runs.failures_of(outcomes)
    runs.check_failures(failures, len(cohort), run.skip_broken)
    report.warn_of_notes(notes_of(outcomes))
    broken = {failure.case for failure in failures}
    names = [case.name for case in cohort if case.name not in broken]
    return len(failures), runs.read_tallies(store, region=region, only=names)[1]


def _tell_overlap(report: Report, overlap: Overlap, cases: int) -> None:
    """Refuse the cases of the fit; warn of those that may be of its patients."""
    from twintrack.calibration.fitted_on import told
    from twintrack.runs.audit import check_overlap

    check_overlap(overlap, cases)
    if overlap:
        report.warn(told(overlap, cases))


def _write(folder: Path, found: Audit) -> None:
    """Write the numbers, the maps and, if Matplotlib is there, their figure."""
    import numpy as np

    from twintrack.files import csv_text, replacing, write_text

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found.to_dict(), indent=1, allow_nan=False)
    write_text(folder / "audit.json", text + "\n")
    maps = {"map": found.old, "affine": found.affine, "refitted": found.refitted}
    score = np.linspace(0, 1, 1001)
    values = [np.interp(score, one.x, one.y) for one in maps.values()]
    rows = ([repr(float(value)) for value in row] for row in zip(score, *values, strict=True))
    write_text(folder / "audit.csv", csv_text(["score", *maps], rows))
    if importlib.util.find_spec("matplotlib") is None:
        return
    from twintrack.report.figures import map_figure, svg
    from twintrack.report.maps import MapPlot

    names = ("this map", "affine update", "fitted to the new cases")
    plots = [MapPlot(name, one.x, one.y) for name, one in zip(names, maps.values(), strict=True)]
    with replacing(folder / "audit.svg") as place:
        place.write_bytes(svg(map_figure(plots)))


_SOURCES = {
    "tallies": "from its tallies, patient by patient",
    "band": "from its band, as if all scores erred together",
    "unknown": "not known, so that it is said too often to refit: give --calibration",
}


def _tell(report: Report, found: Audit, output: Path, written: Path | None) -> None:
    from twintrack.runs.audit_result import SHARES, SIZE, signed

    least = [f"wrong below {SIZE * share:.2g}" for share in SHARES]
    tilt = found.tilt.estimate
    more, less = ("more", "less") if tilt > 0 else ("less", "more")
    affine = ", ".join(f"{name} {value:.3g}" for name, value in found.updates.items())
    patients = f"{found.cases:,} of {found.patients:,} patients"
    rows = [
        ("new cases", f"{patients}, n_eff {found.effective_groups:.1f}"),
        ("volume", f"p = {found.volume.p_value:.2g}, {least[0]}"),
        (
            "tilt",
            f"raters mark {abs(tilt):.1%} {more} than it says where it is high, and {less} where "
            f"it is low; p = {found.tilt.p_value:.2g}, {least[1]}",
        ),
        ("power", f"80% to find a volume error of {signed(found.detectable)}"),
        ("error of the map", _SOURCES[found.map_error_from]),
        (
            "CORP's MCB",
            f"{found.miscalibration:.3g}; of an exact map {found.if_calibrated:.3g} on average",
        ),
        ("affine update", f"{affine}; Brier {_gain(found.affine_gain)}"),
        ("map of new cases", f"Brier {_gain(found.refit_gain)}"),
        ("written to", output),
    ]
    if written is not None:
        rows.append(("map to use now", written))
    report.result(found.sentence, rows, output=str(output), **found.to_dict())


def _gain(found: tuple[float, float]) -> str:
    gain, error = found
    return f"{-gain:+.2e} ± {error:.1e} in patients left out"
