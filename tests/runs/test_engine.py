from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from twintrack import _core
from twintrack.cohort import Case, read_manifest
from twintrack.errors import InputError
from twintrack.runs.engine import Settings, flow_through, plan_cases, run_cases
from twintrack.runs.inputs import case_files
from twintrack.runs.job import Job, Product
from twintrack.runs.progress import Quiet
from twintrack.runs.staging import StoreError
from twintrack.runs.store import Store


@dataclass(frozen=True)
class Measure(Job[bytes]):
    """Writes down how long a score file is; says what it was asked to do."""

    calls: list
    fails: tuple[str, ...] = ()
    error: Callable[[Case], Exception] = lambda case: InputError(
        f"is broken, like {case.score}", file=case.raters[0]
    )
    kind = "measure"

    @property
    def options(self):
        return {}

    def files(self, case):
        return case_files(case, vessels=False, roi=False)

    def read(self, case):
        self.calls.append(case.name)
        if case.name in self.fails:
            raise self.error(case)
        return case.score.read_bytes()

    def compute(self, loaded):
        return Product(100, {"length": len(loaded)})


class Recorder(Quiet):
    def __init__(self):
        self.told = []

    def start(self, work, cases, nbytes):
        self.told.append((work, cases, nbytes))

    def case(self, outcome):
        self.told.append(outcome.case)

    def stop(self):
        self.told.append("stop")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store", "measure", {})
    with store.writing([]):
        yield store


@pytest.fixture
def run(cases, store):
    def run(job, **settings):
        outcomes, _ = run_cases(cases, job, store, Settings(**settings), "Measuring")
        return {outcome.case: outcome for outcome in outcomes}

    return run


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_every_case_is_done_once(run, cases, workers):
    job = Measure([])
    outcomes = run(job, workers=workers)
    assert sorted(job.calls) == sorted(outcomes) == [case.name for case in cases]
    for case in cases:
        outcome = outcomes[case.name]
        assert (outcome.state, outcome.voxels) == ("done", 100)
        assert outcome.entry.result == {"length": case.score.stat().st_size}
        assert outcome.nbytes == sum(p.stat().st_size for p in (case.score, *case.raters))


def test_finished_cases_are_not_done_again(run):
    job = Measure([])
    first = run(job)
    again = run(Measure(calls := []))
    assert calls == []
    assert {case: o.entry for case, o in again.items()} == {c: o.entry for c, o in first.items()}
    assert {outcome.state for outcome in again.values()} == {"stored"}
    run(Measure(forced := []), force=True)
    assert sorted(forced) == sorted(first)


def test_changed_file_is_read_again(cohort, tmp_path):
    """A result must never be that of the file as it was before."""
    cases = read_manifest(cohort / "manifest.csv")
    store = Store(tmp_path / "store", "measure", {})
    with store.writing([]):
        run_cases(cases, Measure([]), store, Settings(), "")
        changed = cases[2].raters[1]
        changed.write_bytes(cases[3].raters[1].read_bytes())
        job = Measure([])
        outcomes, _ = run_cases(cases, job, store, Settings(), "")
    assert job.calls == [cases[2].name]
    assert [outcome.state for outcome in outcomes].count("stored") == len(cases) - 1


def test_broken_case_fails_alone_and_is_tried_again(run, cases, store):
    bad = cases[1]
    outcomes = run(Measure([], fails=(bad.name,)))
    assert [c for c, o in outcomes.items() if o.state == "failed"] == [bad.name]
    failure = outcomes[bad.name].failure
    assert (failure.step, failure.file) == ("read", "rater_1")
    assert failure.message == f"{bad.raters[0].name}: is broken, like {bad.score.name}"
    assert "Traceback" in outcomes[bad.name].details
    assert store.failures() == [failure]
    mended = Measure([])
    assert {o.state for o in run(mended).values()} == {"stored", "done"}
    assert mended.calls == [bad.name]
    assert store.failures() == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("of 3 GB"), "not enough memory"),
        (RuntimeError("is broken"), "RuntimeError: is broken"),
        (ImportError("is broken"), "^is broken"),
    ],
)
def test_any_error_of_a_case_is_its_failure(run, cases, error, message):
    outcomes = run(Measure([], fails=(cases[0].name,), error=lambda _: error))
    failure = outcomes[cases[0].name].failure
    assert len(outcomes) == len(cases)
    assert re.search(message, failure.message)


def test_missing_file_is_named_by_its_role(run, cases, tmp_path):
    lost = Case("lost", cases[0].score, (cases[0].raters[0], tmp_path / "gone.nii.gz"))
    store = Store(tmp_path / "other", "measure", {})
    with store.writing([]):
        ((outcome,), _) = run_cases([lost], Measure([]), store, Settings(), "")
    assert outcome.failure.file == "rater_2"
    assert outcome.failure.message == "gone.nii.gz: No such file or directory"


def test_full_disk_ends_the_run_and_keeps_what_is_finished(run, store, monkeypatch):
    """Going on would read thousands of cases in vain."""
    save, saved = store.save, []

    def fill(entry, files):
        if len(saved) == 2:
            raise StoreError(errno.ENOSPC, "cannot be written (No space left on device)", "store")
        saved.append(entry.case)
        save(entry, files)

    monkeypatch.setattr(store, "save", fill)
    job = Measure([])
    with pytest.raises(StoreError, match="No space left"):
        run(job, workers=1)
    assert len(job.calls) == 3
    monkeypatch.undo()
    again = Measure([])
    assert {o.state for o in run(again).values()} == {"stored", "done"}
    assert set(again.calls).isdisjoint(saved)


def test_file_that_changes_while_it_is_used_is_a_failure(cohort, store):
    """Else the record would name the file as it was before, and the result be of another."""
    cases = read_manifest(cohort / "manifest.csv")[:2]

    class Meddles(Measure):
        def compute(self, loaded):
            with cases[0].raters[0].open("ab") as file:
                file.write(b"\0")
            return super().compute(loaded)

    outcomes, _ = run_cases(cases[:1], Meddles([]), store, Settings(), "")
    assert outcomes[0].failure.file == "rater_1"
    assert "changed while it was used" in outcomes[0].failure.message


def test_output_that_cannot_be_written_ends_the_run(run, tmp_path):
    class Writes(Measure):
        def write(self, case, loaded, store):
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path))

    with pytest.raises(StoreError, match="quota"):
        run(Writes([]))


def test_memory_limit_bounds_cases_in_flight(run, cases):
    inside, most, lock = 0, 0, threading.Lock()

    class Counts(Measure):
        def read(self, case):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1
            return b""

    assert len(run(Counts([]), workers=6, memory=1)) == len(cases)
    assert most == 1


def test_interrupted_run_begins_no_further_case(cases, store):
    class Slow(Measure):
        def compute(self, loaded):
            time.sleep(0.1)
            return super().compute(loaded)

    class Interrupts(Recorder):
        def case(self, outcome):
            super().case(outcome)
            raise KeyboardInterrupt

    job, progress = Slow([]), Interrupts()
    with pytest.raises(KeyboardInterrupt):
        run_cases(cases, job, store, Settings(workers=1, progress=progress), "Measuring")
    work, number, nbytes = progress.told[0]
    assert (work, number) == ("Measuring", len(cases))
    assert nbytes == sum(p.stat().st_size for c in cases for p in (c.score, *c.raters))
    assert progress.told[1:] == [job.calls[0], "stop"]
    time.sleep(0.25)
    assert len(job.calls) <= 2


def test_tallies_are_added_up(cases, store):
    class Tallies(Measure):
        def compute(self, loaded):
            return Product(1, {}, Length(len(loaded)))

        def load_tally(self, path):
            return Length(int(path.read_text()))

    class Length(int):
        def __add__(self, other):
            return Length(int(self) + int(other))

        def save(self, path):
            path.write_text(str(int(self)))

    expected = sum(case.score.stat().st_size for case in cases)
    for _ in ("done", "stored"):
        outcomes, total = run_cases(cases, Tallies([]), store, Settings(), "")
        assert total == expected
        assert [outcome.tally for outcome in outcomes] == [None] * len(cases)


def test_cores_are_shared_out():
    """With as many workers as cores each must compute on one, or they get in each other's way."""
    cores = _core.max_threads()
    assert set(flow_through(range(8), lambda _: [_core.max_threads()], workers=cores)) == {1}
    assert set(flow_through(range(2), lambda _: [_core.max_threads()], workers=1)) == {cores}
    assert _core.max_threads() == cores


def test_error_of_the_work_itself_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(flow_through([1, 0, 2], lambda k: [1 / k], workers=2))
    assert list(flow_through([], lambda k: [k])) == []


def test_plan_tells_what_there_is_to_do(cohort, tmp_path):
    cases = read_manifest(cohort / "manifest.csv")
    store = Store(tmp_path / "store", "measure", {})
    with store.writing([]):
        run_cases(cases[:2], Measure([]), store, Settings(), "")
    Path(cases[3].raters[0]).write_bytes(b"no volume")
    before = sorted(tmp_path.rglob("*"))
    plans = {plan.case: plan for plan in plan_cases(cases, Measure([]), store)}
    assert sorted(tmp_path.rglob("*")) == before
    assert [plans[case.name].state for case in cases] == [
        *("stored", "stored", "to do", "broken"),
        *["to do"] * (len(cases) - 4),
    ]
    assert plans[cases[2].name].memory > 0
    assert plans[cases[3].name].message.startswith("annotation_1.nii.gz: not a NIfTI file")
    forced = plan_cases(cases[:2], Measure([]), store, force=True)
    assert {plan.state for plan in forced} == {"to do"}
