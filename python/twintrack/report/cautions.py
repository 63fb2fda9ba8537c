"""What to know before trusting the flags of a comparison: it stands wherever flags stand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from twintrack.report.columns import Metric
from twintrack.report.comparison import Comparison

# With fewer, bootstrap intervals are too narrow: with ten normal values 95% cover about 90%.
_FEW = 10


def cautions(comparison: Comparison, metrics: Sequence[Metric] | None = None) -> tuple[str, ...]:
    """Return what speaks against trusting verdicts on some metrics, or all: sentences."""
    shown = [
        j for j, metric in enumerate(comparison.metrics) if metrics is None or metric in metrics
    ]
    chosen = [j for j in shown if comparison.metrics[j].better]
    others = [i for i, name in enumerate(comparison.methods) if name != comparison.reference]
    least = comparison.fewest if comparison.rule == "both" else 2
    able = [j for j in chosen if comparison.values_of(j) >= least]
    low = comparison.differences.low
    compared = sum(not math.isnan(low[i, j]) for i in others for j in able)
    found = []
    if compared > 1:
        found.append(
            f"{compared} differences were looked at, each by itself: about "
            f"{compared * comparison.alpha:.2g} of them would be flagged by chance if there were "
            "none."
        )
    if others and (text := _with_fewer(comparison, chosen, least)):
        found.append(f"With fewer than {least} {text}: no difference can be flagged.")
    if text := _with_fewer(comparison, shown, _FEW):
        easily = ", and differences are flagged too easily"
        found.append(
            f"With fewer than {_FEW} {text}: bootstrap intervals are too narrow"
            f"{easily if others and comparison.rule == 'interval' else ''}."
        )
    found += [
        f"{name}: the calibrator file does not say on which cases the map was fitted; if on these, "
        "figures are too good."
        for name, overlap in comparison.fitted_on.items()
        if overlap is None
    ]
    return tuple(found)


def _with_fewer(comparison: Comparison, columns: Sequence[int], least: int) -> str:
    """Name the metrics of which fewer patients, or cases, have a value; empty without any."""
    numbers = {j: comparison.values_of(j) for j in columns}
    few = {j: number for j, number in numbers.items() if number < least}
    if not few:
        return ""
    if few == numbers:
        ends = sorted({min(few.values()), max(few.values())})
        return f"{comparison.kind}, as here with {' to '.join(map(str, ends))}"
    named = (f"{comparison.metrics[j].label} ({number})" for j, number in few.items())
    return f"{comparison.kind}, as here for {', '.join(named)}"
