"""Runs on a cluster: the same work, store and results, on the machines of `dask.distributed`.

Every machine must see the cohort and the store under the same paths. A case is one task; its tally
stays where it was made until it is added up, in groups, on the machines. A worker that dies costs
what it was working on: its cases are done by others, or found finished in the store. As all sums
are of integers, results are byte-identical to those of one machine.
"""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twintrack.arrays.limits import available_memory
from twintrack.arrays.threads import thread_limit
from twintrack.runs.assembly_line import AssemblyLine
from twintrack.runs.engine import Outcome, Settings, add_tallies, process_case
from twintrack.runs.job import AnyCase, Job
from twintrack.runs.memory import MemoryBudget
from twintrack.runs.store import Store

# Tallies added up by one task: few enough to be in memory together, many enough that sending them
# costs little beside making them.
_GROUP = 8


@contextmanager
def dask_cluster(scheduler: str | None = None, workers: int | None = None) -> Iterator[DaskCluster]:
    """Connect to a scheduler, or start workers on this machine for the time of the block.

    Parameters
    ----------
    scheduler
        Address such as ``tcp://host:8786``, or the path of a scheduler file.
    workers
        Number of processes to start here, if there is no scheduler.

    Raises
    ------
    ImportError
        `distributed` is not installed.
    OSError
        The scheduler cannot be reached.
    """
    distributed = _library()
    if scheduler is None:
        started = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
        with started, distributed.Client(started) as client:
            yield DaskCluster(client)
        return
    is_file = Path(scheduler).is_file()
    with distributed.Client(
        None if is_file else scheduler, scheduler_file=scheduler if is_file else None
    ) as client:
        yield DaskCluster(client)


@dataclass(frozen=True)
class DaskCluster:
    """The workers of a Dask client, as `twintrack.runs` uses them."""

    client: Any  # distributed.Client

    def work_off(
        self,
        cases: Sequence[AnyCase],
        job: Job[Any],
        store: Store,
        settings: Settings,
        tell: Callable[[Outcome], None],
    ) -> Any:
        """Process every case, tell its outcome without its tally, and return the tallies' sum.

        Raises
        ------
        StoreError
            A worker cannot write the store.
        """
        # Progress and cluster belong to the process that leads the run, and cannot be sent.
        plain = Settings(memory=settings.memory, force=settings.force)
        place = store.folder.parent, store.kind, store.options
        shared = self.client.scatter((job, place, plain), broadcast=True)
        # Not "pure": a case that failed must not be taken from the results of an earlier run.
        done = self.client.map(_process, cases, shared=shared, pure=False, key="case")
        told = self.client.map(_without_tally, done, pure=False, key="outcome")
        for _, outcome in _library().as_completed(told, with_results=True):
            tell(outcome)
        # The futures in `done` keep the tallies alive until their groups have been added up.
        while len(done) > 1:
            groups = [done[first : first + _GROUP] for first in range(0, len(done), _GROUP)]
            done = self.client.map(_add, groups, pure=False, key="sum")
        return done[0].result().tally if done else None


def _library() -> Any:
    """Import distributed, which has no types to check against."""
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ImportError("clusters need distributed: pip install 'twintrack[dask]'") from error


_LINE = AssemblyLine()  # of all tasks of this worker, like their budget


def _process(case: AnyCase, shared: tuple[Job[Any], tuple[Any, ...], Settings]) -> Outcome:
    job, place, settings = shared
    store = Store(*place)
    line = _LINE if job.step_by_step else None
    # A worker runs as many tasks at a time as it has cores.
    with thread_limit(1), store.joining():
        return process_case(case, job, store, _budget(settings.memory), settings.force, line)


@functools.cache
def _budget(limit: int | None) -> MemoryBudget:
    """Return the budget that all tasks of this worker share."""
    if limit is None:
        limit = (_library().get_worker().memory_manager.memory_limit or available_memory()) // 2
    return MemoryBudget(limit)


def _without_tally(outcome: Outcome) -> Outcome:
    return replace(outcome, tally=None)


def _add(outcomes: Sequence[Outcome]) -> Outcome:
    # A copy: adding in place to a result that this worker keeps would count it twice if the task
    # is done again.
    total = copy.deepcopy(outcomes[0].tally)
    for outcome in outcomes[1:]:
        total = add_tallies(total, outcome.case, outcome.tally)
    return replace(outcomes[0], tally=total)
