"""Every metric by quarter of the cases: small and large tumours, agreed and contested ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twintrack.files import csv_text
from twintrack.report.columns import Metric
from twintrack.report.comparison import Comparison, restricted
from twintrack.report.rounding import bracket, decimals, rounded
from twintrack.report.tables import Cell, Table, interval_rows, signed

BY = {"rater_volume": "volume", "disagreement": "disagreement"}
"""Columns by which cases are divided, and what they are called."""

_QUARTERS = 4


@dataclass(frozen=True, eq=False)
class Stratum:
    """A quarter of the cases.

    Attributes
    ----------
    by
        Column of results by which the cases were divided.
    number
        1 for the quarter with the lowest values, up to 4.
    low, high
        Range of its values.
    comparison
        Of its cases alone.
    """

    by: str
    number: int
    low: float
    high: float
    comparison: Comparison

    @property
    def label(self) -> str:
        """What the quarter holds, such as "volume 12–340"."""
        return f"{BY[self.by]} {_shown(self.low)}–{_shown(self.high)}"


def strata(comparison: Comparison) -> list[Stratum]:
    """Divide the cases into quarters by the raters' mean volume, and by their disagreement.

    Values are those of the reference, or of the first method that has them. The limits are the
    quartiles; cases with equal values are in one quarter, so that one may be larger, or missing.
    Cases without the value are in none; a column with fewer than four different values divides
    nothing.
    """
    keys = [metric.key for metric in comparison.metrics]
    found = []
    for by in BY:
        if by not in keys:
            continue
        values = comparison.values[:, :, keys.index(by)]
        at = [comparison.methods.index(comparison.reference), *range(len(comparison.methods))]
        column = next(c for c in values.T[at] if not np.isnan(c).all())
        known = column[~np.isnan(column)]
        if len(np.unique(known)) < _QUARTERS:
            continue
        limits = np.quantile(known, np.arange(1, _QUARTERS) / _QUARTERS)
        quarter = np.where(np.isnan(column), -1, np.searchsorted(limits, column))
        for number in range(_QUARTERS):
            rows = np.flatnonzero(quarter == number)
            if rows.size:
                ends = column[rows].min(), column[rows].max()
                part = restricted(comparison, rows)
                found.append(Stratum(by, number + 1, float(ends[0]), float(ends[1]), part))
    return found


def strata_csv(found: Sequence[Stratum]) -> str:
    """Write the strata at full precision: rows as in `interval_csv`, for every quarter.

    There are differences, p and effects, but no verdicts.
    """
    head: list[str] = []
    rows = []
    for stratum in found:
        columns, of_stratum = interval_rows(stratum.comparison)
        kept = [columns.index(name) for name in columns if name not in _VERDICTS]
        head = ["by", "quarter", "from", "to", *(columns[k] for k in kept)]
        place = [stratum.by, str(stratum.number), repr(stratum.low), repr(stratum.high)]
        rows += [[*place, *(row[k] for k in kept)] for row in of_stratum]
    return csv_text(head, rows)


_VERDICTS = ("p Holm", "vs reference", "holds after Holm", "rule", "caution")


@dataclass(frozen=True)
class StrataTable(Table):
    """Means and intervals of one metric: a row per method, a column per quarter."""

    title: str = ""


def strata_tables(comparison: Comparison, found: Sequence[Stratum]) -> list[StrataTable]:
    """Make a table of each metric by quarter."""
    tables = []
    for j, metric in enumerate(comparison.metrics):
        if metric.key not in BY and found:
            tables.append(_table(comparison, metric, j, found))
    return tables


def _table(comparison: Comparison, metric: Metric, j: int, found: Sequence[Stratum]) -> StrataTable:
    parts = [stratum.comparison.intervals for stratum in found]
    digits = decimals(np.stack([part.mean[:, j] for part in parts]))
    rows = []
    for i, name in enumerate(comparison.methods):
        cells = []
        for part in parts:
            mean, low, high = (float(a[i, j]) for a in (part.mean, part.low, part.high))
            cells.append(Cell(rounded(mean, digits), bracket(low, high, digits)))
        rows.append((signed(comparison, name), tuple(cells)))
    heads = tuple(replace(metric, label=_head(stratum, j), better=None) for stratum in found)
    caption = (
        f"{metric.label}: bootstrap means over {comparison.intervals.resamples} resamples, with "
        f"{100 * comparison.intervals.level:g}% confidence intervals."
    )
    return StrataTable(caption, heads, tuple(rows), title=metric.heading)


def _head(stratum: Stratum, j: int) -> str:
    return f"{stratum.label} (n = {_count(stratum.comparison.intervals.cases[:, j])})"


def _shown(value: float) -> str:
    return rounded(value, decimals(np.array([value])))


def _count(cases: NDArray[np.int64]) -> int:
    return int(cases.max())
