"""Options that several commands share, in nnU-Net's spelling where the meaning is the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

import typer

from twintrack.cli.reporting import Report
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.calibration.thresholds import Threshold
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
        help="Channels of the scores, from 0, whose probabilities are added up, such as 1,4,5; of "
        "several regions the highest counts. Which they are is read from nnU-Net's dataset.json.",
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
MaskThreshold = Annotated[
    str | None,
    typer.Option(
        "--threshold",
        help="The mask is 1 where the score is above: a number, or majority or dice, which the "
        "calibrator has from its cases (nearest to the majority of the raters; highest Dice with "
        "single raters on average). By default 0.5.",
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
    label
        Labels of the annotation files that are the tumour, such as 2 or 2,3; of Slicer's .seg.nrrd
        files names of segments, too. By default the files hold 0 and 1 alone.
    ignore_label
        Value of annotation files at voxels that the rater did not look at, such as 255: they count
        for the other raters alone.
    use_raters
        Numbers of the raters that count, such as 1,2,4: 1 is rater_1, or the first that --raters
        finds. By default all.
    group
        Where the names of cases have the patient: '{patient}_nodule-*', with {k} for a number and *
        for any text. For cohorts without a column patient; by default each case is a patient.
    only
        Take this case alone, or those that match a pattern such as 'A*'. May be repeated.
    without
        Leave out this case, or those that match a pattern. May be repeated.
    ignore_header
        Voxels correspond even where the files' headers place them differently: compare shapes only.
    """

    panel: ClassVar[str] = _FILES

    predictions: Annotated[list[Path] | None, typer.Option("-p")] = None
    raters: str = "{case}/annotation_{k}.nii.gz"
    roi: str = "{case}/roi.nii.gz"
    use_raters: str | None = None
    group: str | None = None
    only: list[str] | None = None
    without: list[str] | None = None
    tumour: Tumour = "1"
    label: str | None = None
    ignore_label: int | None = None
    ignore_header: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that are the tumour; none where annotations hold 0 and 1."""
        return tuple(text.strip() for text in self.label.split(",")) if self.label else ()

    @property
    def vessel_pattern(self) -> str | None:
        """Where vessel label maps are; None if they are not asked for."""
        return None

    @property
    def numbers_of_raters(self) -> tuple[int, ...] | None:
        """The raters that count, from 1 and in order; None for all."""
        if self.use_raters is None:
            return None
        return tuple(sorted(_numbers(self.use_raters, "--use-raters", "raters, from 1: 1,2,4")))

    def read(
        self, source: Path, left_out: Callable[[list[str]], object] | None = None
    ) -> list[Case]:
        """Read the cohort that ``-i`` names, as far as it is chosen.

        `left_out` gets the names of predictions without annotations; without it they are an error.
        """
        from twintrack.cohort import read_folders, read_manifest
        from twintrack.cohort.case import choose_cases

        def select(names: list[str]) -> list[str]:
            return choose_cases(names, self.only or (), self.without or ())

        check_exists(source)
        if not source.is_dir():
            check_manifest(source)
            if self.predictions:
                raise InputError("is a manifest, which names the scores; leave out -p", file=source)
            return read_manifest(
                source, select=select, use_raters=self.numbers_of_raters, group=self.group
            )
        if not self.predictions:
            raise InputError(
                "is a folder of annotations; -p must name that of the scores", file=source
            )
        if re.fullmatch(r"[\d, ]+", self.raters):
            raise InputError(
                "it is a pattern of files, such as {case}/annotation_{k}.nii.gz; --use-raters "
                "chooses raters by number",
                argument="--raters",
                value=self.raters,
            )
        for folder in self.predictions:
            check_exists(folder)
            if not folder.is_dir():
                raise InputError("is no folder; -p names folders of scores", file=folder)
        return read_folders(
            source,
            self.predictions,
            self.raters,
            self.vessel_pattern,
            self.roi,
            select=select,
            left_out=left_out,
            use_raters=self.numbers_of_raters,
            group=self.group,
        )


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


def check_exists(path: Path) -> None:
    """Raise FileNotFoundError if an input is not there."""
    if not path.exists():
        raise FileNotFoundError(2, "No such file or folder", str(path))


def check_manifest(path: Path) -> None:
    """Raise if a file is no manifest but what another option wants."""
    from twintrack.files import split_suffix

    if split_suffix(path.name)[1]:
        raise InputError(
            "is a volume; -i names a cohort: a manifest (CSV), or a folder of annotations with -p "
            "for the folder of scores",
            file=path,
        )
    if _is_json(path):
        raise InputError(
            "is JSON, as calibrators are; -i names a cohort, such as a manifest (CSV). A "
            "calibrator goes to -m of apply, evaluate and predict",
            file=path,
        )


def check_calibrator(path: Path) -> None:
    """Raise if what ``-m`` names is no calibrator but what another option wants."""
    if path.is_dir() or not _is_json(path):
        raise InputError(
            "is no calibrator, which is a JSON file that fit -o writes; -m names the calibrator, "
            "-i the cohort or the scores",
            file=path,
        )


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] in (b"{", b"[")


def threshold(text: str | None) -> Threshold:
    """Return what --threshold asks for, as `Calibrator.threshold` takes it; 0.5 by default."""
    if text is None:
        return 0.5
    try:
        return cast("Threshold", text) if text in ("majority", "dice") else float(text)
    except ValueError:
        raise InputError(
            "it must be majority, dice or a number", argument="--threshold", value=text
        ) from None


def mask_told(number: float, asked: Threshold) -> str:
    """Return what a mask is, for people."""
    return f"score > {number:g}" + (f" ({asked})" if isinstance(asked, str) else "")


def classes(text: str, option: str = "--tumour") -> tuple[int, ...]:
    """Read a list of classes such as "1,4,5"."""
    return _numbers(text, option, "classes: 1 or 1,4,5")


def _numbers(text: str, option: str, meant: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"it must be numbers of {meant}", argument=option, value=text) from None


def lengths(text: str, option: str) -> tuple[float, float, float]:
    """Read three lengths such as "100,50,15"."""
    try:
        a, b, c = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            "it needs three lengths in mm: 100,50,15", argument=option, value=text
        ) from None
    return a, b, c


def warn_of_missing_raters(report: Report, cohort: Sequence[Case]) -> None:
    """Tell which raters some cases do not have: a file with another name looks the same."""
    from twintrack.cohort.case import missing_raters

    for number, without in missing_raters(cohort).items():
        have = [case for case in cohort if number in case.annotations]
        if len(have) < len(without):
            named = ", ".join(f"{case.name}: {case.annotations[number].name}" for case in have[:3])
            told = f"is in {len(have)} of {len(cohort)} cases alone"
        else:
            named = ", ".join(without[:3]) + ", …" * (len(without) > 3)
            told = f"is missing in {len(without)} of {len(cohort)} cases"
        report.warn(
            f"rater {number + 1} {told}{f' ({named})' if named else ''}; the response of a voxel "
            "is that of the raters who looked"
        )


def write_evaluation(report: Report, found: Evaluation, output: Path, method: str) -> None:
    """Write a result folder and tell the means."""
    from twintrack.report.columns import describe
    from twintrack.runs.volume_figures import volumes_held

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
    held = volumes_held(found.rows.values())
    with_notes = sum(bool(notes) for notes in found.notes.values())
    report.result(
        "",
        [
            ("cases", f"{len(found.rows)}"),
            *([("with notes", f"{with_notes}")] if with_notes else []),
            *_fitted_on(found),
            *([("volumes in interval", f"{held['held']} of {held['cases']}")] if held else []),
            *([("failed", f"{len(found.failures)}, see failures.csv")] if found.failures else []),
            ("written to", output),
        ],
        output=str(output),
        method=method,
        cases=len(found.rows),
        failed=len(found.failures),
        volumes_held=held,
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
