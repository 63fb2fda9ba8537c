"""``twintrack predict``: calibrated scores of CTs by an ensemble of nnU-Nets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from twintrack.cli import options
from twintrack.cli.extras import require, require_for
from twintrack.cli.running import Sharing
from twintrack.errors import InputError


@dataclass(frozen=True)
class Ensemble:
    """Which networks, and how they run.

    Attributes
    ----------
    folds
        Folds of the members, such as 0,1,2 or all. By default every fold that is there.
    coarse_folds
        Folds of the coarse model, averaged. By default every fold that is there.
    checkpoint
        File of the weights in each fold.
    coarse_checkpoint
        The same for the coarse model; by default as -chk.
    tumour
        Numbers of the classes that are tumour, such as 1,4,5: their probabilities are added up. 1
        is the first after the background, and the default. Of networks trained with regions the
        numbers of regions, from 0 in the order of dataset.json; it must then be given, and the
        highest probability counts.
    average
        Mean over the members: of probabilities, or of logits.
    device
        cuda, cuda:1, mps or cpu; auto takes a GPU if there is one.
    step
        Step of the sliding window, in patches.
    no_mirroring
        No averaging over mirrored images: faster, less accurate.
    off_device
        Add up predictions on the CPU: less GPU memory.
    """

    panel: ClassVar[str] = "Networks"

    folds: Annotated[list[str] | None, typer.Option("-f")] = None
    coarse_folds: Annotated[list[str] | None, typer.Option("--coarse_folds")] = None
    checkpoint: Annotated[str, typer.Option("-chk")] = "checkpoint_final.pth"
    coarse_checkpoint: Annotated[str | None, typer.Option("--coarse_chk")] = None
    tumour: str | None = None
    average: str = "probabilities"
    device: Annotated[str, typer.Option("-device")] = "auto"
    step: Annotated[float, typer.Option("-step_size")] = 0.5
    no_mirroring: Annotated[bool, typer.Option("--disable_tta")] = False
    off_device: Annotated[bool, typer.Option("--not_on_device")] = False

    def settings(self) -> dict[str, Any]:
        """Return them as `Pipeline` takes them."""
        return {
            "folds": _folds(self.folds, "-f"),
            "coarse_folds": _folds(self.coarse_folds, "--coarse_folds"),
            "checkpoint": self.checkpoint,
            "coarse_checkpoint": self.coarse_checkpoint,
            "tumour": None if self.tumour is None else options.classes(self.tumour),
            "average": self.average,
            "device": self.device,
            "step": self.step,
            "mirroring": not self.no_mirroring,
            "on_device": not self.off_device,
        }


@dataclass(frozen=True)
class RegionOfInterest:
    """Where the members are asked.

    Attributes
    ----------
    margins
        Margin around the organ in mm: left-right, front-back, head-feet.
    components
        Connected parts that are the organ: all, or the largest.
    minimum_volume
        Smaller parts (ml) are no organ.
    dilation
        Score 0 wherever the organ is farther than this (mm).
    missing
        Where no organ is found: take the whole volume, or error.
    coarse_spacing
        Voxel size in mm to which the CT is resampled for the coarse model; none leaves it to
        nnU-Net.
    organ
        Labels of the coarse model that are the organ; by default all.
    within
        Classes of the members that are the organ, such as 1,4,5 (PANORAMA's baseline), or regions,
        numbered as for --tumour: score 0 farther than 2 voxels from it.
    """

    panel: ClassVar[str] = "Region of interest"

    margins: str = "100,50,15"
    components: str = "all"
    minimum_volume: Annotated[float, typer.Option("--minimum_volume")] = 1.0
    dilation: float | None = None
    missing: str = "whole"
    coarse_spacing: Annotated[str, typer.Option("--coarse_spacing")] = "4.5,4.5,9"
    organ: str | None = None
    within: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return them as `Pipeline` takes them."""
        from twintrack.nnunet import RoiRule

        spacing = self.coarse_spacing
        return {
            "roi": RoiRule(
                margins=options.lengths(self.margins, "--margins"),
                components=self.components,  # type: ignore[arg-type]
                minimum_volume=self.minimum_volume,
                dilation=self.dilation,
                missing=self.missing,  # type: ignore[arg-type]
            ),
            "coarse_spacing": (
                None if spacing == "none" else options.lengths(spacing, "--coarse_spacing")
            ),
            "organ": None if self.organ is None else options.classes(self.organ, "--organ"),
            "within": None if self.within is None else options.classes(self.within, "--within"),
        }


@dataclass(frozen=True)
class Output:
    """What is written.

    Attributes
    ----------
    save_roi
        Write the region of interest as rois/CASE.nii.gz, which twintrack fit, apply and evaluate
        use. By default with --coarse or --within.
    keep
        Keep what is there, of images that have not changed, and go on; else it is made again.
    """

    panel: ClassVar[str] = options.OUTPUT

    threshold: options.MaskThreshold = None
    dtype: options.Stored = options.StoredType.float32
    ending: options.FileEnding = options.Ending.nii_gz
    save_roi: Annotated[bool | None, typer.Option("--save_roi/--no_save_roi")] = None
    keep: Annotated[bool, typer.Option("--continue_prediction", "--c")] = False


def predict(
    source: Annotated[Path, typer.Option("-i")],
    output: Annotated[Path, typer.Option("-o", "--output")],
    members: list[Path],
    coarse: Path | None = None,
    model: Annotated[Path | None, typer.Option("-m")] = None,
    *,
    ensemble: Ensemble,
    region: RegionOfInterest,
    written: Output,
    run: Sharing,
    telling: options.Telling,
) -> None:
    """Run an ensemble of nnU-Nets over CTs and write its calibrated score, with the CT's geometry.

    The next case is read and preprocessed while the networks run on the current one, and the last
    one is written meanwhile. Each file appears when it is whole. With --workers or --scheduler
    every process loads the networks once.

    Parameters
    ----------
    source
        Folder of CTs, NIfTI, MetaImage or NRRD: CASE_0000.nii.gz as nnU-Net names them,
        CASE.nii.gz, or CASE/image.nii.gz. Or a single file.
    output
        Folder that gets CASE.nii.gz (the score) and masks/CASE.nii.gz.
    members
        Trained nnU-Net folder (TRAINER__PLANS__CONFIGURATION). May be repeated; every fold of every
        folder is a member of the ensemble.
    coarse
        Trained nnU-Net folder that finds the organ; without it the members see the whole volume.
    model
        Calibrator file of twintrack fit; without it the score is the ensemble's own.
    """
    from twintrack.files import check_folder_place
    from twintrack.nnunet import Pipeline
    from twintrack.nnunet.image_cases import find_images
    from twintrack.nnunet.predict_job import PredictJob, check_folder, predict_cohort
    from twintrack.runs.engine import notes_of

    report = telling.report()
    check_folder_place(output)
    if not source.exists():
        raise FileNotFoundError(2, "no such file or folder", str(source))
    if source.resolve() == output.resolve():
        raise InputError(f"-o is the folder of the images, {output}; choose another")
    threshold = options.threshold(written.threshold)
    if model is not None:
        options.check_calibrator(model)
    require_for([written.ending.value])
    if not run.dry_run and run.scheduler is None:
        require("nnunet", "predict")
    pipeline = Pipeline(
        members,
        coarse,
        model,
        threshold=threshold,
        load=not run.dry_run and not run.on_cluster,
        **ensemble.settings(),
        **region.settings(),
    )
    narrow = coarse is not None or region.within is not None
    job = PredictJob(
        pipeline,
        output,
        written.ending.value,
        written.dtype.value,
        rois=narrow if written.save_roi is None else written.save_roi,
        tell=report.progress.stage,
    )
    cohort = find_images(source, pipeline.channels)
    require_for(file for case in cohort for file in case.images)
    cases = run.part_of(cohort)
    if run.dry_run:
        keep = check_folder(cases, job, keep=written.keep)
        run.print_plan(report, cases, job, output / "store", again=not keep)
        return
    with run.settings(report) as settings:
        outcomes = predict_cohort(cases, job, keep=written.keep, cohort=cohort, settings=settings)
    for case, notes in notes_of(one for one in outcomes if one.state == "done").items():
        for note in notes:
            report.warn(f"{case}: {note}")
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    kept = sum(outcome.state == "stored" for outcome in outcomes)
    place = "the workers" if run.on_cluster else pipeline.device
    rows = [
        ("volumes", f"{len(outcomes) - failed} in {output}"),
        ("ensemble", f"{pipeline.size} members, mean of {pipeline.average}, on {place}"),
        ("tumour", pipeline.tumour_names),
        ("calibrated by", model.name if model else "nothing: the ensemble's own score"),
        ("mask", options.mask_told(pipeline.threshold, threshold)),
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
        threshold=pipeline.threshold,
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
