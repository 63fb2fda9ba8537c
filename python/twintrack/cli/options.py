"""Options that several commands share, in nnU-Net's spelling where the meaning is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twintrack.cli.reporting import Report
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.cohort import Case
    from twintrack.runs.evaluate import Evaluation


class Region(str, Enum):
    """Which voxels count."""

    roi = "roi"
    box = "box"
    all = "all"


_FILES = "Files"
_TELL = "Telling"

Input = Annotated[
    Path,
    typer.Option(
        "-i",
        help="The cohort: a manifest (CSV with the columns case, score, rater_1, rater_2, …, and "
        "vessels and roi if there are any), or a folder with the annotations of each case, which "
        "needs -p.",
        show_default=False,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Name of the method in tables and figures. By default after the calibrator's target; "
        "Calibrated for scores that are so already.",
        show_default=False,
    ),
]
Predictions = Annotated[
    list[Path] | None,
    typer.Option(
        "-p",
        help="Folder with the score of each case: nnU-Net's CASE.npz, or CASE.nii.gz; or a trained "
        "nnU-Net folder, for the validation of its numbered folds. May be repeated.",
        show_default=False,
        rich_help_panel=_FILES,
    ),
]
RaterPattern = Annotated[
    str,
    typer.Option(
        "--raters",
        help="Where raters' annotations are in the folder -i. {case} is the case's name, {k} or "
        "{k:02d} the rater's number, * any text.",
        rich_help_panel=_FILES,
    ),
]
VesselPattern = Annotated[
    str,
    typer.Option(
        "--vessels", help="Where vessel label maps are in the folder -i.", rich_help_panel=_FILES
    ),
]
RoiPattern = Annotated[
    str,
    typer.Option(
        "--roi", help="Where masks of the region are in the folder -i.", rich_help_panel=_FILES
    ),
]
Tumour = Annotated[
    str,
    typer.Option(
        "--tumour",
        help="Classes of CASE.npz whose probabilities are added up, such as 1,4,5; of several "
        "regions the highest counts. Which they are is read from nnU-Net's dataset.json.",
        rich_help_panel=_FILES,
    ),
]
IgnoreHeader = Annotated[
    bool,
    typer.Option(
        "--ignore-header",
        help="Voxels correspond even where the files' headers place them differently: compare "
        "shapes only.",
        rich_help_panel=_FILES,
    ),
]
OUTPUT = "Output"


class StoredType(str, Enum):
    """How scores are stored."""

    float32 = "float32"
    uint16 = "uint16"
    uint8 = "uint8"


class Ending(str, Enum):
    """Format of volumes."""

    nii_gz = ".nii.gz"
    nii = ".nii"
    mha = ".mha"


# The choices are in the help: in the column of types they would leave no room for it.
Stored = Annotated[
    StoredType,
    typer.Option(
        "--dtype",
        help="How scores are stored: float32, or the scaled integers uint16 or uint8, which are "
        "smaller and round to the nearest of 65536 or 256 steps.",
        metavar="<str>",
        rich_help_panel=OUTPUT,
    ),
]
FileEnding = Annotated[
    Ending,
    typer.Option(
        "--file_ending",
        help="Format of the volumes: .nii.gz, .nii or .mha.",
        metavar="<str>",
        rich_help_panel=OUTPUT,
    ),
]
RATERS = "{case}/annotation_{k}.nii.gz"
VESSELS = "{case}/*vessel*.nii.gz"
ROI = "{case}/roi.nii.gz"


@dataclass(frozen=True)
class Telling:
    """What a command tells."""

    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Errors alone.", rich_help_panel=_TELL)
    ] = False
    log_json: Annotated[
        bool,
        typer.Option(
            "--log-json",
            help="Progress, results and errors as JSON, one object a line, on stderr.",
            rich_help_panel=_TELL,
        ),
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Errors with their traceback.", rich_help_panel=_TELL)
    ] = False

    def report(self) -> Report:
        """Return what tells it."""
        return Report(self.quiet, self.log_json, self.verbose)


def read_cohort(
    source: Path,
    predictions: list[Path] | None,
    raters: str,
    vessels: str | None,
    roi: str | None,
    *,
    only: list[str] | None = None,
    without: list[str] | None = None,
    left_out: Callable[[list[str]], object] | None = None,
) -> list[Case]:
    """Read the cohort that ``-i`` and ``-p`` name, as far as ``--only`` and ``--without`` choose.

    `left_out` gets the names of predictions without annotations; without it they are an error.
    """
    from twintrack.cohort import read_folders, read_manifest

    if source.is_dir():
        if not predictions:
            raise InputError(
                "is a folder of annotations; -p must name that of the scores", file=source
            )
        return read_folders(
            source,
            predictions,
            raters,
            vessels,
            roi,
            select=lambda names: _chosen(names, only, without),
            left_out=left_out,
        )
    if predictions:
        raise InputError("is a manifest, which names the scores; leave out -p", file=source)
    cases = {case.name: case for case in read_manifest(source)}
    return [cases[name] for name in _chosen(list(cases), only, without)]


def _chosen(names: list[str], only: list[str] | None, without: list[str] | None) -> list[str]:
    """Return the names that match a pattern of `only`, and none of `without`."""
    from fnmatch import fnmatchcase

    for option, patterns in (("--only", only), ("--without", without)):
        for pattern in patterns or ():
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(f"{option} {pattern!r} matches no case of the cohort")

    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return [
        name
        for name in names
        if (not only or matches(name, only)) and not matches(name, without or [])
    ]


def classes(text: str, option: str = "--tumour") -> tuple[int, ...]:
    """Read a list of classes such as "1,4,5"."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            "it must be numbers of classes: 1 or 1,4,5", argument=option, value=text
        ) from None


def lengths(text: str, option: str) -> tuple[float, float, float]:
    """Read three lengths such as "100,50,15"."""
    try:
        a, b, c = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            "it needs three lengths in mm: 100,50,15", argument=option, value=text
        ) from None
    return a, b, c


def write_evaluation(report: Report, found: Evaluation, output: Path, method: str) -> None:
    """Write a result folder and tell the means."""
    from twintrack.report.columns import describe

    found.write(output, method)
    if found.rows:
        report.table(
            f"{method}, {found.options['protocol']} protocol",
            ("", "mean", "cases"),
            [
                (describe(figure).heading.replace("_", " "), f"{mean:.6g}", f"{count}")
                for figure, (mean, count) in found.means().items()
            ],
            means={figure: mean for figure, (mean, _) in found.means().items()},
        )
    with_notes = sum(bool(notes) for notes in found.notes.values())
    report.result(
        "",
        [
            ("cases", f"{len(found.rows)}"),
            *([("with notes", f"{with_notes}")] if with_notes else []),
            *_fitted_on(found),
            *([("failed", f"{len(found.failures)}, see failures.csv")] if found.failures else []),
            ("written to", output),
        ],
        output=str(output),
        method=method,
        cases=len(found.rows),
        failed=len(found.failures),
    )


def _fitted_on(found: Evaluation) -> list[tuple[str, str]]:
    from twintrack.calibration.fitted_on import count

    if found.fitted_on is None:
        return [("map fitted on", "cases that its file does not name, perhaps these")]
    fitted = count(found.fitted_on)
    return [("map fitted on", f"{fitted} of the cases, see the notes")] if fitted else []


def exit_by(failed: int, cases: int) -> None:
    """End with the status that tells how many cases failed."""
    if failed:
        raise typer.Exit(2 if failed == cases else 1)
