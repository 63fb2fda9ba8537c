"""Intervals of predicted volumes in cases.csv and summary.json."""

from __future__ import annotations

import copy
import csv
import json
import math

import numpy as np
import pytest

from twintrack import Calibrator
from twintrack.errors import InputError
from twintrack.runs.earlier_results import check_results
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort, stored_evaluation
from twintrack.runs.fit import TallyJob, fit_cohort, fit_tallies, read_tallies
from twintrack.runs.store import open_stores
from twintrack.runs.volume_figures import INTERVAL, volumes_held


@pytest.fixture(scope="module")
def sure(pristine_cohort, tmp_path_factory):
    from twintrack.cohort import read_manifest

    store = tmp_path_factory.mktemp("fit")
    cases = read_manifest(pristine_cohort / "manifest.csv")
    fit_cohort(cases, Calibrator(bins=30), TallyJob("roi"), store)
    _, tallies = read_tallies(store)
    return fit_tallies(Calibrator(bins=30), tallies, "roi", keep=True).keep_band()


@pytest.mark.parametrize("millimetres", [False, True])
def test_the_interval_stands_beside_the_volume(cases, sure, tmp_path, millimetres):
    job = EvaluateJob(calibrator=sure, millimetres=millimetres)
    found = evaluate_cohort(cases[:3], job, tmp_path / "store")
    for case in cases[:3]:
        row = found.rows[case.name]
        size = 1.0
        if millimetres:
            size = job.read(case)[0].voxel_volume()
        limits = sure.band_.volumes.interval(row["predicted_volume"], 0.95, size)
        assert [row[name] for name in INTERVAL] == [limits.low, limits.high]
    assert stored_evaluation(open_stores(tmp_path / "store", job.kind)[0]).rows == found.rows
    (tmp_path / "out").mkdir()
    found.write(tmp_path / "out", "MHR")
    with (tmp_path / "out" / "cases.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert set(INTERVAL) < set(rows[0])
    held = sum(
        float(row[INTERVAL[0]]) <= float(row["rater_volume"]) <= float(row[INTERVAL[1]])
        for row in rows
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["volumes_held"] == {"cases": 3, "held": held}
    assert summary["volumes"]["level"] == 0.95
    assert check_results(tmp_path / "out", "MHR", job.options) == []


def test_without_a_band_nothing_changes(cases, sure, tmp_path):
    plain = copy.copy(sure)
    plain.band_ = None
    job = EvaluateJob(calibrator=plain)
    found = evaluate_cohort(cases[:1], job, tmp_path / "store")
    (row,) = found.rows.values()
    assert [row[name] for name in INTERVAL] == [None, None]
    assert "volumes" not in job.options
    found.write(tmp_path, "MHR")
    text = (tmp_path / "summary.json").read_text()
    assert not {"volumes", "volumes_held"} & set(json.loads(text))
    assert INTERVAL[0] not in (tmp_path / "cases.csv").read_text()
    # Results without intervals are not replaced by those with them unasked, nor the reverse.
    with pytest.raises(InputError, match=r"volumes is none, here \{"):
        check_results(tmp_path, "MHR", EvaluateJob(calibrator=sure).options)
    evaluate_cohort(cases[:1], EvaluateJob(calibrator=sure), tmp_path / "s").write(tmp_path, "MHR")
    with pytest.raises(InputError, match=r"volumes is \{.*\}, here none"):
        check_results(tmp_path, "MHR", job.options)


def test_another_band_with_the_same_interval_is_no_other_work(sure):
    joint = copy.copy(sure).keep_band(sure.band(kind="simultaneous"))
    level = copy.copy(sure).keep_band(sure.band(level=0.5))
    options = [EvaluateJob(calibrator=made).options for made in (sure, joint, level)]
    assert options[0] == options[1] != options[2]


def test_infinite_and_missing_ends():
    def row(low, high, volume):
        return dict(zip((*INTERVAL, "rater_volume"), (low, high, volume), strict=True))

    assert volumes_held([row(1.0, 2.0, 1.5), row(1.0, 2.0, 2.5), row(1.0, 2.0, 0.5)]) == {
        "cases": 3,
        "held": 1,
    }
    assert volumes_held([row(0.0, math.nan, 1e9), row(None, None, 3.0)]) == {"cases": 1, "held": 1}
    assert volumes_held([row(None, None, 3.0), row(1.0, 2.0, np.nan)]) is None
