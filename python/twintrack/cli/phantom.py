"""``twintrack phantom``: a synthetic cohort, so that every command can be tried."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from twintrack.cli import options
from twintrack.errors import InputError

_PATIENTS = "Patients"
_NETWORK = "Imagined network"


class Format(str, Enum):
    """How scores are written."""

    nifti = "nifti"
    npz = "npz"


def phantom(
    output: Annotated[
        Path,
        typer.Option("-o", help="Folder of the cohort; created.", show_default=False),
    ],
    cases: Annotated[int, typer.Option("--cases", min=1, help="How many cases.")] = 8,
    first: Annotated[
        int,
        typer.Option("--first", min=0, help="Index of the first: another range, other patients."),
    ] = 0,
    shape: Annotated[
        str, typer.Option("--shape", help="Voxels along x, y, z.", rich_help_panel=_PATIENTS)
    ] = "128,128,64",
    raters: Annotated[
        int, typer.Option("--raters", min=1, help="Number of raters.", rich_help_panel=_PATIENTS)
    ] = 5,
    disagreement: Annotated[
        float,
        typer.Option(
            "--disagreement",
            min=0,
            help="Standard deviation in mm by which a rater's outline departs from the true one.",
            rich_help_panel=_PATIENTS,
        ),
    ] = 2.0,
    score_bias: Annotated[
        float,
        typer.Option(
            "--score-bias",
            help="Millimetres by which the network over-segments.",
            rich_help_panel=_NETWORK,
        ),
    ] = 2.0,
    score_sharpness: Annotated[
        float,
        typer.Option(
            "--score-sharpness",
            help="Above 1 the score is over-confident, below 1 under-confident.",
            rich_help_panel=_NETWORK,
        ),
    ] = 3.0,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="Scores as NIfTI, or npz as nnUNetv2_predict --save_probabilities leaves them.",
            rich_help_panel=_NETWORK,
        ),
    ] = Format.nifti,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the cohort.")] = 0,
    *,
    context: typer.Context,
    telling: options.Telling,
) -> None:
    """Write a synthetic cohort: CTs with a tumour and five vessels, raters who differ, a score.

    The folder is laid out as CURVAS–PDACVI is, with the score of an imagined network and a manifest
    for the other commands. The same options give the same files. A map is measured on other
    patients than it was fitted on: --first draws them.
    """
    from twintrack.datasets.phantom import PhantomSpec, write_cohort
    from twintrack.files import check_folder_place
    from twintrack.runs.engine import Outcome

    report = telling.report()
    check_folder_place(output)
    spec = PhantomSpec(
        shape=_shape(shape),
        raters=raters,
        disagreement=disagreement,
        score_bias=score_bias,
        score_sharpness=score_sharpness,
        seed=seed,
    )
    report.progress.start("Drawing", cases, 0)
    try:
        manifest = write_cohort(
            output,
            spec,
            range(first, first + cases),
            score_format=form.value,
            progress=lambda done, _: report.progress.case(Outcome(f"case {done}", "done", 0, 0.0)),
        )
    finally:
        report.progress.stop()
    other = _beside(output)
    draw = ["phantom", "-o", other, "--first", first + cases, *_given(context)]
    evaluate = ["evaluate", "-i", other / manifest.name, "-m", "calibrator.json", "-o", "results"]
    report.result(
        f"{cases} synthetic cases",
        [
            ("manifest", manifest),
            ("to fit", _command("fit", "-i", manifest, "-o", "calibrator.json")),
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
            value = context.params[option.name or ""]
            given += [option.opts[0], str(value.value if isinstance(value, Enum) else value)]
    return given


def _command(*words: object) -> str:
    return shlex.join(["twintrack", *map(str, words)])


def _shape(text: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--shape is {text!r}; it must be three numbers of voxels: 128,128,64"
        ) from None
    return x, y, z
