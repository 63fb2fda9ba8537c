from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from folders import content

from twintrack import Calibrator
from twintrack.cohort import Case, read_manifest
from twintrack.datasets.phantom import PhantomSpec, write_cohort
from twintrack.runs.engine import Settings
from twintrack.runs.fit import TallyJob, failures_of, fit_cohort
from twintrack.runs.progress import Quiet

pytest.importorskip("distributed")
from twintrack.runs.cluster import dask_cluster

pytestmark = [
    pytest.mark.dask,
    pytest.mark.filterwarnings("default"),  # what the library warns of is not ours to mend
]


class SlowJob(TallyJob):
    """Leaves time to kill a worker in the middle of a case."""

    def read(self, case: Case):
        time.sleep(0.3)
        return super().read(case)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    return write_cohort(folder, PhantomSpec(shape=(24, 24, 20), raters=3, seed=3), 10)


@pytest.fixture(scope="module")
def cluster():
    with dask_cluster(workers=2) as cluster:
        yield cluster


def fit(cases, job, folder, settings):
    folder.mkdir()
    fitted = Calibrator(bins=40)
    outcomes = fit_cohort(
        cases, fitted, job, folder / "tallies", skip_broken=True, settings=settings
    )
    fitted.save(folder / "c.json")
    return content(folder), failures_of(outcomes)


def test_same_bytes_as_on_one_machine_also_when_a_case_fails(cohort, tmp_path, cluster):
    cases = read_manifest(cohort)
    cases[3] = Case(cases[3].name, cases[3].score, cases[3].raters, roi=tmp_path / "gone.nii")
    told = []

    class Told(Quiet):
        def case(self, outcome):
            told.append(outcome.case)

    here = fit(cases, TallyJob("roi"), tmp_path / "here", Settings())
    there = fit(
        cases,
        TallyJob("roi"),
        tmp_path / "there",
        Settings(cluster=cluster, progress=Told(), memory=1 << 30),
    )
    assert there == here
    assert sorted(told) == [case.name for case in cases]
    assert [failure.case for failure in there[1]] == [cases[3].name]


def test_a_worker_that_dies_is_replaced(cohort, tmp_path, cluster):
    cases = read_manifest(cohort)
    killed = []

    class Kills(Quiet):
        def case(self, outcome):
            if not killed:
                killed.append(next(iter(cluster.client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

    job = SlowJob("roi")
    there, failures = fit(
        cases, job, tmp_path / "there", Settings(cluster=cluster, progress=Kills())
    )
    here, _ = fit(cases, TallyJob("roi"), tmp_path / "here", Settings())
    assert killed
    assert failures == []
    assert {name: there[name] for name in here} == here
