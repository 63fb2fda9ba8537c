"""Options of the commands that go through a cohort, case by case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.cli.reporting import Report
    from twintrack.cohort import Case
    from twintrack.runs.engine import Settings
    from twintrack.runs.job import Job

RUNNING = "Running"

T = TypeVar("T")

Parts = Annotated[
    int,
    typer.Option(
        "-num_parts",
        min=1,
        help="Split the cohort into this many parts, to be done by as many processes.",
        rich_help_panel=RUNNING,
    ),
]
Part = Annotated[
    int,
    typer.Option(
        "-part_id",
        min=0,
        help="The part to do, counted from 0. Parts of fit and evaluate are joined by "
        "[bold]twintrack merge[/]; parts of apply and predict write to the same folder -o.",
        rich_help_panel=RUNNING,
    ),
]


@dataclass(frozen=True)
class Running:
    """How a command goes through the cases of a cohort."""

    npp: Annotated[
        int | None,
        typer.Option(
            "-npp",
            min=1,
            help="Cases worked on at the same time. By default as many as there are cores.",
            show_default=False,
            rich_help_panel=RUNNING,
        ),
    ] = None
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory",
            min=0.0,
            help="GB that the cases worked on may take together. By default half of what is free.",
            show_default=False,
            rich_help_panel=RUNNING,
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="Work on a Dask cluster: the address of its scheduler (tcp://host:8786) or its "
            "scheduler file. All machines must see the files under the same paths.",
            show_default=False,
            rich_help_panel=RUNNING,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Work in this many processes, started by Dask, rather than in threads.",
            show_default=False,
            rich_help_panel=RUNNING,
        ),
    ] = None
    parts: Parts = 1
    part: Part = 0
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Do finished cases again, and replace what another method or calibrator has left "
            "in -o.",
            rich_help_panel=RUNNING,
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what there is to do, and do nothing.", rich_help_panel=RUNNING
        ),
    ] = False

    def part_of(self, cases: list[Case]) -> list[Case]:
        """Return the cases of the part to do."""
        return part_of(cases, self.parts, self.part)

    @contextmanager
    def settings(self, report: Report) -> Iterator[Settings]:
        """Give the settings of a run, connected to a cluster if one is wanted."""
        from twintrack.runs.engine import Settings

        budget = None if self.memory is None else int(self.memory * 1e9)
        settings = Settings(
            workers=self.npp, memory=budget, force=self.force, progress=report.progress
        )
        if self.scheduler is None and self.workers is None:
            yield settings
            return
        if self.scheduler is not None and self.workers is not None:
            raise InputError(
                "--workers starts processes here, --scheduler uses those of a cluster: "
                "give one of them"
            )
        from twintrack.runs.cluster import dask_cluster

        with dask_cluster(self.scheduler, self.workers) as cluster:
            yield replace(settings, cluster=cluster)

    def print_plan(self, report: Report, cases: list[Case], job: Job[Any], store: Path) -> None:
        """Tell what a run would do."""
        from twintrack.runs.engine import plan_cases
        from twintrack.runs.memory import available_memory
        from twintrack.runs.progress import scaled
        from twintrack.runs.store import Store

        plans = plan_cases(cases, job, Store(store, job.kind, job.options), force=self.force)
        limit = available_memory() // 2 if self.memory is None else self.memory * 1e9
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


def part_of(cases: list[T], parts: int, part: int) -> list[T]:
    """Return every `parts`-th case from number `part` on, as nnU-Net does."""
    if part >= parts:
        raise InputError(
            f"-part_id is {part}; parts are counted from 0 to {parts - 1} (-num_parts)"
        )
    return cases[part::parts]
