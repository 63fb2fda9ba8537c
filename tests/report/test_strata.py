"""Metrics by quarter of the cases."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from twintrack.report import MethodResults, build_report, compare_methods
from twintrack.report.strata import strata, strata_csv, strata_tables
from twintrack.statistics import bootstrap, paired_bootstrap, sign_flip_test

CASES = 22


def methods(**changed):
    rng = np.random.default_rng(0)
    names = tuple(f"c{k:02d}" for k in range(CASES))
    shared = {"rater_volume": rng.gamma(1, 900, CASES), "disagreement": rng.random(CASES)}
    shared |= changed
    patients = {name: f"p{k // 2}" for k, name in enumerate(names)}
    return {
        name: MethodResults(
            names, {"tdsc": rng.random(CASES), "brier": rng.random(CASES), **shared},
            patients=patients,
        )
        for name in ("one", "ref")
    }  # fmt: skip


def test_quarters_are_those_of_the_quartiles():
    comparison = compare_methods(methods(), "ref", resamples=60, seed=3, level=0.9)
    found = strata(comparison)
    assert [(s.by, s.number) for s in found] == [
        (by, k) for by in ("rater_volume", "disagreement") for k in (1, 2, 3, 4)
    ]
    for by in ("rater_volume", "disagreement"):
        values = methods()["ref"].values[by]
        limits = np.quantile(values, [0.25, 0.5, 0.75])
        parts = [s for s in found if s.by == by]
        assert sorted(sum((s.comparison.cases for s in parts), ())) == list(comparison.cases)
        for k, stratum in enumerate(parts):
            inside = np.digitize(values, limits, right=True) == k
            assert stratum.comparison.cases == tuple(np.array(comparison.cases)[inside])
            assert (stratum.low, stratum.high) == (values[inside].min(), values[inside].max())


def test_figures_are_those_of_the_cases_of_a_quarter_alone():
    comparison = compare_methods(methods(), "ref", resamples=60, seed=3, level=0.9)
    stratum = strata(comparison)[6]
    rows = [comparison.cases.index(case) for case in stratum.comparison.cases]
    one, ref = (results.values["tdsc"][rows] for results in methods().values())
    groups = [comparison.patients[row] for row in rows]
    part = stratum.comparison
    assert part.patients == tuple(groups)
    assert part.intervals.high[0, 0] == bootstrap(one, 60, 3, 0.9, groups=groups).high
    expected = paired_bootstrap(one, ref, 60, 3, 0.9, groups=groups)
    assert part.differences.low[0, 0] == pytest.approx(expected.low, rel=1e-12)
    assert part.tests.p[0, 0] == sign_flip_test(one, ref, groups=groups).p


def test_equal_values_stay_together_and_unknown_ones_are_left_out():
    volumes = np.repeat([1.0, 2.0, 3.0, 9.0], [12, 2, 2, 6])
    contested = np.where(np.arange(CASES) < 5, np.nan, np.arange(CASES))
    found = strata(compare_methods(methods(rater_volume=volumes, disagreement=contested), "ref"))
    by_volume = [s for s in found if s.by == "rater_volume"]
    assert [(s.number, len(s.comparison.cases)) for s in by_volume] == [(1, 12), (3, 4), (4, 6)]
    assert sum(len(s.comparison.cases) for s in found if s.by == "disagreement") == CASES - 5


def test_what_cannot_be_divided_is_not():
    flat = np.resize([1.0, 2.0, 3.0], CASES)
    found = strata(compare_methods(methods(rater_volume=flat), "ref", resamples=20))
    assert {s.by for s in found} == {"disagreement"}
    plain = {name: MethodResults(r.cases, {"tdsc": r.values["tdsc"]}) for name, r in
             methods().items()}  # fmt: skip
    assert strata(compare_methods(plain, "ref", resamples=20)) == []
    # One method says it: that is enough.
    plain["one"] = methods()["one"]
    assert len(strata(compare_methods(plain, "ref", resamples=20))) == 8


def test_tables_have_a_column_for_each_quarter():
    comparison = compare_methods(methods(), "ref", resamples=60)
    found = strata(comparison)
    tables = strata_tables(comparison, found)
    titles = [table.title for table in tables]
    assert titles == ["TDSC ↑", "Brier ↓"]
    (name, cells), *_ = tables[0].rows
    assert name == "one"
    assert [float(cell.text) for cell in cells] == [
        pytest.approx(s.comparison.intervals.mean[0, 0], abs=5e-4) for s in found
    ]
    assert tables[0].metrics[0].heading.startswith("volume ")
    assert tables[0].metrics[7].heading.endswith("(n = 6)")
    assert not any(cell.flag or cell.mark for _, row in tables[0].rows for cell in row)
    assert strata_tables(comparison, []) == []


def test_csv_and_page_have_every_quarter(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    comparison = build_report(methods(), tmp_path, reference="ref", resamples=20)
    text = (tmp_path / "strata.csv").read_text(encoding="utf-8")
    assert text == strata_csv(strata(comparison))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 8 * 2 * len(comparison.metrics)
    assert {"by", "quarter", "from", "to", "p", "effect", "difference low"} <= rows[0].keys()
    assert "vs reference" not in rows[0]
    assert {row["patients"] for row in rows} != {""}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "TDSC ↑ by quarter" in page
    few = {
        name: MethodResults(r.cases, {"tdsc": r.values["tdsc"]}) for name, r in methods().items()
    }
    build_report(few, tmp_path, reference="ref", resamples=20)
    assert not (tmp_path / "strata.csv").exists()
