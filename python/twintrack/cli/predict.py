"""``twintrack predict``: calibrated scores of CTs by an ensemble of nnU-Nets."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Annotated

import typer

from twintrack.cli import options
from twintrack.cli.running import Sharing
from twintrack.errors import InputError

_network = functools.partial(typer.Option, rich_help_panel="Networks")
_region = functools.partial(typer.Option, rich_help_panel="Region of interest")
_output = functools.partial(typer.Option, rich_help_panel=options.OUTPUT)


def predict(
    source: Annotated[
        Path,
        typer.Option(
            "-i",
            help="Folder of CTs: CASE_0000.nii.gz as nnU-Net names them, CASE.nii.gz, CASE.mha, or "
            "CASE/image.nii.gz. Or a single file.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            help="Folder that gets CASE.nii.gz (the score) and masks/CASE.nii.gz.",
        ),
    ],
    members: Annotated[
        list[Path],
        typer.Option(
            "--members",
            help="Trained nnU-Net folder (TRAINER__PLANS__CONFIGURATION). May be repeated; every "
            "fold of every folder is a member of the ensemble.",
        ),
    ],
    coarse: Annotated[
        Path | None,
        typer.Option(
            "--coarse",
            help="Trained nnU-Net folder that finds the organ; without it the members see the "
            "whole volume.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            help="Calibrator file of twintrack fit; without it the score is the ensemble's own.",
        ),
    ] = None,
    folds: Annotated[
        list[str] | None,
        _network(
            "-f",
            help="Folds of the members, such as 0,1,2 or all. By default every fold that is there.",
        ),
    ] = None,
    coarse_folds: Annotated[
        list[str] | None,
        _network(
            "--coarse_folds",
            help="Folds of the coarse model, averaged. By default every fold that is there.",
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        _network("-chk", help="File of the weights in each fold."),
    ] = "checkpoint_final.pth",
    coarse_checkpoint: Annotated[
        str | None,
        _network("--coarse_chk", help="The same for the coarse model; by default as -chk."),
    ] = None,
    tumour: Annotated[
        str | None,
        _network(
            "--tumour",
            help="Numbers of the classes that are tumour, such as 1,4,5: their probabilities are "
            "added up. 1 is the first after the background, and the default. Of networks trained "
            "with regions the numbers of regions, from 0 in the order of dataset.json; it must "
            "then be given, and the highest probability counts.",
        ),
    ] = None,
    average: Annotated[
        str,
        _network("--average", help="Mean over the members: of probabilities, or of logits."),
    ] = "probabilities",
    device: Annotated[
        str,
        _network("-device", help="cuda, cuda:1, mps or cpu; auto takes a GPU if there is one."),
    ] = "auto",
    step: Annotated[
        float,
        _network("-step_size", help="Step of the sliding window, in patches."),
    ] = 0.5,
    no_mirroring: Annotated[
        bool,
        _network("--disable_tta", help="No averaging over mirrored images: faster, less accurate."),
    ] = False,
    off_device: Annotated[
        bool,
        _network("--not_on_device", help="Add up predictions on the CPU: less GPU memory."),
    ] = False,
    margins: Annotated[
        str,
        _region(
            "--margins", help="Margin around the organ in mm: left-right, front-back, head-feet."
        ),
    ] = "100,50,15",
    components: Annotated[
        str,
        _region("--components", help="Connected parts that are the organ: all, or the largest."),
    ] = "all",
    minimum_volume: Annotated[
        float,
        _region("--minimum_volume", help="Smaller parts (ml) are no organ."),
    ] = 1.0,
    dilation: Annotated[
        float | None,
        _region("--dilation", help="Score 0 wherever the organ is farther than this (mm)."),
    ] = None,
    missing: Annotated[
        str,
        _region("--missing", help="Where no organ is found: take the whole volume, or error."),
    ] = "whole",
    coarse_spacing: Annotated[
        str,
        _region(
            "--coarse_spacing",
            help="Voxel size in mm to which the CT is resampled for the coarse model; none leaves "
            "it to nnU-Net.",
        ),
    ] = "4.5,4.5,9",
    organ: Annotated[
        str | None,
        _region("--organ", help="Labels of the coarse model that are the organ; by default all."),
    ] = None,
    within: Annotated[
        str | None,
        _region(
            "--within",
            help="Classes of the members that are the organ, such as 1,4,5 (PANORAMA's baseline), "
            "or regions, numbered as for --tumour: score 0 farther than 2 voxels from it.",
        ),
    ] = None,
    threshold: Annotated[
        float,
        _output("--threshold", help="The mask is 1 where the score is above."),
    ] = 0.5,
    dtype: options.Stored = options.StoredType.float32,
    ending: options.FileEnding = options.Ending.nii_gz,
    save_roi: Annotated[
        bool | None,
        _output(
            "--save_roi/--no_save_roi",
            help="Write the region of interest as rois/CASE.nii.gz, which twintrack fit, apply and "
            "evaluate use. By default with --coarse or --within.",
        ),
    ] = None,
    keep: Annotated[
        bool,
        _output(
            "--continue_prediction",
            "--c",
            help="Keep what is there, of images that have not changed, and go on; else it is made "
            "again.",
        ),
    ] = False,
    *,
    run: Sharing,
    telling: options.Telling,
) -> None:
    """Run an ensemble of nnU-Nets over CTs and write its calibrated score, with the CT's geometry.

    The next case is read and preprocessed while the networks run on the current one, and the last
    one is written meanwhile. Each file appears when it is whole. With --workers or --scheduler
    every process loads the networks once.
    """
    from twintrack.files import check_folder_place
    from twintrack.nnunet import Pipeline, RoiRule
    from twintrack.nnunet.image_cases import find_images
    from twintrack.nnunet.predict_job import PredictJob, check_folder, predict_cohort
    from twintrack.runs.engine import notes_of

    report = telling.report()
    check_folder_place(output)
    if not source.exists():
        raise FileNotFoundError(2, "no such file or folder", str(source))
    if source.resolve() == output.resolve():
        raise InputError(f"-o is the folder of the images, {output}; choose another")
    spacing = (
        options.lengths(coarse_spacing, "--coarse_spacing") if coarse_spacing != "none" else None
    )
    pipeline = Pipeline(
        members,
        coarse,
        model,
        device=device,
        tumour=None if tumour is None else options.classes(tumour),
        average=average,  # type: ignore[arg-type]
        folds=_folds(folds, "-f"),
        coarse_folds=_folds(coarse_folds, "--coarse_folds"),
        checkpoint=checkpoint,
        coarse_checkpoint=coarse_checkpoint,
        threshold=threshold,
        roi=RoiRule(
            margins=options.lengths(margins, "--margins"),
            components=components,  # type: ignore[arg-type]
            minimum_volume=minimum_volume,
            dilation=dilation,
            missing=missing,  # type: ignore[arg-type]
        ),
        coarse_spacing=spacing,
        organ=None if organ is None else options.classes(organ, "--organ"),
        within=None if within is None else options.classes(within, "--within"),
        step=step,
        mirroring=not no_mirroring,
        on_device=not off_device,
        load=not run.dry_run and not run.on_cluster,
    )
    narrow = coarse is not None or within is not None
    rois = narrow if save_roi is None else save_roi
    job = PredictJob(pipeline, output, ending.value, dtype.value, rois, tell=report.progress.stage)
    cohort = find_images(source, pipeline.channels)
    cases = run.part_of(cohort)
    if run.dry_run:
        keep = check_folder(cases, job, keep=keep)
        run.print_plan(report, cases, job, output / "store", again=not keep)
        return
    with run.settings(report) as settings:
        outcomes = predict_cohort(cases, job, keep=keep, cohort=cohort, settings=settings)
    for case, notes in notes_of(one for one in outcomes if one.state == "done").items():
        for note in notes:
            report.warn(f"{case}: {note}")
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    kept = sum(outcome.state == "stored" for outcome in outcomes)
    place = "the workers" if run.on_cluster else pipeline.device
    rows = [
        ("volumes", f"{len(outcomes) - failed} in {output}"),
        ("ensemble", f"{pipeline.size} members, mean of {average}, on {place}"),
        ("tumour", pipeline.tumour_names),
        ("calibrated by", model.name if model else "nothing: the ensemble's own score"),
        ("mask", f"score > {threshold:g}"),
        *((label, f"{n}") for n, label in ((kept, "kept as found"), (failed, "failed")) if n),
    ]
    report.result(
        "Predicted",
        rows,
        output=str(output),
        written=len(outcomes) - failed - kept,
        kept=kept,
        failed=failed,
        ensemble=pipeline.ensemble,
        tumour_names=pipeline.tumour_names,
    )
    if failed:
        raise typer.Exit(1)


def _folds(given: list[str] | None, option: str) -> tuple[int | str, ...] | None:
    if not given:
        return None
    parts = [part for text in given for part in re.split(r"[,\s]+", text) if part]
    for part in parts:
        if part != "all" and not part.isdigit():
            raise InputError("folds are numbers or all", argument=option, value=part)
    return tuple(part if part == "all" else int(part) for part in parts)
