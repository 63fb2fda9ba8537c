"""``twintrack phantom``: a synthetic cohort, so that every command can be tried."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from twintrack.cli import options
from twintrack.errors import InputError


@dataclass(frozen=True)
class Patients:
    """The patients and their raters.

    Attributes
    ----------
    shape
        Voxels along x, y, z.
    rater_count
        Raters of each case.
    disagreement
        Standard deviation in mm by which a rater's outline departs from the true one.
    """

    panel: ClassVar[str] = "Patients"

    shape: str = "128,128,64"
    rater_count: Annotated[int, typer.Option(min=1)] = 5
    disagreement: Annotated[float, typer.Option(min=0)] = 2.0


@dataclass(frozen=True)
class Network:
    """The imagined network.

    Attributes
    ----------
    score_bias
        Millimetres by which the network over-segments.
    score_sharpness
        Above 1 the score is over-confident, below 1 under-confident.
    form
        Scores as NIfTI, or npz as nnUNetv2_predict --save_probabilities leaves them.
    """

    panel: ClassVar[str] = "Imagined network"

    score_bias: float = 2.0
    score_sharpness: float = 3.0
    form: Annotated[Literal["nifti", "npz"], typer.Option("--format")] = "nifti"


def phantom(
    output: Annotated[Path, typer.Option("-o", "--output")],
    cases: Annotated[int, typer.Option(min=1)] = 8,
    first: Annotated[int, typer.Option(min=0)] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    *,
    patients: Patients,
    network: Network,
    context: typer.Context,
    telling: options.Telling,
) -> None:
    """Write a synthetic cohort: CTs with a tumour and five vessels, raters who differ, a score.

    The folder is laid out as CURVAS–PDACVI is, with the score of an imagined network and a manifest
    for the other commands. The same options give the same files. A map is measured on other
    patients than it was fitted on: --first draws them.

    Parameters
    ----------
    output
        Folder of the cohort; created.
    cases
        How many cases.
    first
        Index of the first: another range, other patients.
    seed
        Seed of the cohort.
    """
    from twintrack.datasets.phantom import PhantomSpec, write_cohort
    from twintrack.files import check_folder_place
    from twintrack.runs.engine import Outcome

    report = telling.report()
    check_folder_place(output)
    spec = PhantomSpec(
        shape=_shape(patients.shape),
        raters=patients.rater_count,
        disagreement=patients.disagreement,
        score_bias=network.score_bias,
        score_sharpness=network.score_sharpness,
        seed=seed,
    )
    report.progress.start("Drawing", cases, 0)
    try:
        manifest = write_cohort(
            output,
            spec,
            range(first, first + cases),
            score_format=network.form,
            progress=lambda done, _: report.progress.case(Outcome(f"case {done}", "done", 0, 0.0)),
        )
    finally:
        report.progress.stop()
    other = _beside(output)
    draw = ["phantom", "-o", other, "--first", first + cases, *_given(context)]
    fit = ["fit", "-i", manifest, "-o", "calibrator.json", *(["--bins", "auto"] * (cases > 1))]
    evaluate = ["evaluate", "-i", other / manifest.name, "-m", "calibrator.json", "-o", "results"]
    report.result(
        f"{cases} synthetic cases",
        [
            ("manifest", manifest),
            ("to fit", _command(*fit)),
            ("other patients", _command(*draw)),
            ("to evaluate", _command(*evaluate)),
        ],
        manifest=str(manifest),
        cases=cases,
    )


def _beside(folder: Path) -> Path:
    """Return a name for a second cohort, whatever the first is called."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}_other")


def _given(context: typer.Context) -> list[str]:
    """Return the options that were given, but those that another cohort of the kind has its own."""
    given: list[str] = []
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        own = option.name in ("output", "first", "quiet", "log_json", "verbose")
        if not own and source is not None and source.name == "COMMANDLINE":
            given += [option.opts[0], str(context.params[option.name or ""])]
    return given


def _command(*words: object) -> str:
    return shlex.join(["twintrack", *map(str, words)])


def _shape(text: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            "it must be three numbers of voxels: 128,128,64", argument="--shape", value=text
        ) from None
    return x, y, z
