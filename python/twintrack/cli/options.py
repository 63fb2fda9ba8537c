"""Options that several commands share, in nnU-Net's spelling where the meaning is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from twintrack.cli.reporting import Report
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.cohort import Case
    from twintrack.runs.evaluate import Evaluation


Region = Literal["roi", "box", "all"]

_FILES = "Files"

Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Name of the method in tables and figures. By default after the calibrator's target; "
        "Calibrated for scores that are so already.",
        show_default=False,
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


@dataclass(frozen=True)
class CohortFiles:
    """Where the files of a cohort are.

    Attributes
    ----------
    predictions
        Folder with the score of each case: nnU-Net's CASE.npz, or CASE.nii.gz; or a trained nnU-Net
        folder, for the validation of its numbered folds. May be repeated.
    raters
        Where raters' annotations are in the folder -i. {case} is the case's name, {k} or {k:02d}
        the rater's number, * any text.
    roi
        Where masks of the region are in the folder -i.
    ignore_header
        Voxels correspond even where the files' headers place them differently: compare shapes only.
    """

    panel: ClassVar[str] = _FILES

    predictions: Annotated[list[Path] | None, typer.Option("-p")] = None
    raters: str = "{case}/annotation_{k}.nii.gz"
    roi: str = "{case}/roi.nii.gz"
    tumour: Tumour = "1"
    ignore_header: bool = False

    @property
    def vessel_pattern(self) -> str | None:
        """Where vessel label maps are; None if they are not asked for."""
        return None

    def read(
        self,
        source: Path,
        only: list[str] | None = None,
        without: list[str] | None = None,
        left_out: Callable[[list[str]], object] | None = None,
    ) -> list[Case]:
        """Read the cohort that ``-i`` names, as far as ``--only`` and ``--without`` choose.

        `left_out` gets the names of predictions without annotations; without it they are an error.
        """
        from twintrack.cohort import read_folders, read_manifest
        from twintrack.cohort.case import choose_cases

        def select(names: list[str]) -> list[str]:
            return choose_cases(names, only or (), without or ())

        if source.is_dir():
            if not self.predictions:
                raise InputError(
                    "is a folder of annotations; -p must name that of the scores", file=source
                )
            return read_folders(
                source,
                self.predictions,
                self.raters,
                self.vessel_pattern,
                self.roi,
                select=select,
                left_out=left_out,
            )
        if self.predictions:
            raise InputError("is a manifest, which names the scores; leave out -p", file=source)
        cases = {case.name: case for case in read_manifest(source)}
        return [cases[name] for name in select(list(cases))]


@dataclass(frozen=True)
class Telling:
    """What a command tells.

    Attributes
    ----------
    quiet
        Errors alone.
    log_json
        Progress, results and errors as JSON, one object a line, on stderr.
    verbose
        Errors with their traceback.
    """

    panel: ClassVar[str] = "Telling"

    quiet: Annotated[bool, typer.Option("-q", "--quiet")] = False
    log_json: bool = False
    verbose: bool = False

    def report(self) -> Report:
        """Return what tells it."""
        return Report(self.quiet, self.log_json, self.verbose)


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
