"""Options of the commands that go through a cohort, case by case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import typer

from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.cli.reporting import Report
    from twintrack.runs.engine import Settings
    from twintrack.runs.job import AnyCase, Job

RUNNING = "Running"

T = TypeVar("T")


@dataclass(frozen=True)
class Sharing:
    """How a command shares the cases of a cohort out to threads, processes and machines.

    Attributes
    ----------
    npp
        Cases worked on at the same time. By default as many as there are cores, and of predict
        three: one is read, one computed, one written.
    memory
        GB that the cases worked on may take together. By default half of what is free.
    scheduler
        Work on a Dask cluster: the address of its scheduler (tcp://host:8786) or its scheduler
        file. All machines must see the files under the same paths.
    workers
        Work in this many processes, started by Dask, rather than in threads.
    parts
        Split the cohort into this many parts, to be done by as many processes.
    part
        The part to do, counted from 0. Parts of fit and evaluate are joined by
        [bold]twintrack merge[/]; parts of the other commands write to the same folder -o.
    dry_run
        Say what there is to do, and do nothing.
    """

    panel: ClassVar[str] = RUNNING

    npp: Annotated[int | None, typer.Option("-npp", "-np", min=1)] = None
    memory: Annotated[float | None, typer.Option(min=0.0)] = None
    scheduler: str | None = None
    workers: Annotated[int | None, typer.Option(min=1)] = None
    parts: Annotated[int, typer.Option("-num_parts", min=1)] = 1
    part: Annotated[int, typer.Option("-part_id", min=0)] = 0
    dry_run: bool = False

    def part_of(self, cases: Sequence[T]) -> list[T]:
        """Return every `parts`-th case from number `part` on, as nnU-Net does."""
        if self.part >= self.parts:
            raise InputError(
                f"-part_id is {self.part}; parts are counted from 0 to {self.parts - 1} "
                "(-num_parts)"
            )
        return list(cases[self.part :: self.parts])

    @property
    def again(self) -> bool:
        """Whether finished cases are done again."""
        return False

    @property
    def on_cluster(self) -> bool:
        """Whether other processes do the work."""
        return self.scheduler is not None or self.workers is not None

    @contextmanager
    def settings(self, report: Report) -> Iterator[Settings]:
        """Give the settings of a run, connected to a cluster if one is wanted."""
        from twintrack.runs.engine import Settings

        memory = None if self.memory is None else int(self.memory * 1e9)
        settings = Settings(self.npp, memory, self.again, report.progress)
        if not self.on_cluster:
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

    def print_plan(
        self,
        report: Report,
        cases: Sequence[AnyCase],
        job: Job[Any],
        store: Path,
        again: bool | None = None,
    ) -> None:
        """Tell what a run would do; `again` as the property unless it is given."""
        from twintrack.arrays.limits import available_memory
        from twintrack.runs.engine import plan_cases
        from twintrack.runs.progress import scaled
        from twintrack.runs.store import Store

        opened = Store(store, job.kind, job.options)
        plans = plan_cases(cases, job, opened, force=self.again if again is None else again)
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


@dataclass(frozen=True)
class Running(Sharing):
    """How a command goes through the cases of a cohort whose results it keeps.

    Attributes
    ----------
    force
        Do finished cases again, and replace what another method or calibrator has left in -o.
    """

    force: bool = False

    @property
    def again(self) -> bool:
        """Whether finished cases are done again."""
        return self.force
