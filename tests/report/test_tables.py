"""Tables 1 and 2: rounding, marks, flags, and names that would break the format."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from twintrack.report import MethodResults, compare_methods
from twintrack.report import tables as t

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cn"]), min_size=1, max_size=30)


def comparison_of(resamples=200, **columns):
    """Methods as rows of one metric each: {metric: {method: values}}."""
    names = list(next(iter(columns.values())))
    methods = {}
    for name in names:
        values = {key: np.asarray(of[name], float) for key, of in columns.items()}
        size = len(next(iter(values.values())))
        methods[name] = MethodResults(tuple(f"c{i:02d}" for i in range(size)), values)
    return compare_methods(methods, names[-1], resamples=resamples)


def column(table, j=0):
    return [cells[j] for _, cells in table.rows]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        # The paper's own columns, rounded as in its Table 1.
        ([0.5533, 0.2999, 0.3071, 0.5688], ["0.553", "0.300", "0.307", "0.569"]),
        ([0.01561, 0.02091, 0.02089, 0.01468], ["0.0156", "0.0209", "0.0209", "0.0147"]),
        ([6032.2, 10341.8, 9859.8, 5924.4], ["6032", "10342", "9860", "5924"]),
        ([32.663, 38.511, 34.185, 28.942], ["32.7", "38.5", "34.2", "28.9"]),
        ([6.338, 9.085, 7.292, 6.102], ["6.34", "9.09", "7.29", "6.10"]),
        # 9.996 becomes 10.0, with one decimal for all.
        ([9.996, 1.234], ["10.0", "1.2"]),
        ([0.0, 0.0], ["0.00", "0.00"]),
        ([-0.0004, 0.9], ["0.000", "0.900"]),
    ],
)
def test_columns_are_rounded_to_three_digits_of_the_largest(values, shown):
    methods = {f"m{i}": [value, value] for i, value in enumerate(values)}
    table = t.mean_table(comparison_of(tdsc=methods))
    assert [cell.text for cell in column(table)] == shown


def test_best_and_worst_follow_the_direction_and_share_ties_as_displayed():
    values = {"a": [0.10004] * 2, "b": [0.10001] * 2, "c": [0.9] * 2, "d": [0.5] * 2}
    table = t.mean_table(comparison_of(tdsc=values, ece=values, volume=values))
    assert [cell.mark for cell in column(table, 0)] == ["worst", "worst", "best", None]
    assert [cell.mark for cell in column(table, 1)] == ["best", "best", "worst", None]
    assert [cell.mark for cell in column(table, 2)] == [None] * 4


def test_nothing_is_marked_where_all_are_equal_or_alone():
    assert not t.mean_table(comparison_of(ece={"a": [1, 2], "b": [1, 2]})).marked
    assert not t.mean_table(comparison_of(ece={"a": [1, 2]})).marked


def test_significant_differences_are_flagged_both_ways(methods):
    base = np.linspace(0.2, 0.4, 9)
    wobble = np.resize([0.01, -0.01, 0.0], 9)
    table = t.mean_table(
        comparison_of(
            ece={"worse": base + 0.1, "same": base + wobble, "better": base - 0.1, "ref": base}
        )
    )
    assert [cell.flag for cell in column(table)] == ["††", "", "‡‡", ""]
    assert "† worse than ref, ‡ better: the 95% interval" in table.caption


def test_missing_metrics_show_a_dash_and_fewer_cases_are_said(methods):
    del methods["None"].values["crps"]
    comparison = compare_methods(methods, resamples=50)
    table = t.interval_table(comparison)
    cells = dict(table.rows)["None"]
    crps = [metric.key for metric in table.metrics].index("crps")
    assert (cells[crps].text, cells[crps].interval, cells[crps].mark) == ("–", "", None)
    assert "PORTA over 13" in table.caption
    assert "CRPS over" not in table.caption


def test_intervals_surround_the_means(methods):
    comparison = compare_methods(methods, resamples=300)
    for j, _ in enumerate(comparison.metrics):
        for cell in column(t.interval_table(comparison), j):
            low, high = (float(end) for end in cell.interval.strip("[]").split(", "))
            assert low <= float(cell.text) <= high


def test_differences_leave_out_the_reference_and_show_their_sign(methods):
    table = t.difference_table(compare_methods(methods, resamples=300))
    assert [name for name, _ in table.rows] == ["None", "Single-rater", "Hard-label"]
    cell = dict(table.rows)["Single-rater"][0]
    assert float(cell.text) < 0
    assert cell.flag == "††"
    assert re.fullmatch(r"p = 0\.000\d, d = -\d+\.\d\d", cell.test)
    assert float(dict(table.rows)["Single-rater"][2].text) > 0
    assert dict(table.rows)["Single-rater"][2].text.startswith("+")


def parsed_markdown(text):
    """Cells of the first table that a Markdown parser sees, as plain text."""
    rows, cells = [], []
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    for i, token in enumerate(tokens):
        if token.type in ("th_open", "td_open"):
            cells.append("".join(child.content for child in tokens[i + 1].children))
        elif token.type == "tr_close":
            rows.append(cells)
            cells = []
    return rows


def test_markdown_is_a_table_that_parsers_read(methods):
    comparison = compare_methods(methods, resamples=300)
    text = t.markdown(t.interval_table(comparison))
    rows = parsed_markdown(text)
    assert [row[0] for row in rows] == ["Method", *methods]
    assert rows[0][1:] == ["TDSC ↑", "ECE ↓", "CRPS ↓", "PORTA ↓", "Brier ↓"]
    assert all(len(row) == 6 for row in rows)
    assert re.search(r"\| \*\*0\.\d+\*\* \[0\.\d+, 0\.\d+\] \|", text)
    assert "†" in rows[2][1]


@given(NAMES)
def test_any_name_is_literal_in_markdown(name):
    shown = " ".join(t.one_line(name).split())
    row = parsed_markdown(f"| a | b |\n| --- | --- |\n| x{t.escape_markdown(name)}x | y |\n")[1]
    assert [" ".join(row[0].split()), row[1]] == [" ".join(f"x{t.one_line(name)}x".split()), "y"]
    assert shown in " ".join(row[0].split()) or not shown


@given(NAMES)
def test_any_name_is_literal_in_latex(name):
    # Every special character is replaced, so undoing the replacements gives the name back.
    escaped = t.escape_latex(name)
    bare = re.sub(
        r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$\^\{\\d?dagger\}\$|\$\\(up|down)arrow\$|\{[\[*]\}",
        "",
        escaped,
    )
    assert not re.search(r"[\\&%$#_{}~^<>|*\[]", bare)
    assert "\n" not in escaped


@given(NAMES)
def test_no_name_is_a_formula_in_a_spreadsheet(name):
    written = t.escape_csv(name)
    assert written.removeprefix("'") == name or written == name
    assert written.strip()[:1] not in {"=", "+", "-", "@"}
    assert written[:1] not in {"\t", "\r"}


def test_latex_has_a_row_per_method_and_one_for_its_intervals(methods):
    comparison = compare_methods(methods, resamples=100)
    means, intervals = t.latex(t.mean_table(comparison)), t.latex(t.interval_table(comparison))
    for text, rows in ((means, 5), (intervals, 9)):
        lines = [line for line in text.splitlines() if r" \\" in line]
        assert len(lines) == rows
        assert {line.count(" & ") for line in lines} == {5}
        assert text.count("{") == text.count("}")
        assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    assert r"TDSC $\uparrow$" in means
    assert r"\textbf{" in means
    assert r"$^{\dagger}$" in means
    assert "†" not in means


def test_csv_keeps_full_precision_and_harmless_names(methods):
    renamed = {"=HYPERLINK()": methods["None"], "MHR, ours": methods["MHR"]}
    comparison = compare_methods(renamed, resamples=100)
    wide = list(csv.DictReader(io.StringIO(t.mean_csv(comparison))))
    tall = list(csv.DictReader(io.StringIO(t.interval_csv(comparison))))
    assert [row["method"] for row in wide] == ["'=HYPERLINK()", "MHR, ours"]
    assert float(wide[0]["tdsc"]) == comparison.intervals.mean[0, 0]
    assert wide[0]["tdsc vs reference"] == "worse"
    assert len(tall) == 2 * len(comparison.metrics)
    porta = next(row for row in tall if row["metric"] == "vi_PORTA")
    assert (porta["cases"], porta["better"]) == ("13", "lower")
    # Negative figures stay numbers.
    assert float(tall[0]["difference mean"]) == comparison.differences.mean[0, 0] < 0
    # Every figure stands under its own name.
    for at, row in enumerate(tall):
        place = divmod(at, len(comparison.metrics))
        for prefix, result, parts in (
            ("", comparison.intervals, ("observed", "mean", "low", "high")),
            ("difference ", comparison.differences, ("mean", "low", "high")),
        ):
            for part in parts:
                assert float(row[prefix + part]) == getattr(result, part)[place]


def test_csv_leaves_undefined_figures_empty(methods):
    del methods["None"].values["crps"]
    rows = list(csv.DictReader(io.StringIO(t.mean_csv(compare_methods(methods, resamples=20)))))
    assert rows[0]["crps"] == rows[0]["crps vs reference"] == ""


@pytest.mark.parametrize("width", [40, 60, 200])
def test_terminal_shows_every_figure_at_any_width(methods, width):
    # A narrow terminal must not shorten figures to dots.
    renamed = {"[bold]x[/bold]\x1b[31m": methods["None"], "MHR": methods["MHR"]}
    table = t.mean_table(compare_methods(renamed, resamples=50))
    console = Console(file=io.StringIO(), width=width)
    t.print_table(table, console)
    text = console.file.getvalue()
    for _, cells in table.rows:
        for cell in cells:
            assert cell.text + cell.flag in text
    assert "[bold]x" in re.sub(r"\s", "", text)
    assert "\x1b" not in text
    assert "…" not in text


def test_entities_in_names_stay_as_written():
    row = parsed_markdown(f"| a |\n| --- |\n| {t.escape_markdown('a&lt;b')} |\n")[1]
    assert row == ["a&lt;b"]
