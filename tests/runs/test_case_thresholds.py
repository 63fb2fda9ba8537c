from __future__ import annotations

import io

import numpy as np
import pytest

from twintrack import Calibrator, ScoreTally
from twintrack.calibration.thresholds import ThresholdFinder
from twintrack.runs import stored_tallies
from twintrack.runs.case_thresholds import _rows, find_thresholds
from twintrack.runs.fit import TallyJob, fit_cohort, fit_tallies, read_tallies
from twintrack.runs.progress import Lines
from twintrack.runs.tally_pack import TallyPack, write_pack


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


def test_packed_rows_of_all_cells_begin_anywhere(tmp_path):
    """Where all cells from the first to the last are listed, used or not."""
    rng = np.random.default_rng(0)
    score = 0.25 + rng.random(20_000, np.float32) / 2
    tally = ScoreTally(2).update(score, list(rng.random((2, score.size)) < score))
    write_pack(tmp_path / "pack", [("a", (1, 2, 3, 4), tally)])
    packed = TallyPack(tmp_path / "pack").read("a")
    (rows,) = packed.sets.values()
    assert rows.cells is None
    assert rows.first > 0
    fitted = Calibrator(bins=20).add_tally(tally, "a")
    finder = ThresholdFinder(fitted.map_, tally)
    finder.add(_rows(packed, finder))
    assert finder.thresholds() == fitted.thresholds_


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
