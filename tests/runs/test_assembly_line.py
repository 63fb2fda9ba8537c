from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from twintrack import _core
from twintrack.runs.engine import Settings, run_cases
from twintrack.runs.job import Job, Product
from twintrack.runs.store import Store

STEPS = ("read", "compute", "write")


@dataclass(frozen=True)
class Work:
    name: str


@dataclass(frozen=True)
class Steps(Job[str]):
    """Writes down who is where; fails in the steps that it is told."""

    events: list = field(default_factory=list)
    fails: dict = field(default_factory=dict)
    kind = "steps"
    step_by_step = True

    @property
    def options(self):
        return {}

    def files(self, case):
        return {}

    def read(self, case):
        return self._take(case.name, "read")

    def compute(self, loaded):
        self._take(loaded, "compute")
        return Product(1, {})

    def write(self, case, loaded, store):
        self._take(loaded, "write")
        return {}

    def _take(self, name, step):
        self.events.append((name, step, "begun"))
        time.sleep(0.01)
        self.events.append((name, step, "ended"))
        if self.fails.get(name) == step:
            raise ValueError(step)
        return name


@pytest.fixture
def run(tmp_path):
    def run(job, names, **settings):
        with Store(tmp_path / "store", job.kind, {}).writing(names) as store:
            cases = [Work(name) for name in names]
            return run_cases(cases, job, store, Settings(**settings), "Working")[0]

    return run


NAMES = [str(number) for number in range(7)]


@pytest.mark.parametrize("workers", [None, 3, 20])
def test_each_step_has_one_case_at_a_time_in_the_same_order(run, workers):
    run(job := Steps(), NAMES, workers=workers)
    order = [name for name, step, what in job.events if (step, what) == ("read", "begun")]
    assert sorted(order) == NAMES
    for step in STEPS:
        told = [(name, what) for name, at, what in job.events if at == step]
        assert told == [(name, what) for name in order for what in ("begun", "ended")]
    # Reading, computing and writing overlap.
    first = job.events.index((order[0], "write", "begun"))
    begun = {(order[1], "compute", "begun"), (order[2], "read", "begun")}
    assert begun <= set(job.events[: first + 5])


@pytest.mark.parametrize("workers", [None, 20])
def test_at_most_three_cases_are_held(run, workers):
    run(job := Steps(), NAMES, workers=workers)
    held, most = set(), 0
    for name, step, what in job.events:
        if (step, what) == ("read", "begun"):
            held.add(name)
        if (step, what) == ("write", "ended"):
            held.remove(name)
        most = max(most, len(held))
    assert most == 3


def test_a_case_that_fails_makes_room_for_the_next(run):
    job = Steps(fails={"1": "read", "3": "compute", "4": "write"})
    outcomes = {outcome.case: outcome.failure for outcome in run(job, NAMES)}
    assert {name: f.step for name, f in outcomes.items() if f is not None} == job.fails
    written = [name for name, step, what in job.events if (step, what) == ("write", "ended")]
    assert sorted(written) == ["0", "2", "4", "5", "6"]


def test_each_step_has_all_cores(run):
    found = set()

    class Cores(Steps):
        def compute(self, loaded):
            found.add((threading.current_thread() is threading.main_thread(), _core.max_threads()))
            return Product(1, {})

    run(Cores(), NAMES)
    assert found == {(False, _core.max_threads())}
