"""``twintrack predict``: calibrated scores of CTs by an ensemble of nnU-Nets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twintrack.cli import options
from twintrack.cli.running import Part, Parts, part_of
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.nnunet.folder import Done

_NETWORKS = "Networks"
_REGION = "Region of interest"
_OUTPUT = options.OUTPUT


def predict(
    source: Annotated[
        Path,
        typer.Option(
            "-i",
            help="Folder of CTs: CASE_0000.nii.gz as nnU-Net names them, CASE.nii.gz, CASE.mha, or "
            "CASE/image.nii.gz. Or a single file.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            help="Folder that gets CASE.nii.gz (the score) and masks/CASE.nii.gz.",
            show_default=False,
        ),
    ],
    members: Annotated[
        list[Path],
        typer.Option(
            "--members",
            help="Trained nnU-Net folder (TRAINER__PLANS__CONFIGURATION). May be repeated; every "
            "fold of every folder is a member of the ensemble.",
            show_default=False,
        ),
    ],
    coarse: Annotated[
        Path | None,
        typer.Option(
            "--coarse",
            help="Trained nnU-Net folder that finds the organ; without it the members see the "
            "whole volume.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            help="Calibrator file of twintrack fit; without it the score is the ensemble's own.",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            help="Folds of the members, such as 0,1,2 or all. By default every fold that is there.",
            show_default=False,
            rich_help_panel=_NETWORKS,
        ),
    ] = None,
    coarse_folds: Annotated[
        list[str] | None,
        typer.Option(
            "--coarse_folds",
            help="Folds of the coarse model, averaged. By default every fold that is there.",
            show_default=False,
            rich_help_panel=_NETWORKS,
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option("-chk", help="File of the weights in each fold.", rich_help_panel=_NETWORKS),
    ] = "checkpoint_final.pth",
    coarse_checkpoint: Annotated[
        str | None,
        typer.Option(
            "--coarse_chk",
            help="The same for the coarse model; by default as -chk.",
            show_default=False,
            rich_help_panel=_NETWORKS,
        ),
    ] = None,
    tumour: Annotated[
        str | None,
        typer.Option(
            "--tumour",
            help="Numbers of the classes that are tumour, such as 1,4,5: their probabilities are "
            "added up. 1 is the first after the background, and the default. Of networks trained "
            "with regions the numbers of regions, from 0 in the order of dataset.json; it must "
            "then be given, and the highest probability counts.",
            show_default=False,
            rich_help_panel=_NETWORKS,
        ),
    ] = None,
    average: Annotated[
        str,
        typer.Option(
            "--average",
            help="Mean over the members: of probabilities, or of logits.",
            rich_help_panel=_NETWORKS,
        ),
    ] = "probabilities",
    device: Annotated[
        str,
        typer.Option(
            "-device",
            help="cuda, cuda:1, mps or cpu; auto takes a GPU if there is one.",
            rich_help_panel=_NETWORKS,
        ),
    ] = "auto",
    step: Annotated[
        float,
        typer.Option(
            "-step_size",
            help="Step of the sliding window, in patches.",
            rich_help_panel=_NETWORKS,
        ),
    ] = 0.5,
    no_mirroring: Annotated[
        bool,
        typer.Option(
            "--disable_tta",
            help="No averaging over mirrored images: faster, less accurate.",
            rich_help_panel=_NETWORKS,
        ),
    ] = False,
    off_device: Annotated[
        bool,
        typer.Option(
            "--not_on_device",
            help="Add up predictions on the CPU: less GPU memory.",
            rich_help_panel=_NETWORKS,
        ),
    ] = False,
    margins: Annotated[
        str,
        typer.Option(
            "--margins",
            help="Margin around the organ in mm: left-right, front-back, head-feet.",
            rich_help_panel=_REGION,
        ),
    ] = "100,50,15",
    components: Annotated[
        str,
        typer.Option(
            "--components",
            help="Connected parts that are the organ: all, or the largest.",
            rich_help_panel=_REGION,
        ),
    ] = "all",
    minimum_volume: Annotated[
        float,
        typer.Option(
            "--minimum_volume",
            help="Smaller parts (ml) are no organ.",
            rich_help_panel=_REGION,
        ),
    ] = 1.0,
    dilation: Annotated[
        float | None,
        typer.Option(
            "--dilation",
            help="Score 0 wherever the organ is farther than this (mm).",
            show_default=False,
            rich_help_panel=_REGION,
        ),
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            "--missing",
            help="Where no organ is found: take the whole volume, or error.",
            rich_help_panel=_REGION,
        ),
    ] = "whole",
    coarse_spacing: Annotated[
        str,
        typer.Option(
            "--coarse_spacing",
            help="Voxel size in mm to which the CT is resampled for the coarse model; none leaves "
            "it to nnU-Net.",
            rich_help_panel=_REGION,
        ),
    ] = "4.5,4.5,9",
    organ: Annotated[
        str | None,
        typer.Option(
            "--organ",
            help="Labels of the coarse model that are the organ; by default all.",
            show_default=False,
            rich_help_panel=_REGION,
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            "--within",
            help="Classes of the members that are the organ, such as 1,4,5 (PANORAMA's baseline), "
            "or regions, numbered as for --tumour: score 0 farther than 2 voxels from it.",
            show_default=False,
            rich_help_panel=_REGION,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", help="The mask is 1 where the score is above.", rich_help_panel=_OUTPUT
        ),
    ] = 0.5,
    dtype: options.Stored = options.StoredType.float32,
    ending: options.FileEnding = options.Ending.nii_gz,
    save_roi: Annotated[
        bool | None,
        typer.Option(
            "--save_roi/--no_save_roi",
            help="Write the region of interest as rois/CASE.nii.gz, which twintrack fit, apply and "
            "evaluate use. By default with --coarse or --within.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--continue_prediction",
            "--c",
            help="Keep what is there, of images that have not changed, and go on; else it is made "
            "again.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    parts: Parts = 1,
    part: Part = 0,
    *,
    telling: options.Telling,
) -> None:
    """Run an ensemble of nnU-Nets over CTs and write its calibrated score, with the CT's geometry.

    The next case is read and preprocessed while the networks run on the current one, and the last
    one is written meanwhile. Each file appears when it is whole.
    """
    from twintrack.files import check_folder_place
    from twintrack.nnunet import Pipeline, RoiRule
    from twintrack.nnunet.folder import Outputs, find_images, predict_folder
    from twintrack.runs.engine import Outcome
    from twintrack.runs.failures import explain

    report = telling.report()
    check_folder_place(output)
    narrow = coarse is not None or within is not None
    rois = narrow if save_roi is None else save_roi
    outputs = Outputs(output, ending.value, dtype.value, rois)
    rule = RoiRule(
        margins=options.lengths(margins, "--margins"),
        components=components,  # type: ignore[arg-type]
        minimum_volume=minimum_volume,
        dilation=dilation,
        missing=missing,  # type: ignore[arg-type]
    )
    spacing = (
        None if coarse_spacing == "none" else options.lengths(coarse_spacing, "--coarse_spacing")
    )
    if not source.exists():
        raise FileNotFoundError(2, "no such file or folder", str(source))
    if source.resolve() == output.resolve():
        raise InputError(f"-o is the folder of the images, {output}; choose another")
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
        roi=rule,
        coarse_spacing=spacing,
        organ=None if organ is None else options.classes(organ, "--organ"),
        within=None if within is None else options.classes(within, "--within"),
        step=step,
        mirroring=not no_mirroring,
        on_device=not off_device,
    )
    cases = find_images(source, pipeline.channels)
    cases = {name: cases[name] for name in part_of(list(cases), parts, part)}
    output.mkdir(parents=True, exist_ok=True)

    def size(files: tuple[Path, ...]) -> int:
        return sum(file.stat().st_size for file in files if file.exists())

    def tell(done: Done) -> None:
        failure = None
        if done.error is not None:
            error = done.error
            if isinstance(error, MemoryError) and str(error):
                error = InputError(str(error))  # what helps is not what helps other commands
            roles = {f"image_{channel}": file for channel, file in enumerate(done.files)}
            failure = explain(done.case, "compute", roles, error)
        report.progress.case(
            Outcome(
                case=done.case,
                state="failed" if failure else "stored" if done.kept else "done",
                nbytes=size(done.files),
                seconds=done.seconds,
                voxels=done.voxels,
                failure=failure,
            )
        )
        for note in done.notes:
            report.warn(note)

    report.progress.start("Predicting", len(cases), sum(size(files) for files in cases.values()))
    try:
        done = predict_folder(
            pipeline,
            cases,
            outputs,
            keep=keep,
            report=tell,
            tell=lambda case, stage: report.progress.stage(f"{case}: {stage}"),
        )
    finally:
        report.progress.stop()
    failed = sum(one.error is not None for one in done)
    kept = sum(one.kept for one in done)
    rows = [
        ("volumes", f"{len(done) - failed} in {output}"),
        ("ensemble", f"{pipeline.size} members, mean of {average}, on {pipeline.device}"),
        ("tumour", pipeline.tumour_names),
        ("calibrated by", model.name if model else "nothing: the ensemble's own score"),
        ("mask", f"score > {threshold:g}"),
    ]
    for number, label in ((kept, "kept as found"), (failed, "failed")):
        if number:
            rows.append((label, f"{number}"))
    report.result(
        "Predicted",
        rows,
        output=str(output),
        written=len(done) - failed - kept,
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
