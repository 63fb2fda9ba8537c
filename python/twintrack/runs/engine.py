"""The engine: does one kind of work on every case of a cohort, with all cores and bounded memory.

Every thread takes a case through reading, computing and storing, so that these overlap across the
cases: inflating files (isal) and computing (the compiled core) release the GIL. Of work that needs
a device, or all cores, for each case, every step has one case at a time. A case that cannot be
finished is an outcome like any other; a store that cannot be written ends the run.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from twintrack.arrays.limits import available_cores, available_memory
from twintrack.arrays.threads import max_threads, set_max_threads
from twintrack.errors import InputError
from twintrack.runs.assembly_line import STEPS, AssemblyLine
from twintrack.runs.failures import explain
from twintrack.runs.inputs import size_of
from twintrack.runs.job import AnyCase, Job, Product
from twintrack.runs.memory import MemoryBudget
from twintrack.runs.progress import Progress, Quiet
from twintrack.runs.records import Entry, Failure
from twintrack.runs.staging import StoreError
from twintrack.runs.stamps import read_stamp
from twintrack.runs.store import Store

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes
    ----------
    case
        Its name.
    state
        "done", "stored" (finished by an earlier run) or "failed".
    nbytes
        Size of its files.
    seconds
        Time it took, waiting for memory not included.
    voxels
        Its voxels; 0 if it failed.
    entry
        Its record, unless it failed.
    tally
        Its tally, for kinds that have one.
    failure
        Why it failed.
    details
        The traceback of a failure.
    """

    case: str
    state: Literal["done", "stored", "failed"]
    nbytes: int
    seconds: float
    voxels: int = 0
    entry: Entry | None = None
    tally: Any = None
    failure: Failure | None = None
    details: str = ""


@dataclass(frozen=True)
class Settings:
    """How a run is carried out; none of it changes a result.

    Attributes
    ----------
    workers
        Cases worked on at the same time; by default as many as cores. Of jobs that are
        `Job.step_by_step` at most three, one in each step.
    memory
        Bytes that cases may take together, by the estimate of `Job.memory`; half of what is
        available by default. A case that is larger than this by itself is worked on alone.
    force
        Do finished cases again.
    progress
        What to tell.
    cluster
        Where the cases are worked on; in threads of this process by default.
    """

    workers: int | None = None
    memory: int | None = None
    force: bool = False
    progress: Progress = field(default_factory=Quiet)
    cluster: Cluster | None = None

    def budget(self) -> MemoryBudget:
        """Make the budget of a run."""
        return MemoryBudget(available_memory() // 2 if self.memory is None else self.memory)


class Cluster(Protocol):
    """Other processes or machines that share this one's files."""

    def work_off(
        self,
        cases: Sequence[AnyCase],
        job: Job[Any],
        store: Store,
        settings: Settings,
        tell: Callable[[Outcome], None],
    ) -> Any:
        """Process every case, tell its outcome without its tally, and return the tallies' sum."""


def run_cases(
    cases: Sequence[AnyCase], job: Job[Any], store: Store, settings: Settings, work: str
) -> tuple[list[Outcome], Any]:
    """Do the work on every case; what is finished is in the store, however the run ends.

    Parameters
    ----------
    cases
        Cases of unique names.
    job
        The work.
    store
        Where finished cases are found and kept, inside of its ``writing()`` block.
    settings
        How to go about it.
    work
        What the work is called in `settings.progress`.

    Returns
    -------
    outcomes, total
        In the order of `cases`, without tallies; the sum of the tallies, None if there is none.

    Raises
    ------
    StoreError
        The store cannot be written.
    ValueError
        Tallies that cannot be added up; names the case.
    """
    outcomes: dict[str, Outcome] = {}

    def tell(outcome: Outcome) -> None:
        outcomes[outcome.case] = replace(outcome, tally=None)
        settings.progress.case(outcome)

    settings.progress.start(work, len(cases), sum(size_of(job.files(case)) for case in cases))
    try:
        if settings.cluster is not None:
            total = settings.cluster.work_off(cases, job, store, settings, tell)
        else:
            total = None
            budget, line = settings.budget(), AssemblyLine() if job.step_by_step else None
            workers = settings.workers
            if line is not None:
                workers = min(workers or len(STEPS), len(STEPS))
            for outcome in flow_through(
                cases,
                lambda case: [process_case(case, job, store, budget, settings.force, line)],
                workers,
                share_cores=line is None,
            ):
                tell(outcome)
                total = add_tallies(total, outcome.case, outcome.tally)
    finally:
        settings.progress.stop()
    return [outcomes[case.name] for case in cases], total


def notes_of(outcomes: Iterable[Outcome]) -> dict[str, list[str]]:
    """Return, by case, what to tell of its files though they were used, where there is any."""
    entries = [outcome.entry for outcome in outcomes if outcome.entry is not None]
    told = {entry.case: list(entry.result.get("notes", ())) for entry in entries}
    return {case: notes for case, notes in told.items() if notes}


def add_tallies(total: Any, case: str, tally: Any) -> Any:
    """Return the sum of `total` and the tally of a case; either may be None."""
    if total is None or tally is None:
        return tally if total is None else total
    try:
        total += tally
    except ValueError as error:
        raise InputError.of(error, case=case) from error
    return total


def flow_through(
    items: Sequence[Item],
    produce: Callable[[Item], Iterable[Result]],
    workers: int | None = None,
    *,
    share_cores: bool = True,
) -> Generator[Result, None, None]:
    """Yield what ``produce(item)`` yields, of several items at a time, from several threads.

    Results of one item keep their order. The threads wait when a few results have not been taken.
    The cores are shared out, unless they are not to be: with as many workers as cores each computes
    on one. An exception of `produce` is raised here. When the iteration ends early no further item
    is begun.
    """
    threads = min(max_threads(), available_cores())
    workers = max(1, min(workers or threads, len(items)))
    waiting = deque(items)
    ready: queue.Queue[tuple[list[Result], BaseException | None]] = queue.Queue(2 * workers)
    stop = threading.Event()

    def put(results: list[Result], error: BaseException | None = None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((results, error), timeout=0.1)
                return

    def work_off() -> None:
        set_max_threads(max(1, threads // workers) if share_cores else threads)
        try:
            while waiting and not stop.is_set():
                try:
                    item = waiting.popleft()
                except IndexError:
                    break  # another thread took the last one
                for result in produce(item):
                    put([result])
            put([])  # this thread has ended
        except BaseException as error:
            put([], error)

    try:
        for number in range(workers):
            # Daemons: an interrupted process does not wait for the cases being worked on.
            threading.Thread(target=work_off, name=f"case-{number}", daemon=True).start()
        ended = 0
        while ended < workers:
            results, error = ready.get()
            if error is not None:
                raise error
            ended += not results
            yield from results
    finally:
        stop.set()


def process_case(
    case: AnyCase,
    job: Job[Any],
    store: Store,
    budget: MemoryBudget,
    force: bool = False,
    line: AssemblyLine | None = None,
) -> Outcome:
    """Finish a case, or find it finished; with a `line`, each step when it is the case's turn.

    Raises
    ------
    StoreError
        The store cannot be written. All else that goes wrong is a failed outcome.
    """
    files = job.files(case)
    nbytes = size_of(files)
    start = time.perf_counter()
    if not force:
        found = _finished(case, job, store, files)
        if found is not None:
            entry, tally = found
            if entry.patient != job.patient(case):  # the cohort says so now, and no file does
                entry = entry.of_patient(job.patient(case))
                store.save(entry, {})
            seconds = time.perf_counter() - start
            return Outcome(case.name, "stored", nbytes, seconds, entry.voxels, entry, tally)
    step = "read"
    try:
        with budget.reserve(job.memory(case)), _steps(line) as enter:
            enter(step)
            start = time.perf_counter()
            inputs = {role: read_stamp(path) for role, path in files.items()}
            loaded = job.read(case)
            enter(step := "compute")
            product = job.compute(loaded)
            enter(step := "write")
            written = job.write(case, loaded, store)
            del loaded
            for role, stamp in inputs.items():
                if not stamp.matches(files[role]):
                    raise InputError("changed while it was used; run it again", file=files[role])
            entry = _store(case, job, store, inputs, product, written)
        seconds = time.perf_counter() - start
        return Outcome(case.name, "done", nbytes, seconds, entry.voxels, entry, product.tally)
    except StoreError:
        raise
    except Exception as error:
        if step == "write" and isinstance(error, OSError):
            raise StoreError(error.errno, error.strerror or str(error), error.filename) from error
        failure = explain(case.name, step, files, error)
        store.save_failure(failure)
        seconds = time.perf_counter() - start
        details = traceback.format_exc()
        return Outcome(case.name, "failed", nbytes, seconds, failure=failure, details=details)


def _steps(
    line: AssemblyLine | None,
) -> contextlib.AbstractContextManager[Callable[[str], object]]:
    return contextlib.nullcontext(lambda step: step) if line is None else line.case()


@dataclass(frozen=True)
class Plan:
    """What a run would do with a case: "stored", "to do" or "broken".

    Attributes
    ----------
    case
        Its name.
    state
        "stored": finished and unchanged; "to do"; "broken": its headers cannot be read.
    nbytes
        Size of its files.
    memory
        Estimate of the memory it takes; 0 if it is stored or broken.
    message
        What is broken.
    """

    case: str
    state: Literal["stored", "to do", "broken"]
    nbytes: int
    memory: int = 0
    message: str = ""


def plan_cases(
    cases: Sequence[AnyCase], job: Job[Any], store: Store, *, force: bool = False
) -> list[Plan]:
    """Look at what there is to do without doing it; writes nothing."""
    plans = []
    for case in cases:
        files = job.files(case)
        nbytes = size_of(files)
        if not force and _finished(case, job, store, files) is not None:
            plans.append(Plan(case.name, "stored", nbytes))
            continue
        try:
            plans.append(Plan(case.name, "to do", nbytes, job.memory(case)))
        except (OSError, ValueError, ImportError) as error:
            message = explain(case.name, "read", files, error).message
            plans.append(Plan(case.name, "broken", nbytes, message=message))
    return plans


def _finished(
    case: AnyCase, job: Job[Any], store: Store, files: Mapping[str, Path]
) -> tuple[Entry, Any] | None:
    entry = store.find(case.name)
    if entry is None or not entry.made_from(files) or not job.written(case, entry):
        return None
    if "tally" not in entry.outputs:
        return entry, None
    path = store.tally_path(case.name)
    if not entry.outputs["tally"].matches(path):
        return None
    try:
        return entry, job.load_tally(path)
    except (OSError, ValueError):
        return None


def _store(
    case: AnyCase,
    job: Job[Any],
    store: Store,
    inputs: Mapping[str, Any],
    product: Product,
    written: Mapping[str, tuple[str, Path]],
) -> Entry:
    written = dict(written)
    if product.tally is not None:
        place = store.tally_path(case.name)
        job.save_tally(product.tally, store.staged(place.name))
        written["tally"] = (place.name, place)
    outputs = {role: store.stamp_staged(*at) for role, at in written.items()}
    entry = Entry(case.name, inputs, product.voxels, product.result, outputs)
    entry = entry.of_patient(job.patient(case))
    store.save(entry, {store.staged(name): place for name, place in written.values()})
    return entry
