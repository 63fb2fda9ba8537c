"""``twintrack apply``: calibrated volumes from score volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from twintrack.cli import options
from twintrack.cli.extras import require_for, require_for_cases
from twintrack.cli.map_band import band_told, warn_of_box
from twintrack.cli.running import Running
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.cohort import Case


@dataclass(frozen=True)
class Output:
    """How volumes are written.

    Attributes
    ----------
    keep
        Keep volumes of this calibrator that are there but not of these very options, such as of
        another --dtype. A case is made again where one of its files is missing.
    mask
        Write masks/CASE.nii.gz, too: 1 where the calibrated score is above --threshold, else 0.
    band
        Write low/CASE.nii.gz and high/CASE.nii.gz, too: the limits of the map's band, which
        twintrack fit --band keeps in the calibrator.
    """

    panel: ClassVar[str] = options.OUTPUT

    dtype: options.Stored = options.StoredType.float32
    ending: options.FileEnding = options.Ending.nii_gz
    mask: Annotated[bool, typer.Option("--mask")] = False
    threshold: options.MaskThreshold = None
    band: Annotated[bool, typer.Option("--band")] = False
    keep: Annotated[bool, typer.Option("--continue_prediction")] = False


def apply(
    inputs: Annotated[list[Path], typer.Option("-i")],
    model: Annotated[Path, typer.Option("-m")],
    output: Annotated[Path, typer.Option("-o", "--output")],
    tumour: options.Tumour = "1",
    prevalence: float | None = None,
    *,
    volumes: Output,
    run: Running,
    telling: options.Telling,
) -> None:
    """Apply a calibrator to score volumes; their geometry is kept.

    Volumes that this command has finished before are not made again unless the score, the
    calibrator or the options have changed: an interrupted run goes on where it was. A folder holds
    the volumes of one calibrator, masks of one threshold and limits of one band: what others have
    left is replaced with --force alone. volumes.csv has the volume that each calibrated score
    predicts, with an interval for the raters' if the calibrator has a band.

    Parameters
    ----------
    inputs
        What to calibrate: a folder of scores (nnU-Net's CASE.npz, CASE.nii.gz or another volume), a
        manifest (CSV), or a single file. May be repeated.
    model
        Calibrator file of twintrack fit.
    prevalence
        Share of the voxels of these scores that is tumour, where another share was in the fit: the
        map is changed by Bayes' rule.
    output
        Folder that gets CASE.nii.gz of each case and volumes.csv, masks/CASE.nii.gz with --mask,
        low/CASE.nii.gz and high/CASE.nii.gz with --band.
    """
    from twintrack.calibration.calibrator_file import read_calibrator
    from twintrack.files import check_folder_place
    from twintrack.runs import apply as runs
    from twintrack.runs.engine import notes_of
    from twintrack.volumes import QUANTISATION_ERROR

    report = telling.report()
    if run.force and volumes.keep:
        raise InputError("--force replaces what --continue_prediction keeps: give one of them")
    if volumes.threshold is not None and not volumes.mask:
        raise InputError("--threshold is that of masks, which --mask writes: give both, or none")
    asked = options.threshold(volumes.threshold)
    if not run.dry_run:
        check_folder_place(output)
    options.check_calibrator(model)
    calibrator = read_calibrator(model)
    if prevalence is not None:
        calibrator = calibrator.for_prevalence(prevalence)
    if volumes.band and calibrator.band_ is None:
        raise InputError(
            "has no band: make it again with twintrack fit --band FILE.csv, or leave out --band",
            file=model,
        )
    threshold = calibrator.threshold(asked) if volumes.mask else None
    cases = run.part_of(_scores(inputs))
    dtype = volumes.dtype.value
    classes = options.classes(tumour)
    ending = volumes.ending.value
    job = runs.ApplyJob(calibrator, output, dtype, ending, classes, threshold, volumes.band)
    require_for([ending])
    require_for_cases(cases, job)
    existing: Literal["refuse", "keep", "overwrite"]
    existing = "overwrite" if run.force else "keep" if volumes.keep else "refuse"
    if run.dry_run:
        runs.check_folder(cases, job, existing)
        run.print_plan(report, cases, job, output / "store")
        return
    with run.settings(report) as settings:
        outcomes = runs.apply_cohort(cases, job, existing=existing, settings=settings)
    report.warn_of_notes(notes_of(outcomes))
    warn_of_box(report, calibrator)
    failed = sum(outcome.failure is not None for outcome in outcomes)
    kept = len(cases) - len(outcomes)
    before = sum(outcome.state == "stored" for outcome in outcomes)
    error = QUANTISATION_ERROR[dtype]
    told = f"{dtype}, " + (f"within {error:.2g} of the map" if error else "as computed")
    numbers = {"made before": before, "kept as found": kept, "failed": failed}
    rows = [
        ("volumes", f"{len(outcomes) - failed} in {output}"),
        ("stored as", told),
        *([("masks", options.mask_told(threshold, asked))] if threshold is not None else []),
        *([("limits", band_told(calibrator))] if volumes.band else []),
        ("sizes", f"in {output / 'volumes.csv'}"),
        *((label, f"{number}") for label, number in numbers.items() if number),
    ]
    report.result(
        f"Calibrated by {model.name}",
        rows,
        output=str(output),
        written=len(outcomes) - failed - before,
        made_before=before,
        kept=kept,
        failed=failed,
        quantisation_error=error,
        threshold=threshold,
    )
    options.exit_by(failed, len(outcomes))


def _scores(inputs: list[Path]) -> list[Case]:
    """Return a case for every score that ``-i`` names."""
    from twintrack.cohort import Case, find_scores, read_manifest
    from twintrack.cohort.names import composed
    from twintrack.files import split_suffix

    cases: list[Case] = []
    for path in inputs:
        if path.is_dir():
            cases += [Case(name, score, ()) for name, score in find_scores(path).items()]
        elif path.suffix.lower() == ".csv":
            cases += read_manifest(path, use_raters=())
        elif path.is_file():
            cases.append(Case(composed(split_suffix(path.name)[0]), path, ()))
        else:
            raise FileNotFoundError(2, "no such file or folder", str(path))
    seen: dict[str, Path] = {}
    for case in cases:
        if case.name in seen:
            raise InputError(
                f"would be written to the same file as {seen[case.name]}; calibrate "
                "them into two folders",
                file=case.score,
            )
        seen[case.name] = case.score
    return cases
