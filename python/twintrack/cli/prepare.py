"""``twintrack prepare``: data sets as published, for nnU-Net and for fitting."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twintrack.cli import options
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.nnunet.prepared import Prepared

_PANORAMA = "PANORAMA"
_CURVAS = "CURVAS–PDACVI"


class Layout(str, Enum):
    """Data sets that are understood."""

    panorama = "panorama"
    curvas = "curvas"


def prepare(
    layout: Annotated[
        Layout,
        typer.Argument(
            help="panorama: images and labels to nnU-Net's data sets of the coarse and of the "
            "high-resolution network. curvas: CASE/image.nii.gz and CASE/annotation_1.nii.gz … to "
            "a cohort manifest.",
            show_default=False,
        ),
    ],
    source: Annotated[
        Path,
        typer.Option(
            "-i", help="Folder of the images, or of the cases in CURVAS layout.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            help="panorama: nnUNet_raw, by default that of the environment. curvas: the manifest "
            "(CSV) to write.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "-l",
            help="Folder of CASE.nii.gz label maps. May be repeated; the first that has a case "
            "counts.",
            show_default=False,
            rich_help_panel=_PANORAMA,
        ),
    ] = None,
    coarse: Annotated[
        int,
        typer.Option("--coarse", help="Number of the coarse data set.", rich_help_panel=_PANORAMA),
    ] = 103,
    fine: Annotated[
        int,
        typer.Option("-d", help="Number of the members' data set.", rich_help_panel=_PANORAMA),
    ] = 104,
    coarse_spacing: Annotated[
        str,
        typer.Option(
            "--coarse_spacing",
            help="Voxel size in mm of the coarse data set.",
            rich_help_panel=_PANORAMA,
        ),
    ] = "4.5,4.5,9",
    margins: Annotated[
        str,
        typer.Option(
            "--margins",
            help="Margin in mm with which CTs are cropped to the pancreas: left-right, front-back, "
            "head-feet.",
            rich_help_panel=_PANORAMA,
        ),
    ] = "100,50,15",
    at_a_time: Annotated[
        int,
        typer.Option(
            "-np",
            min=1,
            help="Cases made at a time; a CT of 500 slices takes 2.6 GB of memory.",
            rich_help_panel=_PANORAMA,
        ),
    ] = 4,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "-p",
            help="Folder in which twintrack predict puts, or will put, the scores.",
            show_default=False,
            rich_help_panel=_CURVAS,
        ),
    ] = None,
    raters: Annotated[
        int | None,
        typer.Option(
            "--raters",
            min=1,
            help="Raters that each case needs; by default the most that any case has.",
            show_default=False,
            rich_help_panel=_CURVAS,
        ),
    ] = None,
    ending: Annotated[
        options.Ending,
        typer.Option(
            "--file_ending",
            help="Format of the scores and regions, as given to twintrack predict.",
            rich_help_panel=_CURVAS,
        ),
    ] = options.Ending.nii_gz,
    rois: Annotated[
        bool,
        typer.Option(
            "--roi",
            help="Name the regions of twintrack predict --save_roi in the manifest.",
            rich_help_panel=_CURVAS,
        ),
    ] = False,
    *,
    telling: options.Telling,
) -> None:
    """Make nnU-Net's data sets of PANORAMA, or a cohort manifest of CURVAS–PDACVI.

    What is wrong with a file (corrupt, another grid, a faulty header, an empty rater, unknown
    labels) is listed; cases that cannot be used are left out. Cases of PANORAMA that were made of
    the same files before are not made again.
    """
    from twintrack.files import check_file_place, check_folder_place
    from twintrack.nnunet.curvas import prepare_curvas
    from twintrack.nnunet.panorama import prepare_panorama
    from twintrack.runs.engine import Outcome

    report = telling.report()
    begun = False

    def progress(case: str, done: int, cases: int) -> None:  # noqa: ARG001
        nonlocal begun
        if not begun:
            report.progress.start("Preparing", cases, 0)
            begun = True
        report.progress.case(Outcome(case, "done", 0, 0.0))

    made: Prepared
    try:
        if layout is Layout.panorama:
            raw = output or environment_folder("nnUNet_raw", "-o")
            if not labels:
                raise InputError("-l is missing: the folder of PANORAMA's label maps")
            check_folder_place(raw)
            made = prepare_panorama(
                source,
                labels,
                raw,
                coarse=coarse,
                fine=fine,
                coarse_spacing=options.lengths(coarse_spacing, "--coarse_spacing"),
                margins=options.lengths(margins, "--margins"),
                at_a_time=at_a_time,
                progress=progress,
            )
        else:
            if output is None:
                raise InputError("-o is missing: the manifest (CSV) to write")
            if predictions is None:
                raise InputError("-p is missing: the folder that gets the scores")
            check_file_place(output)
            made = prepare_curvas(
                source,
                output,
                predictions,
                raters=raters,
                ending=ending.value,
                rois=rois,
                progress=progress,
            )
    finally:
        report.progress.stop()
    for fault in made.faults:
        left_out = "" if fault.used else " (left out)"
        report.warn(f"{fault.case}: {Path(fault.file).name}: {fault.message}{left_out}")
    unused = len({fault.case for fault in made.faults if not fault.used})
    report.result(
        "Prepared",
        [
            ("cases", f"{len(made.cases)}" + (f" ({unused} left out)" if unused else "")),
            *([("made before", f"{made.kept}")] if made.kept else []),
            ("faults", f"{len(made.faults)}"),
            *(("written", path) for path in made.outputs),
        ],
        cases=len(made.cases),
        made_before=made.kept,
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
