"""Options that several commands share, in nnU-Net's spelling where the meaning is the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from twintrack.cli.reporting import Report
    from twintrack.cohort import Case
    from twintrack.runs.engine import Settings
    from twintrack.runs.evaluate import Evaluation
    from twintrack.runs.job import Job


class Region(str, Enum):
    """Which voxels count."""

    roi = "roi"
    box = "box"
    all = "all"


_FILES = "Files"
_RUN = "Running"
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
        help="Name of the method in tables and figures. By default after the calibrator's target.",
        show_default=False,
    ),
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        "-p",
        help="Folder with the score of each case: nnU-Net's CASE.npz, or CASE.nii.gz.",
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
        help="Classes of CASE.npz whose probabilities are added up, such as 1,4,5.",
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
AtOnce = Annotated[
    int | None,
    typer.Option(
        "-npp",
        min=1,
        help="Cases worked on at the same time. By default as many as there are cores.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        min=0.0,
        help="GB that the cases worked on may take together. By default half of what is free.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Work on a Dask cluster: the address of its scheduler (tcp://host:8786) or its "
        "scheduler file. All machines must see the files under the same paths.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Work in this many processes, started by Dask, rather than in threads.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Parts = Annotated[
    int,
    typer.Option(
        "-num_parts",
        min=1,
        help="Split the cohort into this many parts, to be done by as many processes.",
        rich_help_panel=_RUN,
    ),
]
Part = Annotated[
    int,
    typer.Option(
        "-part_id",
        min=0,
        help="The part to do, counted from 0; the parts end in one result by "
        "[bold]twintrack merge[/].",
        rich_help_panel=_RUN,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Do finished cases again.", rich_help_panel=_RUN),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what there is to do, and do nothing.", rich_help_panel=_RUN
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Errors alone.", rich_help_panel=_TELL)]
LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        help="Progress, results and errors as JSON, one object a line, on stderr.",
        rich_help_panel=_TELL,
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Errors with their traceback.", rich_help_panel=_TELL)
]

RATERS = "{case}/annotation_{k}.nii.gz"
VESSELS = "{case}/*vessel*.nii.gz"
ROI = "{case}/roi.nii.gz"


def read_cohort(
    source: Path, predictions: Path | None, raters: str, vessels: str | None, roi: str | None
) -> list[Case]:
    """Read the cohort that ``-i`` and ``-p`` name."""
    from twintrack.cohort import read_folders, read_manifest

    if source.is_dir():
        if predictions is None:
            raise ValueError(
                f"{source}: is a folder of annotations; -p must name that of the scores"
            )
        return read_folders(source, predictions, raters, vessels, roi)
    if predictions is not None:
        raise ValueError(f"{source}: is a manifest, which names the scores; leave out -p")
    return read_manifest(source)


def part_of(cases: list[Case], parts: int, part: int) -> list[Case]:
    """Return every `parts`-th case from number `part` on, as nnU-Net does."""
    if part >= parts:
        raise ValueError(
            f"-part_id is {part}; parts are counted from 0 to {parts - 1} (-num_parts)"
        )
    return cases[part::parts]


def chosen(cases: list[Case], only: list[str] | None, without: list[str] | None) -> list[Case]:
    """Return the cases whose names match a pattern of `only`, and none of `without`."""
    from fnmatch import fnmatchcase

    for option, patterns in (("--only", only), ("--without", without)):
        for pattern in patterns or ():
            if not any(fnmatchcase(case.name, pattern) for case in cases):
                raise ValueError(f"{option} {pattern!r} matches no case of the cohort")

    def matches(case: Case, patterns: list[str]) -> bool:
        return any(fnmatchcase(case.name, pattern) for pattern in patterns)

    return [
        case
        for case in cases
        if (not only or matches(case, only)) and not matches(case, without or [])
    ]


def classes(text: str) -> tuple[int, ...]:
    """Read a list of classes such as "1,4,5"."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--tumour is {text!r}; it must be numbers of classes: 1 or 1,4,5"
        ) from None


@contextmanager
def running(
    report: Report,
    npp: int | None,
    memory: float | None,
    force: bool,
    scheduler: str | None,
    workers: int | None,
) -> Iterator[Settings]:
    """Give the settings of a run, connected to a cluster if one is wanted."""
    from twintrack.runs.engine import Settings

    budget = None if memory is None else int(memory * 1e9)
    settings = Settings(workers=npp, memory=budget, force=force, progress=report.progress)
    if scheduler is None and workers is None:
        yield settings
        return
    if scheduler is not None and workers is not None:
        raise ValueError(
            "--workers starts processes here, --scheduler uses those of a cluster: give one of them"
        )
    from twintrack.distributed import dask_cluster

    with dask_cluster(scheduler, workers) as cluster:
        yield replace(settings, cluster=cluster)


def write_evaluation(report: Report, found: Evaluation, output: Path, method: str | None) -> None:
    """Write a result folder and tell the means."""
    from twintrack.report.metrics import describe
    from twintrack.runs.evaluate import default_method

    name = method or default_method(found.options)
    found.write(output, name)
    if found.rows:
        report.table(
            f"{name}, {found.options['protocol']} protocol",
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
            *([("failed", f"{len(found.failures)}, see failures.csv")] if found.failures else []),
            ("written to", output),
        ],
        output=str(output),
        method=name,
        cases=len(found.rows),
        failed=len(found.failures),
    )


def exit_by(failed: int, cases: int) -> None:
    """End with the status that tells how many cases failed."""
    if failed:
        raise typer.Exit(2 if failed == cases else 1)


def print_plan(
    report: Report,
    cases: list[Case],
    job: Job[Any],
    store: Path,
    memory: float | None,
    force: bool,
) -> None:
    """Tell what a run would do."""
    from twintrack.runs.engine import plan_cases
    from twintrack.runs.memory import available_memory
    from twintrack.runs.progress import scaled
    from twintrack.runs.store import Store

    plans = plan_cases(cases, job, Store(store, job.kind, job.options), force=force)
    limit = available_memory() // 2 if memory is None else memory * 1e9
    to_do = [plan for plan in plans if plan.state == "to do"]
    broken = [plan for plan in plans if plan.state == "broken"]
    report.table(
        "Plan",
        ("case", "state", "files", "memory"),
        [
            (
                plan.case,
                plan.state,
                f"{scaled(plan.nbytes)}B",
                f"{scaled(plan.memory)}B" if plan.memory else "",
            )
            for plan in plans
        ],
        cases=[plan.__dict__ for plan in plans],
    )
    report.result(
        "",
        [
            ("to do", f"{len(to_do)} of {len(plans)} cases"),
            ("files to read", f"{scaled(sum(plan.nbytes for plan in to_do))}B"),
            ("memory limit", f"{scaled(limit)}B"),
        ],
        to_do=len(to_do),
        stored=len(plans) - len(to_do) - len(broken),
        broken=len(broken),
    )
    for plan in broken:
        report.warn(f"{plan.case}: {plan.message}")
