"""The result folder of an evaluation: cases.csv, summary.json and failures.csv.

Version 1 of the format. Equal inputs and options give equal bytes: nothing in the files depends on
folders, time, number of threads or the order in which cases were finished.

cases.csv
    A row per case, sorted by name: ``case``, ``patient`` if the cohort names patients (empty for a
    case that is a patient of its own), one column per figure, ``notes``. An empty cell is a figure
    that the case does not have (no vessels), ``nan`` one that is not defined; the notes say why.
    Numbers are written so that they are read back to the same bits.
summary.json
    ``format`` ("twintrack-results"), ``format_version``, ``method``, ``twintrack`` (the version
    that wrote it), what the figures depend on (``protocol``, ``calibrator``, ``editions`` and so
    on), ``fitted_on`` (the cases that the calibrator's map was fitted on, by kind, as
    `twintrack.calibration.fitted_on` tells them apart, and as the notes say; null if that is not
    known, absent where no map was fitted), ``volumes_held`` (where predicted volumes have
    intervals: ``cases`` that have one, and ``held``, those whose raters' volume is inside),
    ``cases``, ``failed``, ``means`` (figure to ``mean`` and ``cases``, the number of cases that
    have it) and ``reliability``, the curve pooled over all cases: ``bin_count``, ``mean_score`` and
    ``mean_mhr`` per bin, null where a bin is empty.
failures.csv
    A row per case that could not be evaluated: ``case``, ``step``, ``file``, ``message``.

A text that a spreadsheet would take for a formula is written with an apostrophe before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.files import csv_text, write_text
from twintrack.runs.records import Failure
from twintrack.runs.store import dump_json
from twintrack.version import __version__

FORMAT = "twintrack-results"
FORMAT_VERSION = 1

Row = Mapping[str, float | int | None]  # NaN: not defined; None: the case does not have it


def write_results(
    folder: Path,
    method: str,
    provenance: Mapping[str, Any],
    rows: Mapping[str, Row],
    notes: Mapping[str, Sequence[str]],
    failures: Sequence[Failure],
    reliability: Mapping[str, NDArray[Any]] | None,
    patients: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the three files, each whole or not at all.

    Parameters
    ----------
    folder
        Must exist.
    method
        Name of the method.
    provenance
        What the figures depend on.
    rows
        Case to its figures; all with the same names in the same order.
    notes
        Case to remarks.
    failures
        Cases without figures.
    reliability
        Curve pooled over the cases, or None if there are none.
    patients
        Case to its patient, of the cases of which one is named.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    cases = sorted(rows)
    columns = [
        name
        for name in (rows[cases[0]] if cases else ())
        if any(rows[case][name] is not None for case in cases)
    ]
    summary = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "method": method,
        "twintrack": __version__,
        **provenance,
        "cases": len(cases),
        "failed": len(failures),
        "means": {
            name: {"mean": _finite(mean), "cases": count}
            for name, (mean, count) in means(rows, columns).items()
        },
        "reliability": None
        if reliability is None
        else {name: [_finite(v) for v in values] for name, values in reliability.items()},
    }
    table = [
        [
            cell_text(case),
            *([cell_text(patients.get(case, ""))] if patients else []),
            *(_number(rows[case][name]) for name in columns),
            cell_text("; ".join(notes.get(case, ()))),
        ]
        for case in cases
    ]
    header = ["case", *(["patient"] if patients else []), *columns, "notes"]
    failed = [
        [cell_text(cell) for cell in (failure.case, failure.step, failure.file, failure.message)]
        for failure in sorted(failures, key=lambda failure: failure.case)
    ]
    write_text(folder / "cases.csv", csv_text(header, table))
    write_text(folder / "failures.csv", csv_text(["case", "step", "file", "message"], failed))
    write_text(folder / "summary.json", dump_json(summary))


def means(rows: Mapping[str, Row], columns: Iterable[str]) -> dict[str, tuple[float, int]]:
    """Return each figure's mean over the cases that have it, and their number.

    The sum is exact until it is rounded once, so the order of the cases does not matter.
    """
    found = {}
    for name in columns:
        column = (row[name] for row in rows.values())
        values = [float(value) for value in column if value is not None and not math.isnan(value)]
        found[name] = (math.fsum(values) / len(values) if values else math.nan, len(values))
    return found


def cell_text(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, without control characters."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return f"'{clean}" if clean.startswith(("=", "+", "-", "@")) else clean


def _number(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))


def _finite(value: Any) -> float | int | None:
    """Return a number as JSON has it: null for NaN."""
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value) if math.isfinite(value) else None
