"""Matching of cases, what counts for a metric, and the verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twintrack.report import MethodResults, compare_methods
from twintrack.statistics import bootstrap, paired_bootstrap


def one(values, cases=None, **kwargs):
    cases = tuple(cases or (f"c{i}" for i in range(len(values))))
    return MethodResults(cases, {"tdsc": np.array(values, float)}, **kwargs)


def column(comparison, key):
    return [metric.key for metric in comparison.metrics].index(key)


def test_figures_are_those_of_the_bootstrap(methods):
    comparison = compare_methods(methods, resamples=300, seed=4, level=0.9, method="bca")
    j = column(comparison, "crps")
    worst, reference = (methods[name].values["crps"] for name in ("Single-rater", "MHR"))
    alone = bootstrap(worst, 300, 4, 0.9, "bca")
    difference = paired_bootstrap(worst, reference, 300, 4, 0.9, "bca")
    assert comparison.reference == "MHR"
    assert comparison.intervals.high[1, j] == pytest.approx(alone.high, rel=1e-12)
    assert comparison.differences.low[1, j] == pytest.approx(difference.low, rel=1e-12)


def test_order_of_rows_does_not_matter(methods):
    # Cases are matched by name: a folder written in another order must give the same bytes.
    results = methods["None"]
    turned = np.roll(np.arange(len(results.cases)), 5)
    shuffled = replace(
        results,
        cases=tuple(results.cases[i] for i in turned),
        values={key: column[turned] for key, column in results.values.items()},
    )
    ours = compare_methods(methods, resamples=100)
    theirs = compare_methods({**methods, "None": shuffled}, resamples=100)
    np.testing.assert_array_equal(ours.intervals.low, theirs.intervals.low)
    np.testing.assert_array_equal(ours.values, theirs.values)


def test_only_shared_cases_count_and_the_others_are_listed():
    methods = {
        "a": one([0.1, 0.2, 0.9], "xyz"),
        "b": one([0.3, 0.1], "xy", failures={"z": "truncated", "w": "no score"}),
    }
    comparison = compare_methods(methods, resamples=20)
    assert comparison.cases == ("x", "y")
    assert comparison.intervals.observed[0, 0] == pytest.approx(0.15)
    assert comparison.left_out == {"z": "b: truncated", "w": "no score"}


def test_a_case_undefined_in_one_method_does_not_count_for_any(methods):
    methods["None"].values["tdsc"][3] = np.nan
    comparison = compare_methods(methods, resamples=50)
    j = column(comparison, "tdsc")
    assert comparison.undefined["tdsc"] == ("case_03",)
    assert comparison.intervals.cases[:, j].tolist() == [13] * 4
    mean = np.delete(methods["MHR"].values["tdsc"], 3).mean()
    assert comparison.intervals.observed[3, j] == pytest.approx(mean)


def test_a_method_without_the_metric_does_not_hide_it_in_the_others(methods):
    del methods["None"].values["crps"]
    comparison = compare_methods(methods, resamples=50)
    j = column(comparison, "crps")
    assert comparison.intervals.cases[:, j].tolist() == [0, 14, 14, 14]
    assert np.isnan(comparison.intervals.mean[0, j])
    assert comparison.verdict(0, j) is None


def test_a_metric_that_no_case_has_in_all_methods_is_dropped_and_named():
    first = MethodResults(("x", "y"), {"tdsc": np.ones(2), "ece": np.array([1.0, np.nan])})
    second = MethodResults(("x", "y"), {"tdsc": np.ones(2), "ece": np.array([np.nan, 1.0])})
    comparison = compare_methods({"a": first, "b": second}, resamples=20)
    assert [metric.key for metric in comparison.metrics] == ["tdsc"]
    assert comparison.undefined == {"ece": ("x", "y")}


def test_verdicts_follow_the_direction_of_the_metric():
    # Higher TDSC is better, higher ECE is worse.
    cases = tuple("abcdefgh")
    base, step = np.linspace(0.2, 0.4, 8), 0.1
    methods = {
        "up": MethodResults(cases, dict.fromkeys(("tdsc", "ece", "volume"), base + step)),
        "ref": MethodResults(cases, dict.fromkeys(("tdsc", "ece", "volume"), base)),
    }
    comparison = compare_methods(methods, "ref", resamples=50)
    verdicts = {metric.key: comparison.verdict(0, j) for j, metric in enumerate(comparison.metrics)}
    assert verdicts == {"tdsc": "better", "ece": "worse", "volume": None}
    assert comparison.verdict(1, 0) is None


def test_the_reference_is_the_one_calibrated_to_the_mhr_or_the_last():
    calibrated = {"calibrator": {"target": "mhr"}}
    assert (
        compare_methods({"A": one([1, 2], provenance=calibrated), "B": one([1, 3])}).reference
        == "A"
    )
    assert compare_methods({"TwinTrack": one([1, 2]), "B": one([1, 3])}).reference == "TwinTrack"
    assert compare_methods({"mhr 50": one([1, 2]), "mhr 250": one([1, 3])}).reference == "mhr 250"
    named_so = {"mhr": one([1, 2], provenance={"calibrator": {"target": "hard"}}), "B": one([1, 3])}
    assert compare_methods(named_so).reference == "B"


def test_one_method_alone_can_be_shown(methods):
    comparison = compare_methods({"None": methods["None"]}, resamples=20)
    assert comparison.reference == "None"
    assert not comparison.differences.significant.any()


def test_what_cannot_be_compared_is_refused(methods):
    with pytest.raises(ValueError, match="no methods"):
        compare_methods({})
    with pytest.raises(ValueError, match="reference is 'mhr'; choose from 'None', "):
        compare_methods(methods, "mhr")
    with pytest.raises(ValueError, match=r"no case .* a has x.*; b has y"):
        compare_methods({"a": one([1], "x"), "b": one([1], "y")})
    with pytest.raises(ValueError, match="no metric"):
        compare_methods({"a": MethodResults(("x",), {})})
    methods["None"] = replace(methods["None"], provenance={"protocol": "corrected"})
    with pytest.raises(ValueError, match=r"different protocols .*None: corrected, .*MHR: official"):
        compare_methods(methods)
    methods["None"] = replace(methods["None"], provenance={"protocol": "official", "ece_bins": 15})
    with pytest.raises(ValueError, match=r"different numbers of bins .*None: 15, .*MHR: 50"):
        compare_methods(methods)


def test_figures_by_different_formulas_are_not_compared():
    def made_by(**provenance):
        return one([0.1, 0.2], provenance=provenance)

    new = made_by(twintrack="2", editions={"tdsc": 2, "crps": 1, "staple": 3})
    without_staple = made_by(twintrack="2", editions={"tdsc": 2, "crps": 1})
    before_editions = made_by(twintrack="0.1.0")
    first = made_by(twintrack="1", editions={"tdsc": 1, "crps": 1})
    for alike in ([new, without_staple], [before_editions, first], [new, one([0.3, 0.4])]):
        compare_methods(dict(zip("ab", alike, strict=True)), resamples=20)
    for older in (before_editions, first):
        with pytest.raises(
            ValueError, match=r"figures of tdsc are by .* editions .*\(a: 2, b: 1\)"
        ):
            compare_methods({"a": new, "b": older}, resamples=20)


def test_patients_are_drawn_whole():
    values = np.random.default_rng(0).random((2, 9))
    patients = dict(zip((f"c{i}" for i in range(9)), "QPPRQSPTT", strict=True))
    methods = {"a": one(values[0], patients=patients), "b": one(values[1])}  # b does not say
    comparison = compare_methods(methods, resamples=200, seed=3)
    groups = [patients[case] for case in comparison.cases]
    alone = bootstrap(values[0], 200, 3, groups=groups)
    difference = paired_bootstrap(values[0], values[1], 200, 3, groups=groups)
    assert comparison.intervals.low[0, 0] == pytest.approx(alone.low, rel=1e-12)
    assert comparison.differences.high[0, 0] == pytest.approx(difference.high, rel=1e-12)
    assert comparison.intervals.groups.tolist() == [[5], [5]]
    assert (comparison.independent, comparison.units) == (5, "9 cases of 5 patients")
    plain = compare_methods({"a": one(values[0]), "b": one(values[1])}, resamples=200, seed=3)
    assert (plain.patients, plain.units) == (None, "9 cases")
    own = {case: case for case in patients}
    named = compare_methods({"a": one(values[0], patients=own), "b": one(values[1])}, None, 200, 3)
    assert named.intervals == plain.intervals


def test_methods_agree_whose_the_cases_are():
    cases, patients = ("x", "y"), {"x": "P", "y": "P"}
    first = one([0.1, 0.2], cases, patients=patients)
    second = one([0.1, 0.2], cases, patients={"x": "P", "y": "y"})
    with pytest.raises(ValueError, match=r"case 'y': it is of different patients \(a: P, b: y\)"):
        compare_methods({"a": first, "b": second}, resamples=20)
    # A case that is not compared may be of whom it likes.
    third = one([0.1], "x", patients={"x": "P"})
    assert compare_methods({"a": first, "b": second, "c": third}, resamples=20).patients == ("P",)
