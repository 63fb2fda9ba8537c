"""``twintrack prepare``: data sets as published, for nnU-Net and for fitting."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from twintrack.cli import options
from twintrack.cli.extras import require
from twintrack.cli.running import Sharing
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.nnunet.prepared import Prepared, PrepareJob


@dataclass(frozen=True)
class Panorama:
    """How nnU-Net's data sets are made.

    Attributes
    ----------
    labels
        Folder of CASE.nii.gz label maps. May be repeated; the first that has a case counts.
    coarse
        Number of the coarse data set.
    fine
        Number of the members' data set.
    coarse_spacing
        Voxel size in mm of the coarse data set.
    margins
        Margin in mm with which CTs are cropped to the pancreas: left-right, front-back, head-feet.
    """

    panel: ClassVar[str] = "PANORAMA"

    labels: Annotated[list[Path] | None, typer.Option("-l")] = None
    coarse: int = 103
    fine: Annotated[int, typer.Option("-d")] = 104
    coarse_spacing: Annotated[str, typer.Option("--coarse_spacing")] = "4.5,4.5,9"
    margins: str = "100,50,15"


@dataclass(frozen=True)
class Curvas:
    """What the manifest names.

    Attributes
    ----------
    predictions
        Folder in which twintrack predict puts, or will put, the scores.
    rater_count
        Raters that each case needs; by default the most that any case has.
    ending
        Format of the scores and regions, as given to twintrack predict.
    rois
        Name the regions of twintrack predict --save_roi in the manifest.
    """

    panel: ClassVar[str] = "CURVAS–PDACVI"

    predictions: Annotated[Path | None, typer.Option("-p")] = None
    rater_count: Annotated[int | None, typer.Option(min=1)] = None
    ending: Annotated[options.Ending, typer.Option("--file_ending")] = options.Ending.nii_gz
    rois: bool = False


def prepare(
    layout: Annotated[Literal["panorama", "curvas"], typer.Argument()],
    source: Annotated[Path, typer.Option("-i")],
    output: Annotated[Path | None, typer.Option("-o", "--output")] = None,
    *,
    data_sets: Panorama,
    manifest: Curvas,
    run: Sharing,
    telling: options.Telling,
) -> None:
    """Make nnU-Net's data sets of PANORAMA, or a cohort manifest of CURVAS–PDACVI.

    What is wrong with a file (corrupt, another grid, a faulty header, an empty rater, unknown
    labels) is listed; cases that cannot be used are left out. Cases that were made of, or looked at
    in, the same files before are not made or looked at again. The manifest is written when all its
    parts (-num_parts) are done.

    Parameters
    ----------
    layout
        panorama: images and labels to nnU-Net's data sets of the coarse and of the high-resolution
        network. curvas: CASE/image.nii.gz and CASE/annotation_1.nii.gz … to a cohort manifest.
    source
        Folder of the images, or of the cases in CURVAS layout.
    output
        panorama: nnUNet_raw, by default that of the environment. curvas: the manifest (CSV) to
        write.
    """
    from twintrack.files import check_file_place, check_folder_place
    from twintrack.nnunet import curvas, panorama

    report = telling.report()
    job: PrepareJob[Any]
    work: Callable[..., Prepared]
    if layout == "panorama":
        raw = output or environment_folder("nnUNet_raw", "-o")
        labels = data_sets.labels
        if not labels:
            raise InputError("-l is missing: the folder of PANORAMA's label maps")
        check_folder_place(raw)
        require("mha", "prepare panorama")
        job = panorama.PanoramaJob(
            raw,
            data_sets.coarse,
            data_sets.fine,
            options.lengths(data_sets.coarse_spacing, "--coarse_spacing"),
            options.lengths(data_sets.margins, "--margins"),
        )
        cases = panorama.find_panorama(source, labels)[0]
        work = functools.partial(panorama.prepare_panorama, source, labels, job)
    else:
        if output is None:
            raise InputError("-o is missing: the manifest (CSV) to write")
        if manifest.predictions is None:
            raise InputError("-p is missing: the folder that gets the scores")
        check_file_place(output)
        cases, needed = curvas.find_curvas(source, manifest.rater_count)
        job = curvas.CurvasJob(output, needed)
        work = functools.partial(
            curvas.prepare_curvas,
            source,
            output,
            manifest.predictions,
            raters=manifest.rater_count,
            ending=manifest.ending.value,
            rois=manifest.rois,
        )
    if run.dry_run:
        run.print_plan(report, run.part_of(cases), job, job.store)
        return
    with run.settings(report) as settings:
        made = work(part=run.part_of, settings=settings)
    for fault in made.faults:
        left_out = "" if fault.used else " (left out)"
        report.warn(f"{fault.case}: {Path(fault.file).name}: {fault.message}{left_out}")
    unused = len({fault.case for fault in made.faults if not fault.used})
    report.result(
        "Prepared",
        [
            ("cases", f"{len(made.cases)}" + (f" ({unused} left out)" if unused else "")),
            *([("made before", f"{made.kept}")] if made.kept else []),
            *([("left to other parts", f"{made.left}")] if made.left else []),
            ("faults", f"{len(made.faults)}"),
            *(("written", path) for path in made.outputs),
        ],
        cases=len(made.cases),
        made_before=made.kept,
        left=made.left,
        left_out=unused,
        faults=[fault.__dict__ for fault in made.faults],
        outputs=[str(path) for path in made.outputs],
    )
    if unused:
        raise typer.Exit(1)


def environment_folder(name: str, option: str) -> Path:
    """Return the folder that an environment variable of nnU-Net names, as `option` would."""
    value = os.environ.get(name)
    if not value:
        raise InputError(f"give {option}, or set nnU-Net's environment variable {name}")
    return Path(value)
