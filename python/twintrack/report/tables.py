"""The paper's Tables 1 and 2 as Markdown, LaTeX, CSV and on the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape as escape_rich
from rich.table import Table as RichTable

from twintrack.calibration.fitted_on import count
from twintrack.files import csv_text
from twintrack.report.columns import Metric
from twintrack.report.comparison import Comparison, Verdict

Mark = Literal["best", "worst"]

# The sign of a significant difference from the reference.
FLAGS: dict[Verdict | None, str] = {"worse": "†", "better": "‡", None: ""}
# The sign of a method whose map was fitted on some of the cases.
FITTED = "§"
_MISSING = "–"
_SIGNIFICANT_DIGITS = 3


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
    verdict
        Significant difference from the reference.
    """

    text: str
    interval: str = ""
    mark: Mark | None = None
    verdict: Verdict | None = None

    @property
    def flag(self) -> str:
        """† for significantly worse than the reference, ‡ for better."""
        return FLAGS[self.verdict]


@dataclass(frozen=True)
class Table:
    """A table ready to be written in any format: a row per method, a column per metric."""

    caption: str
    metrics: tuple[Metric, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    @property
    def marked(self) -> bool:
        """Whether a best or worst is marked."""
        return any(cell.mark for _, cells in self.rows for cell in cells)


def mean_table(comparison: Comparison, metrics: Sequence[Metric] | None = None) -> Table:
    """Table 1: bootstrap means, best and worst marked, significant differences flagged."""
    return _table(comparison, metrics, with_intervals=False)


def interval_table(comparison: Comparison, metrics: Sequence[Metric] | None = None) -> Table:
    """Table 2: bootstrap means with their confidence intervals."""
    return _table(comparison, metrics, with_intervals=True)


def difference_table(comparison: Comparison, metrics: Sequence[Metric] | None = None) -> Table:
    """Paired differences from the reference with intervals: what the flags of Table 1 rest on."""
    chosen = _columns(comparison, metrics)
    rows = _rows(comparison, chosen, of_differences=True)
    kept = [
        row
        for method, row in zip(comparison.methods, rows, strict=True)
        if method != comparison.reference
    ]
    caption = (
        f"Mean difference from {comparison.reference} over the same {comparison.units}, "
        f"with its {_level(comparison)} interval. {_flag_legend(comparison)}"
        f"{_fitted_legend(comparison)}"
    )
    return Table(caption, chosen, tuple(kept))


def _table(comparison: Comparison, metrics: Sequence[Metric] | None, with_intervals: bool) -> Table:
    chosen = _columns(comparison, metrics)
    rows = _rows(comparison, chosen, with_intervals=with_intervals)
    resamples = comparison.intervals.resamples
    caption = (
        f"Bootstrap means over {resamples} resamples of {comparison.units}"
        f"{f', with {_level(comparison)} confidence intervals' if with_intervals else ''}. "
        f"{_flag_legend(comparison)}"
        f"{_count_legend(comparison, chosen)}"
        f"{_fitted_legend(comparison)}"
    )
    return Table(caption, chosen, tuple(rows))


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
        digits = _decimals(np.stack([low, high]) if of_differences else mean)
        texts = [_rounded(value, digits, sign) for value in mean]
        marks = [None] * len(texts) if of_differences else _marks(texts, metric)
        columns.append(
            [
                Cell(
                    text,
                    _bracket(low[i], high[i], digits, sign) if with_intervals else "",
                    mark,
                    comparison.verdict(i, j),
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


def _flag_legend(comparison: Comparison) -> str:
    if len(comparison.methods) == 1:
        return ""
    return (
        f"{FLAGS['worse']} significantly worse than {comparison.reference}, {FLAGS['better']} "
        f"significantly better: the {_level(comparison)} interval of the paired difference "
        "excludes 0."
    )


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


def _decimals(values: NDArray[np.float64]) -> int:
    """Decimals that show three significant digits of the largest value of a column."""
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    if largest == 0:
        return _SIGNIFICANT_DIGITS - 1
    # Through the rounded number, since 9.996 is shown as 10.0.
    exponent = int(f"{largest:.{_SIGNIFICANT_DIGITS - 1}e}".partition("e")[2])
    return max(0, _SIGNIFICANT_DIGITS - 1 - exponent)


def rounded_column(values: NDArray[np.float64]) -> list[list[str]]:
    """Round (cases, methods) values of one metric alike, to three digits of the largest."""
    decimals = _decimals(values)
    return [[_rounded(value, decimals) for value in row] for row in values]


def _rounded(value: float, decimals: int, sign: str = "-") -> str:
    if math.isnan(value):
        return _MISSING
    text = f"{value:{sign}.{decimals}f}"
    if float(text):
        return text
    # A difference too small to be shown keeps its side of 0; other values have no -0.00.
    return text if sign == "+" and value else f"{0:.{decimals}f}"


def _bracket(low: float, high: float, decimals: int, sign: str = "-") -> str:
    if math.isnan(low):
        return ""
    return f"[{_rounded(low, decimals, sign)}, {_rounded(high, decimals, sign)}]"


def _marks(texts: Sequence[str], metric: Metric) -> list[Mark | None]:
    shown = [float(text) for text in texts if text != _MISSING]
    if metric.better is None or not shown or min(shown) == max(shown):
        return [None] * len(texts)
    best, worst = (max, min) if metric.better == "higher" else (min, max)
    marks: dict[float, Mark] = {worst(shown): "worst", best(shown): "best"}
    return [None if text == _MISSING else marks.get(float(text)) for text in texts]


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
        text = " ".join(filter(None, (f"{wrap}{cell.text}{wrap}{cell.flag}", cell.interval)))
        return text.replace("-", "−")

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    head = (f"{escape_markdown(metric.label)} {metric.arrow}".strip() for metric in table.metrics)
    rows = (line([escape_markdown(name), *map(written, cells)]) for name, cells in table.rows)
    caption = escape_markdown(table.caption) + (_MARK_LEGEND[0] if table.marked else "")
    rule = f"| --- |{' ---: |' * len(table.metrics)}"
    return "\n".join([line(["Method", *head]), rule, *rows, "", caption, ""])


_MARK_LEGEND = (" Best **bold**, worst *italic*.", r" Best \textbf{bold}, worst \textit{italic}.")


def latex(table: Table) -> str:
    """Write a LaTeX table for the package booktabs; intervals stand below their means."""

    def number(text: str) -> str:
        return text.replace("-", "$-$") if text != _MISSING else "--"

    def written(cell: Cell) -> str:
        text = number(cell.text)
        if cell.mark is not None:
            text = rf"\{'textbf' if cell.mark == 'best' else 'textit'}{{{text}}}"
        return text + escape_latex(cell.flag)

    def line(cells: Iterable[str], gap: str = "") -> str:
        return " & ".join(cells) + r" \\" + gap

    caption = escape_latex(table.caption) + (_MARK_LEGEND[1] if table.marked else "")
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

    The last column is the number of cases that the method's map was fitted on, empty if that is
    not known.
    """
    head = ["method"]
    for metric in comparison.metrics:
        head += [escape_csv(metric.key), escape_csv(f"{metric.key} vs reference")]
    rows = []
    for i, name in enumerate(comparison.methods):
        row = [escape_csv(name)]
        for j in range(len(comparison.metrics)):
            row += [_number(comparison.intervals.mean[i, j]), comparison.verdict(i, j) or ""]
        overlap = comparison.fitted_on.get(name, {})
        rows.append([*row, "" if overlap is None else str(count(overlap))])
    return csv_text([*head, "cases fitted on"], rows)


def interval_csv(comparison: Comparison) -> str:
    """Table 2 and the paired differences at full precision: a row per method and metric."""
    means, differences = comparison.intervals, comparison.differences
    grouped = ["patients"] * (comparison.patients is not None)
    head = ["method", "metric", "better", "cases", *grouped, "observed", "mean", "low", "high"]
    head += [f"difference {part}" for part in ("mean", "low", "high")] + ["vs reference"]
    rows = [
        [
            escape_csv(name),
            escape_csv(metric.key),
            metric.better or "",
            str(means.cases[i, j]),
            *(str(means.groups[i, j]) for _ in grouped),
            *(_number(a[i, j]) for a in (means.observed, means.mean, means.low, means.high)),
            *(_number(a[i, j]) for a in (differences.mean, differences.low, differences.high)),
            comparison.verdict(i, j) or "",
        ]
        for i, name in enumerate(comparison.methods)
        for j, metric in enumerate(comparison.metrics)
    ]
    return csv_text(head, rows)


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


def _rich(head: Sequence[str], rows: Iterable[Sequence[str]]) -> RichTable:
    table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for i, text in enumerate(head):
        table.add_column(escape_rich(text), justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _rich_cell(cell: Cell) -> str:
    style = {"best": "bold green", "worst": "italic red", None: ""}[cell.mark]
    text = " ".join(filter(None, (cell.text + cell.flag, escape_rich(cell.interval))))
    return f"[{style}]{text}[/]" if style else text
