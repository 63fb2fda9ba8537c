"""What a flag needs, and what is said of it wherever it stands."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from rich.console import Console

from twintrack.report import MethodResults, build_report, compare_methods
from twintrack.report import tables as t
from twintrack.report.cautions import cautions

FEW = "With fewer than 6 cases, as here with 5: no difference can be flagged."
CHANCE = (
    "2 differences were looked at, each by itself: about 0.1 of them would be flagged by chance"
)
BOTH = "excludes 0, and a sign-flip test over the cases gives p < 0.05"
SIGN = {
    "md": r"\d\**†",
    "tex": r"\d\}?\$\^\{dagger",
    "csv": ",worse,",
    "html": 'class="flag">†',
    "terminal": r"\d†",
}
ALONE = "excludes 0, the paper's rule alone"


def methods_of(cases, **columns):
    """Two methods, each column being (differences, of the reference)."""
    names = tuple(f"c{k:02d}" for k in range(cases))
    one = {key: np.asarray(d) + np.asarray(base) for key, (d, base) in columns.items()}
    reference = {key: np.zeros(cases) + np.asarray(base) for key, (_, base) in columns.items()}
    return {"one": MethodResults(names, one), "ref": MethodResults(names, reference)}


@pytest.fixture
def five():
    """Differences in all of five cases, of two metrics: only the interval excludes 0."""
    step = np.array([0.1, 0.11, 0.12, 0.13, 0.14])
    return methods_of(5, tdsc=(-step, 0.5), ece=(step, 0.2))


@pytest.mark.parametrize("rule", ["both", "interval"])
def test_rule_and_cautions_stand_in_every_output(five, tmp_path, rule):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    comparison = build_report(five, tmp_path, reference="ref", resamples=50, rule=rule)
    console = Console(file=io.StringIO(), width=300)
    t.print_table(t.mean_table(comparison), console)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("table*")}
    written["report.html"] = (tmp_path / "report.html").read_text(encoding="utf-8")
    written["terminal"] = console.file.getvalue()
    assert len(written) == 8
    said = {"both": BOTH, "interval": ALONE}[rule]
    for name, text in written.items():
        plain = text.replace("\\", "").replace("textless{}", "<").replace("&lt;", "<")
        plain = plain.replace("&#39;", "'")
        if name.endswith(".csv"):
            assert {row["rule"] for row in csv.DictReader(io.StringIO(text))} == {rule}
        else:
            assert said in plain, name
        assert (CHANCE in plain) == (rule == "interval"), name  # else it cannot happen
        assert (FEW in plain) == (rule == "both"), name
        easily = "are too narrow, and differences are flagged too easily."
        assert (easily in plain) == (rule == "interval"), name
        flag = SIGN[name.rpartition(".")[2]]
        assert bool(re.search(flag, plain)) == (rule == "interval"), name


def test_figures_say_what_their_signs_mean(five):
    pytest.importorskip("matplotlib")
    from twintrack.report import figures

    comparison = compare_methods(five, "ref", resamples=50)
    told = " ".join(figures.interval_figure(comparison).get_supxlabel().split())
    assert BOTH in told
    assert FEW in told
    assert figures.interval_figure(comparison, comparison.metrics).get_supxlabel() == ""


def test_a_flag_needs_interval_and_test(five):
    assert compare_methods(five, "ref").verdict(0, 0) is None
    assert compare_methods(five, "ref", rule="interval").verdict(0, 0) == "worse"
    six = methods_of(6, tdsc=(-np.linspace(0.1, 0.2, 6), 0.5))
    assert compare_methods(six, "ref").verdict(0, 0) == "worse"
    # 98% of one side's weight: the test flags it, and an interval of 99.9% does not exclude 0.
    uneven = methods_of(40, tdsc=([1.0] * 25 + [-1.0] * 15, 0.5))
    loose = compare_methods(uneven, "ref")
    assert loose.tests.p[0, 0] > 0.05
    assert loose.verdict(0, 0) is None


def test_the_level_is_that_of_test_and_interval(five):
    # 2 / 2^5 is below 0.1, and 2 / 2^6 is not below 0.01.
    assert compare_methods(five, "ref", level=0.9).verdict(0, 0) == "worse"
    assert compare_methods(five, "ref", level=0.9).fewest == 5
    six = methods_of(6, tdsc=(-np.linspace(0.1, 0.2, 6), 0.5))
    strict = compare_methods(six, "ref", level=0.99)
    assert strict.verdict(0, 0) is None
    assert (strict.alpha, strict.fewest) == (0.01, 8)
    assert "p < 0.01" in t.mean_table(strict).caption


def test_an_unknown_rule_is_refused(five):
    with pytest.raises(ValueError, match="rule is 'paper'; choose from both, interval"):
        compare_methods(five, rule="paper")


def test_a_column_counts_its_own_values():
    differences = np.linspace(0.1, 0.2, 40)
    few = np.where(np.arange(40) < 3, differences, np.nan)
    comparison = compare_methods(methods_of(40, tdsc=(differences, 0.5), ece=(few, 0.5)), "ref")
    assert [comparison.verdict(0, j) for j in (0, 1)] == ["better", None]
    assert [comparison.values_of(j) for j in (0, 1)] == [40, 3]
    told = cautions(comparison)
    assert "With fewer than 6 cases, as here for ECE (3): no difference can be flagged." in told
    assert not [text for text in told if "TDSC" in text]
    assert cautions(comparison, comparison.metrics[:1]) == ()
    rows = list(csv.DictReader(io.StringIO(t.interval_csv(comparison))))
    assert [row["cases"] for row in rows[:2]] == ["40", "3"]


def test_patients_are_what_is_counted():
    methods = methods_of(40, tdsc=(np.linspace(0.1, 0.2, 40), 0.5))
    patients = {case: f"p{k % 4}" for k, case in enumerate(methods["one"].cases)}
    whose = {
        name: MethodResults(results.cases, results.values, patients=patients)
        for name, results in methods.items()
    }
    comparison = compare_methods(whose, "ref")
    assert comparison.verdict(0, 0) is None
    assert comparison.tests.p[0, 0] == 2 / 2**4
    assert "With fewer than 6 patients, as here with 4: no difference can be flagged." in cautions(
        comparison
    )
    assert "a sign-flip test over the patients" in t.mean_table(comparison).caption


def test_what_is_not_shown_is_not_flagged():
    wave = 1e-5 * np.resize([1, 2], 12)
    base = np.linspace(0.5, 0.9, 12)
    # Means of 0.7 are shown with three digits: 0.700, and 0.7004 as well.
    for step, verdict in ((4e-4, "equal"), (9e-4, "better")):
        for rule in ("both", "interval"):
            comparison = compare_methods(methods_of(12, tdsc=(step + wave, base)), "ref", rule=rule)
            assert comparison.differences.significant[0, 0]
            assert comparison.tests.p[0, 0] < 0.05
            assert comparison.verdict(0, 0) == verdict
    # Rounded apart, but by less than is shown; and by as much, but shown alike.
    for of_reference, step, shown in ((0.7003, 3e-4, "0.701"), (0.6996, 8e-4, "0.700")):
        comparison = compare_methods(methods_of(12, tdsc=(step + wave, of_reference)), "ref")
        (_, (one,)), (_, (ref,)) = t.mean_table(comparison).rows
        assert (one.text, ref.text) == (shown, "0.700")
        assert comparison.differences.significant[0, 0]
        assert comparison.tests.p[0, 0] < 0.05
        assert comparison.verdict(0, 0) == "equal"
        assert comparison.verdict(1, 0) is None  # of the reference
        assert t.flag_of(comparison, 0, 0) == ""


def test_the_double_sign_stands_after_holm_over_the_table():
    # p = 2 / 2^6 for each: alone below 0.05, not with another of the same table.
    step = np.linspace(0.1, 0.2, 6)
    two = compare_methods(methods_of(6, tdsc=(step, 0.5), ece=(step, 0.5)), "ref")
    assert two.adjusted[0].tolist() == [4 / 2**6] * 2
    assert np.isnan(two.adjusted[1]).all()
    assert t.flag_of(two, 0, 0) == "‡"
    further = compare_methods(methods_of(6, tdsc=(step, 0.5), brier=(step, 0.5)), "ref")
    assert [t.flag_of(further, 0, j) for j in (0, 1)] == ["‡‡", "††"]  # tables of their own
    volume = compare_methods(methods_of(6, brier=(step, 0.5), volume_bias=(step, 0.5)), "ref")
    assert t.flag_of(volume, 0, 0) == "††"  # what has no better side is not tested
    rows = list(csv.DictReader(io.StringIO(t.interval_csv(two))))
    assert (rows[0]["p"], rows[0]["p Holm"]) == (repr(2 / 2**6), repr(4 / 2**6))
    assert (rows[0]["vs reference"], rows[0]["holds after Holm"]) == ("better", "")
    assert float(rows[0]["effect"]) == two.effects[0, 0] > 0
    assert rows[2]["p"] == rows[2]["effect"] == ""  # the reference


def test_the_page_tells_how_large_differences_are(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    base = np.linspace(0.3, 0.9, 12)
    slight = 0.003 + 1e-4 * np.resize([1, 2], 12)
    methods = methods_of(12, tdsc=(slight, base), ece=(0.3 + slight, base), crps=(0 * base, base))
    methods["one"].values["brier"] = base
    methods["ref"].values["brier"] = base[::-1] + 0.01
    build_report(methods, tmp_path, reference="ref", resamples=50)
    page = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    assert "is worse on ECE (+0.303, d = +1.54)" in page
    assert "slightly better on TDSC (+0.00315, d = +0.02)" in page
    assert "not told apart from it on Brier" in page
    assert "equal to it, as figures are shown, on CRPS" in page
    assert "significant" not in page.replace("significantly", "significant")
