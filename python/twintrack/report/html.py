"""The report: one HTML file with everything in it, to be read on any screen or printed."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.report.cautions import cautions
from twintrack.report.columns import Metric, describe
from twintrack.report.comparison import Comparison
from twintrack.report.method_results import MethodResults
from twintrack.report.rounding import decimals, rounded, rounded_column
from twintrack.report.strata import Stratum, strata_tables
from twintrack.report.tables import (
    Cell,
    difference_table,
    flag_legend,
    interval_table,
    mean_table,
    signed,
)
from twintrack.version import __version__

try:
    import jinja2
except ImportError as _error:
    raise ImportError(
        "the report needs Jinja2; install it with: pip install 'twintrack[report]'"
    ) from _error

# More rows make the page slow to load; the cases where the methods differ most are kept.
_MOST_CASES = 500
# Longer lists in the provenance (the knots of a map, say) are given by their length.
_LONGEST_LIST = 12
# Of differences, in standard deviations: less than what J. Cohen calls small.
_SMALL_EFFECT = 0.2
_ALIKE, _EQUAL = "not told apart from it", "equal to it, as figures are shown,"
_DEGREES = ("worse", "slightly worse", "better", "slightly better", _ALIKE, _EQUAL)


@dataclass(frozen=True)
class Picture:
    """An image of the report: its bytes, media type, and words for those who cannot see it."""

    content: bytes
    kind: str
    alt: str

    @property
    def uri(self) -> str:
        """The image as a data URI."""
        return f"data:{self.kind};base64,{base64.b64encode(self.content).decode('ascii')}"


def page_environment() -> jinja2.Environment:
    """Return where the templates of pages are; all text that is put into them is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("twintrack.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(
    comparison: Comparison,
    methods: Mapping[str, MethodResults],
    pictures: Mapping[str, Sequence[Picture]],
    title: str,
    introduction: str = "",
    strata: Sequence[Stratum] = (),
) -> str:
    """Render the report.

    Parameters
    ----------
    comparison
        Of `methods`.
    methods
        Name to results: for the per-case values, notes, failures and provenance.
    pictures
        By place: "reliability", "map", "qualitative", and "intervals" and "paired" with one per
        metric. Places without a picture are left out.
    title, introduction
        Plain text; blank lines in the introduction separate paragraphs.
    strata
        Quarters of the cases, to be shown beside each other.

    Returns
    -------
    page
        A whole HTML document that loads nothing and runs no script. All text from outside is
        escaped.
    """
    environment = page_environment()
    environment.filters["signed"] = lambda name: signed(comparison, name)
    environment.filters["minus"] = lambda text: text.replace("-", "−")
    benchmark, further = comparison.split_metrics()
    return environment.get_template("report.html").render(
        title=title,
        paragraphs=[text for text in introduction.split("\n\n") if text.strip()],
        comparison=comparison,
        warnings=comparison.warnings(),
        findings=_findings(comparison),
        cautions=cautions(comparison),
        map_warnings=_map_warnings(methods),
        flags=flag_legend(comparison),
        strata=strata_tables(comparison, strata),
        means=mean_table(comparison, benchmark),
        intervals=interval_table(comparison, benchmark),
        further=interval_table(comparison, further) if further else None,
        differences=[
            difference_table(comparison, metrics)
            for metrics in (benchmark, further)
            if metrics and len(comparison.methods) > 1
        ],
        meanings=_meanings(comparison),
        protocol=next((r.provenance.get("protocol") for r in methods.values()), None),
        curves={n: r.reliability for n, r in methods.items() if r.reliability is not None},
        pictures=pictures,
        case_tables=[_case_table(comparison, methods, metric) for metric in comparison.metrics],
        notes=_notes(methods),
        left_out=comparison.left_out,
        undefined={describe(key): cases for key, cases in comparison.undefined.items()},
        provenance=_provenance(methods),
        settings=_settings(comparison),
    )


def _findings(comparison: Comparison) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Per method: on what it is worse, better, or not told apart from the reference, by how much.

    Differences of less than a small effect are called slight, however certain they are.
    """
    findings = []
    differences = comparison.differences
    for i, name in enumerate(comparison.methods):
        if name == comparison.reference:
            continue
        groups: dict[str, list[str]] = {degree: [] for degree in _DEGREES}
        for j, metric in enumerate(comparison.metrics):
            if not metric.better or math.isnan(differences.low[i, j]):
                continue
            effect = comparison.effects[i, j]
            digits = decimals(np.stack([differences.low[:, j], differences.high[:, j]]))
            verdict = comparison.verdict(i, j)
            if verdict is None or verdict == "equal":
                groups[_EQUAL if verdict else _ALIKE].append(metric.label)
                continue
            told = [rounded(differences.mean[i, j], digits, "+")]
            told += [] if math.isnan(effect) else [f"d = {effect:+.2f}"]
            degree = "slightly " if abs(effect) < _SMALL_EFFECT else ""
            groups[degree + verdict].append(f"{metric.label} ({', '.join(told)})")
        findings.append((name, [(degree, group) for degree, group in groups.items() if group]))
    return findings


def _meanings(comparison: Comparison) -> list[tuple[str, list[Metric]]]:
    """Group the metrics by what they say."""
    meanings: dict[str, list[Metric]] = {}
    for metric in comparison.metrics:
        if metric.meaning:
            meanings.setdefault(metric.meaning, []).append(metric)
    return list(meanings.items())


def _map_warnings(methods: Mapping[str, MethodResults]) -> list[str]:
    """Return what the fits have noted of the methods' maps, as far as it is text."""
    told = []
    for name, results in methods.items():
        found: Any = results.provenance
        for key in ("calibrator", "facts", "warnings"):
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, (list, tuple)):
            told += [f"{name}: {text}." for text in found if isinstance(text, str)]
    return told


@dataclass(frozen=True)
class _CaseTable:
    metric: Metric
    rows: list[tuple[str, list[Cell]]]
    hidden: int


def _case_table(
    comparison: Comparison, methods: Mapping[str, MethodResults], metric: Metric
) -> _CaseTable:
    """One metric, case by case, as the methods have it, cases that do not count included."""
    values = np.full((len(comparison.cases), len(methods)), np.nan)
    for i, results in enumerate(methods.values()):
        columns = results.columns
        if metric.key in columns:
            by_case = dict(zip(results.cases, columns[metric.key], strict=True))
            values[:, i] = [by_case[case] for case in comparison.cases]
    shown = _most_different(values)
    texts = rounded_column(values)
    rows = [(comparison.cases[i], [Cell(text) for text in texts[i]]) for i in shown]
    return _CaseTable(metric, rows, len(values) - len(rows))


def _most_different(values: NDArray[np.float64]) -> NDArray[np.int64]:
    if len(values) <= _MOST_CASES:
        return np.arange(len(values))
    filled = np.where(np.isnan(values), -np.inf, values).max(axis=1)
    lowest = np.where(np.isnan(values), np.inf, values).min(axis=1)
    with np.errstate(invalid="ignore"):
        spread = np.nan_to_num(filled - lowest, nan=-1, posinf=-1, neginf=-1)
    return np.sort(np.argsort(-spread, kind="stable")[:_MOST_CASES])


def _notes(methods: Mapping[str, MethodResults]) -> list[tuple[str, str, list[str]]]:
    """Case, remark and the methods that have it; none named when all do."""
    by_note: dict[tuple[str, str], list[str]] = {}
    for name, results in methods.items():
        for case, note in results.notes.items():
            by_note.setdefault((case, note), []).append(name)
    return [
        (case, note, [] if len(names) == len(methods) else names)
        for (case, note), names in sorted(by_note.items())
    ]


def _provenance(methods: Mapping[str, MethodResults]) -> list[tuple[str, list[str]]]:
    """List what made the results: a row per entry, a cell per method."""
    flat = [_flattened(results.provenance) for results in methods.values()]
    keys = dict.fromkeys(key for entries in flat for key in entries)
    return [(key, [entries.get(key, "–") for entries in flat]) for key in keys]


def _flattened(entries: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{key}: ")
        elif isinstance(value, (list, tuple)) and len(value) > _LONGEST_LIST:
            flat[prefix + key] = f"{len(value)} entries"
        elif isinstance(value, str):
            flat[prefix + key] = value
        else:
            flat[prefix + key] = "none" if value is None else json.dumps(value, default=str)
    return flat


def _settings(comparison: Comparison) -> list[tuple[str, str]]:
    result = comparison.intervals
    return [
        ("reference", comparison.reference),
        ("resamples", f"{result.resamples}"),
        ("seed", f"{result.seed}"),
        ("interval", f"{100 * result.level:g}%, {result.method}"),
        ("rule", comparison.rule),
        ("report by", f"twintrack {__version__}"),
    ]
