"""The paper's Tables 1 and 2 as Markdown, LaTeX, CSV and on the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.console import Console
from rich.markup import escape as escape_rich
from rich.table import Table as RichTable

from twintrack.calibration.fitted_on import count
from twintrack.files import csv_text
from twintrack.report.cautions import cautions
from twintrack.report.columns import Metric
from twintrack.report.comparison import Comparison, Verdict
from twintrack.report.rounding import MISSING, bracket, decimals, rounded

Mark = Literal["best", "worst"]

# The sign of a difference from the reference; doubled where it holds among those of the table.
FLAGS: dict[Verdict | None, str] = {"worse": "†", "better": "‡", "equal": "", None: ""}
# The sign of a method whose map was fitted on some of the cases.
FITTED = "§"


@dataclass(frozen=True)
class Cell:
    """One figure.

    Attributes
    ----------
    text
        Rounded value.
    interval
        Rounded interval in brackets, or empty.
    mark
        "best" or "worst" of its column, as displayed: equal roundings share the mark.
    flag
        † for worse than the reference, ‡ for better, by the comparison's rule; doubled where this
        holds after Holm's correction, too. Empty where the two are not told apart.
    test
        Of a difference: p of the sign-flip test, and the effect size; or empty.
    """

    text: str
    interval: str = ""
    mark: Mark | None = None
    flag: str = ""
    test: str = ""


@dataclass(frozen=True)
class Table:
    """A table ready to be written in any format: a row per method, a column per metric."""

    caption: str
    metrics: tuple[Metric, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    cautions: tuple[str, ...] = ()

    @property
    def marked(self) -> bool:
        """Whether a best or worst is marked."""
        return any(cell.mark for _, cells in self.rows for cell in cells)


def mean_table(comparison: Comparison, metrics: Sequence[Metric] | None = None) -> Table:
    """Table 1: bootstrap means, best and worst marked, differences flagged."""
    return _table(comparison, metrics, with_intervals=False)


def interval_table(comparison: Comparison, metrics: Sequence[Metric] | None = None) -> Table:
    """Table 2: bootstrap means with their confidence intervals."""
    return _table(comparison, metrics, with_intervals=True)


def difference_table(comparison: Comparison, metrics: Sequence[Metric] | None = None) -> Table:
    """Paired differences from the reference, with intervals, p and effect sizes: see the flags."""
    chosen = _columns(comparison, metrics)
    rows = _rows(comparison, chosen, of_differences=True)
    kept = [
        row
        for method, row in zip(comparison.methods, rows, strict=True)
        if method != comparison.reference
    ]
    caption = (
        f"Mean difference from {comparison.reference} over the same {comparison.units}, "
        f"with its {_level(comparison)} interval, p of the sign-flip test, and the effect d: the "
        "difference divided by the standard deviation of the metric over cases; 0.2 is small, 0.8 "
        f"large (Cohen). {flag_legend(comparison)}{_fitted_legend(comparison)}"
    )
    return Table(caption, chosen, tuple(kept), cautions(comparison, chosen))


def _table(comparison: Comparison, metrics: Sequence[Metric] | None, with_intervals: bool) -> Table:
    chosen = _columns(comparison, metrics)
    rows = _rows(comparison, chosen, with_intervals=with_intervals)
    resamples = comparison.intervals.resamples
    caption = (
        f"Bootstrap means over {resamples} resamples of {comparison.units}"
        f"{f', with {_level(comparison)} confidence intervals' if with_intervals else ''}. "
        f"{flag_legend(comparison)}"
        f"{_count_legend(comparison, chosen)}"
        f"{_fitted_legend(comparison)}"
    )
    return Table(caption, chosen, tuple(rows), cautions(comparison, chosen))


def _rows(
    comparison: Comparison,
    metrics: Sequence[Metric],
    with_intervals: bool = True,
    of_differences: bool = False,
) -> Iterator[tuple[str, tuple[Cell, ...]]]:
    """Yield the row of each method: means, the best and worst marked, or signed differences."""
    result = comparison.differences if of_differences else comparison.intervals
    sign = "+" if of_differences else "-"
    columns = []
    for metric in metrics:
        j = comparison.metrics.index(metric)
        low, mean, high = result.low[:, j], result.mean[:, j], result.high[:, j]
        digits = decimals(np.stack([low, high]) if of_differences else mean)
        texts = [rounded(value, digits, sign) for value in mean]
        marks = [None] * len(texts) if of_differences else _marks(texts, metric)
        columns.append(
            [
                Cell(
                    text,
                    bracket(low[i], high[i], digits, sign) if with_intervals else "",
                    mark,
                    flag_of(comparison, i, j),
                    _test(comparison, i, j) if of_differences else "",
                )
                for i, (text, mark) in enumerate(zip(texts, marks, strict=True))
            ]
        )
    for method, cells in zip(comparison.methods, zip(*columns, strict=True), strict=True):
        yield signed(comparison, method), cells


def _columns(comparison: Comparison, metrics: Sequence[Metric] | None) -> tuple[Metric, ...]:
    return comparison.metrics if metrics is None else tuple(metrics)


def _level(comparison: Comparison) -> str:
    return f"{100 * comparison.intervals.level:g}%"


def flag_of(comparison: Comparison, method: int, metric: int) -> str:
    """Return the sign of a verdict, doubled where it holds after Holm's correction, too."""
    flag = FLAGS[comparison.verdict(method, metric)]
    return 2 * flag if comparison.holds_among(method, metric) else flag


def flag_legend(comparison: Comparison) -> str:
    """Say what the signs mean, and by which rule they are given."""
    if len(comparison.methods) == 1:
        return ""
    worse, better = FLAGS["worse"], FLAGS["better"]
    test = f"a sign-flip test over the {comparison.kind} gives p < {comparison.alpha:g}"
    holm = "after Holm's correction over a table's metrics"
    rule, doubled = (
        (f", and {test}", f"so it does {holm}")
        if comparison.rule == "both"
        else (", the paper's rule alone", f"{test} {holm}, too")
    )
    return (
        f"{worse} worse than {comparison.reference}, {better} better: the {_level(comparison)} "
        f"interval of the paired difference excludes 0{rule}; {2 * worse} {2 * better}: {doubled}. "
        "What the figures as shown do not tell apart is not flagged."
    )


def _test(comparison: Comparison, method: int, metric: int) -> str:
    p, effect = comparison.tests.p[method, metric], comparison.effects[method, metric]
    told = [] if math.isnan(p) else [f"p = {p:.4f}" if p >= 1e-4 else "p < 0.0001"]
    return ", ".join(told + ([] if math.isnan(effect) else [f"d = {effect:+.2f}"]))


def _count_legend(comparison: Comparison, metrics: Iterable[Metric]) -> str:
    fewer = [
        f"{metric.label} over {len(comparison.cases) - len(comparison.undefined[metric.key])}"
        for metric in metrics
        if metric.key in comparison.undefined
    ]
    return f" Fewer cases where a metric is undefined: {', '.join(fewer)}." if fewer else ""


def signed(comparison: Comparison, method: str) -> str:
    """Return the name of a method, with a sign if its map was fitted on some of the cases."""
    return f"{method} {FITTED}" if comparison.fitted_on.get(method) else method


def _fitted_legend(comparison: Comparison) -> str:
    fitted = [
        f"{name} on {count(overlap)}" for name, overlap in comparison.fitted_on.items() if overlap
    ]
    if not fitted:
        return ""
    return (
        f" {FITTED} fitted on some of these {len(comparison.cases)} cases, which makes figures too "
        f"good: {', '.join(fitted)}."
    )


def _marks(texts: Sequence[str], metric: Metric) -> list[Mark | None]:
    shown = [float(text) for text in texts if text != MISSING]
    if metric.better is None or not shown or min(shown) == max(shown):
        return [None] * len(texts)
    best, worst = (max, min) if metric.better == "higher" else (min, max)
    marks: dict[float, Mark] = {worst(shown): "worst", best(shown): "best"}
    return [None if text == MISSING else marks.get(float(text)) for text in texts]


def one_line(text: str) -> str:
    """Replace line breaks and other control characters by spaces."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)


def escape_markdown(text: str) -> str:
    """Make `text` literal inside a Markdown table cell."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", one_line(text))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a row [ and * would belong to the \\ before it
    "*": "{*}",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "§": r"\textsection{}",
    "–": "--",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def escape_latex(text: str) -> str:
    """Make `text` literal in LaTeX text mode."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def escape_csv(text: str) -> str:
    """Keep spreadsheets from taking a name for a formula: such cells start with an apostrophe."""
    # OWASP, "CSV injection": these first characters, also after blanks, start a formula.
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") or text[:1] in "\t\r" else text


def markdown(table: Table) -> str:
    """Write a Markdown table: best in bold, worst in italics."""

    def written(cell: Cell) -> str:
        wrap = {"best": "**", "worst": "*", None: ""}[cell.mark]
        parts = (f"{wrap}{cell.text}{wrap}{cell.flag}", cell.interval, cell.test)
        text = " ".join(filter(None, parts))
        return text.replace("-", "−")

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    head = (f"{escape_markdown(metric.label)} {metric.arrow}".strip() for metric in table.metrics)
    rows = (line([escape_markdown(name), *map(written, cells)]) for name, cells in table.rows)
    caption = escape_markdown(table.caption) + (_MARK_LEGEND[0] if table.marked else "")
    rule = f"| --- |{' ---: |' * len(table.metrics)}"
    text = [line(["Method", *head]), rule, *rows, "", caption, ""]
    return "\n".join([*text, *(f"{escape_markdown(caution)}\n" for caution in table.cautions)])


_MARK_LEGEND = (" Best **bold**, worst *italic*.", r" Best \textbf{bold}, worst \textit{italic}.")


def latex(table: Table) -> str:
    """Write a LaTeX table for the package booktabs; intervals stand below their means."""

    def number(text: str) -> str:
        return text.replace("-", "$-$") if text != MISSING else "--"

    def written(cell: Cell) -> str:
        text = number(cell.text)
        if cell.mark is not None:
            text = rf"\{'textbf' if cell.mark == 'best' else 'textit'}{{{text}}}"
        return text + escape_latex(cell.flag)

    def line(cells: Iterable[str], gap: str = "") -> str:
        return " & ".join(cells) + r" \\" + gap

    caption = escape_latex(table.caption) + (_MARK_LEGEND[1] if table.marked else "")
    caption = " ".join([caption, *map(escape_latex, table.cautions)])
    rows = []
    for name, cells in table.rows:
        row = [escape_latex(name), *map(written, cells)]
        brackets = [
            rf"{{\scriptsize {number(cell.interval)}}}" if cell.interval else "" for cell in cells
        ]
        if any(brackets):
            rows += [line(row, "[-0.4ex]"), line(["", *brackets]), r"\addlinespace[0.3ex]"]
        else:
            rows.append(line(row))
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}",
            r"\toprule",
            line(["Method", *(escape_latex(metric.heading) for metric in table.metrics)]),
            r"\midrule",
            *rows,
            *(r"\bottomrule", r"\end{tabular}", r"\end{table}", ""),
        ]
    )


def mean_csv(comparison: Comparison) -> str:
    """Table 1 at full precision: a row per method, a mean and a verdict per metric.

    Then come the number of cases that the method's map was fitted on, empty if that is not known,
    the rule of the verdicts, and what to know before trusting them.
    """
    about = [comparison.rule, " ".join(cautions(comparison))]
    head = ["method"]
    for metric in comparison.metrics:
        head += [escape_csv(metric.key), escape_csv(f"{metric.key} vs reference")]
    rows = []
    for i, name in enumerate(comparison.methods):
        row = [escape_csv(name)]
        for j in range(len(comparison.metrics)):
            row += [_number(comparison.intervals.mean[i, j]), comparison.verdict(i, j) or ""]
        overlap = comparison.fitted_on.get(name, {})
        rows.append([*row, "" if overlap is None else str(count(overlap)), *about])
    return csv_text([*head, "cases fitted on", "rule", "caution"], rows)


def interval_csv(comparison: Comparison) -> str:
    """Table 2 and the paired differences at full precision: a row per method and metric.

    `cases`, and `patients`, are those with a value of the metric. After the differences come p of
    the sign-flip test, p after Holm's correction, the effect size, the verdict, whether it stands
    after the correction, its rule, and what to know before trusting it.
    """
    return csv_text(*interval_rows(comparison))


def interval_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of `interval_csv`."""
    means, differences = comparison.intervals, comparison.differences
    grouped = ["patients"] * (comparison.patients is not None)
    head = ["method", "metric", "better", "cases", *grouped, "observed", "mean", "low", "high"]
    head += [f"difference {part}" for part in ("mean", "low", "high")]
    head += ["p", "p Holm", "effect", "vs reference", "holds after Holm", "rule", "caution"]
    about = [comparison.rule, " ".join(cautions(comparison))]
    tested = (comparison.tests.p, comparison.adjusted, comparison.effects)
    rows = [
        [
            escape_csv(name),
            escape_csv(metric.key),
            metric.better or "",
            str(means.cases[i, j]),
            *(str(means.groups[i, j]) for _ in grouped),
            *(_number(a[i, j]) for a in (means.observed, means.mean, means.low, means.high)),
            *(_number(a[i, j]) for a in (differences.mean, differences.low, differences.high)),
            *(_number(a[i, j]) if name != comparison.reference else "" for a in tested),
            comparison.verdict(i, j) or "",
            "yes" if comparison.holds_among(i, j) else "",
            *about,
        ]
        for i, name in enumerate(comparison.methods)
        for j, metric in enumerate(comparison.metrics)
    ]
    return head, rows


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def print_table(table: Table, console: Console) -> None:
    """Print a table; with a row per metric instead when it is too wide for the terminal."""
    upright = _rich(
        ["Method", *(metric.heading for metric in table.metrics)],
        [[escape_rich(one_line(name)), *map(_rich_cell, cells)] for name, cells in table.rows],
    )
    # Measured as if there were room, since a table never reports more than the console's width.
    if console.measure(upright, options=console.options.update(max_width=1 << 16)).maximum > (
        console.width
    ):
        upright = _rich(
            ["Metric", *(one_line(name) for name, _ in table.rows)],
            [
                [escape_rich(metric.heading), *(_rich_cell(cells[j]) for _, cells in table.rows)]
                for j, metric in enumerate(table.metrics)
            ],
        )
    console.print(upright)
    coloured = table.marked and console.color_system
    legend = " [bold green]Best[/], [italic red]worst[/]." if coloured else ""
    console.print(escape_rich(one_line(table.caption)) + legend, highlight=False)
    for caution in table.cautions:
        console.print(escape_rich(one_line(caution)), style="yellow", highlight=False)


def _rich(head: Sequence[str], rows: Iterable[Sequence[str]]) -> RichTable:
    table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for i, text in enumerate(head):
        table.add_column(escape_rich(text), justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _rich_cell(cell: Cell) -> str:
    style = {"best": "bold green", "worst": "italic red", None: ""}[cell.mark]
    parts = (cell.text + cell.flag, escape_rich(cell.interval), cell.test)
    text = " ".join(filter(None, parts))
    return f"[{style}]{text}[/]" if style else text
