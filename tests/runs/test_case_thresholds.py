from __future__ import annotations

import io

import pytest

from twintrack import Calibrator
from twintrack.runs import stored_tallies
from twintrack.runs.case_thresholds import find_thresholds
from twintrack.runs.fit import TallyJob, fit_cohort, fit_tallies, read_tallies
from twintrack.runs.progress import Lines


@pytest.fixture
def store(cases, tmp_path):
    fit_cohort(cases, Calibrator(), TallyJob("roi"), tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize(
    "parameters",
    [{"bins": 30}, {"bins": "auto", "folds": 3}, {"case_weight": "cases"}, {"target": "none"}],
)
@pytest.mark.parametrize("packed", [False, True])
def test_thresholds_of_a_store_are_those_of_the_cases(
    cases, store, tmp_path, monkeypatch, parameters, packed
):
    if packed:
        monkeypatch.setattr(stored_tallies, "_WORTH_PACKING", 1)
    kept = fit_tallies(Calibrator(**parameters), read_tallies(store)[1], "roi", keep=True)
    tallies = read_tallies(store)[1]
    assert (tallies._pack is not None) == packed
    found = fit_tallies(Calibrator(**parameters), tallies, "roi")
    assert found.thresholds_ == kept.thresholds_
    assert None not in found.thresholds_.to_dict().values()
    streamed = Calibrator(**parameters)
    fit_cohort(cases, streamed, TallyJob("roi"), store)
    if found.map_ == streamed.map_:  # folds differ
        assert streamed.thresholds_ == kept.thresholds_


def test_exact_cuts_come_first(cases, store):
    exact = Calibrator(bins=20, exact=True)
    fit_cohort(cases, exact, TallyJob("roi"), store)
    kept = Calibrator(bins=20, exact=True)
    for case, tally in read_tallies(store)[1]:
        kept.add_tally(tally, case)
    kept.restore(exact.map_, {**exact.provenance_, "thresholds": None})
    del kept.thresholds_
    assert exact.thresholds_ == kept.thresholds_


def test_they_are_followed_when_they_take_long(store, monkeypatch):
    tallies = read_tallies(store)[1]
    quick, slow = io.StringIO(), io.StringIO()
    fitted = fit_tallies(Calibrator(bins=20), tallies, "roi", progress=Lines(quick))
    assert quick.getvalue() == ""
    before = fitted.thresholds_
    monkeypatch.setattr("twintrack.runs.progress._PATIENCE", 0.0)
    assert find_thresholds(fitted, tallies, Lines(slow)).thresholds_ == before
    first, *_, last = slow.getvalue().splitlines()
    assert first.startswith(f"Thresholds: {len(tallies)} cases")
    assert last.startswith(f"Thresholds: {len(tallies)}/{len(tallies)} cases in")
