"""Intervals of differences between methods, by fitting and evaluating each draw by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from study_stores import names, write_store

import twintrack as tt
from twintrack.arrays.threads import thread_limit
from twintrack.calibration.tally_fit import TallyFit
from twintrack.metrics.corp import corp
from twintrack.metrics.mapped_voxels import mapped_voxels
from twintrack.runs.pooled_tallies import Place
from twintrack.runs.progress import Progress
from twintrack.runs.study import study
from twintrack.runs.study_certainty import CERTAINTY, certainty_table
from twintrack.runs.study_cohort import halves, open_cohort

CASES, PATIENTS = names(24)
MHR = "MHR"
FITS = {MHR: TallyFit("mhr", 20, 0), "None": None, "Single": TallyFit("single", 20, 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certainty")


@pytest.fixture(scope="module")
def tallies(folder):
    return write_store(folder / "over", CASES, PATIENTS)


@pytest.fixture(scope="module")
def cohort(folder, tallies):
    return open_cohort(Place(folder / "over"))


def brier(tally, fit, total):
    return corp(mapped_voxels(tally, None if fit is None else fit(fit.seen(total)))).brier


def test_draws_are_fitted_and_measured_by_hand(cohort, tallies):
    half = halves([cohort], 1, 0)[0]
    found = certainty_table(cohort, half, FITS, MHR, draws=7, seed=3, progress=Progress())

    def total(patients):
        return tt.ScoreTally.of_all([tallies[c] for p in patients for c in cohort.patients[p]])

    def differences(tested, fitted):
        test, fit_to = total(tested), total(fitted)
        reference = brier(test, FITS[MHR], fit_to)
        return [brier(test, FITS[name], fit_to) - reference for name in ("None", "Single")]

    rng = np.random.default_rng([3, 1])
    n, m = len(half.fitted), len(half.tested)
    first = [[half.fitted[k] for k in rng.integers(n, size=n)] for _ in range(7)]
    times = rng.multinomial(m, np.full(m, 1 / m), 7)
    second = [[p for p, k in zip(half.tested, one, strict=True) for _ in range(k)] for one in times]
    center = differences(half.tested, half.fitted)
    once = np.array([differences(tested, half.fitted) for tested in second])
    both = np.array([differences(*pair) for pair in zip(second, first, strict=True)])
    for row, (name, values) in enumerate(found.rows):
        ends = [np.quantile(draws[:, row], [0.025, 0.975]) for draws in (once, both)]
        np.testing.assert_allclose(values, [center[row], *ends[0], *ends[1]], atol=2e-6), name
    assert found.names == ["None", "Single"]


def test_drawing_both_sets_is_less_certain_and_repeats(cohort):
    half = halves([cohort], 1, 0)[0]
    asked = {"draws": 40, "seed": 0, "progress": Progress()}
    found = certainty_table(cohort, half, FITS, MHR, **asked)
    with thread_limit(1):
        assert certainty_table(cohort, half, FITS, MHR, **asked) == found
    width = {
        kind: np.subtract(found.column(f"{kind}_high"), found.column(f"{kind}_low"))
        for kind in ("test", "both")
    }
    single = found.names.index("Single")
    assert width["both"][single] > width["test"][single]
    for low, high in zip(found.column("both_low"), found.column("both_high"), strict=True):
        assert low < high


def test_a_study_has_it_where_it_is_asked_for(cohort):
    found = study(cohort, splits=1, draws=4)
    (certain,) = [table for table in found.tables if table.title == CERTAINTY]
    assert certain.names[0] == "No map"
    assert "MHR, 250 bins" not in certain.names
    without = study(cohort, splits=1)
    assert (CERTAINTY, "draw patients again: --draws 200") in without.absent
    assert [dataclasses.astuple(t) for t in without.tables] == [
        dataclasses.astuple(t) for t in found.tables if t is not certain
    ]
