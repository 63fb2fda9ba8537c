"""The results of one method, from memory or from the folder that ``twintrack evaluate`` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from twintrack.calibration.fitted_on import Overlap
from twintrack.calibration.records import OverlapRecord
from twintrack.cohort.names import composed
from twintrack.cohort.patients import patients_of
from twintrack.errors import InputError
from twintrack.files import as_record, read_record, read_table
from twintrack.report.columns import with_derived
from twintrack.report.examples import Example, read_examples

# Columns and keys that are not metrics and not provenance.
_CASE, _PATIENT, _NOTES = "case", "patient", "notes"
_NOT_PROVENANCE = ("method", "means", "reliability", "fitted_on", "volumes_held")


class _Curve(Struct):
    bin_count: list[Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]]
    mean_score: list[float | None]
    mean_mhr: list[float | None]


class _Summary(Struct):
    method: Annotated[str | None, Meta(description="be a text")] = None
    reliability: Annotated[
        _Curve | None,
        Meta(description="be null or hold the lists bin_count, mean_score and mean_mhr"),
    ] = None
    fitted_on: OverlapRecord = {}


@dataclass(frozen=True, eq=False)
class Reliability:
    """Reliability curve pooled over the cohort.

    Attributes
    ----------
    bin_count : (B,) int64
        Voxels in each bin of the score, equally wide bins from 0 to 1.
    mean_score, mean_mhr : (B,) float64
        Mean score and mean human response of those voxels, NaN in empty bins.
    """

    bin_count: NDArray[np.int64]
    mean_score: NDArray[np.float64]
    mean_mhr: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {self.bin_count.shape, self.mean_score.shape, self.mean_mhr.shape}
        if len(shapes) > 1 or self.bin_count.ndim != 1:
            raise InputError(
                f"reliability curve: bin_count {self.bin_count.shape}, mean_score "
                f"{self.mean_score.shape} and mean_mhr {self.mean_mhr.shape} must be equally long"
            )
        if (self.bin_count < 0).any():
            raise InputError("reliability curve: bin_count has a negative entry")
        for name, means in (("mean_score", self.mean_score), ("mean_mhr", self.mean_mhr)):
            wrong = (self.bin_count > 0) & ~((means >= 0) & (means <= 1))
            if wrong.any():
                at = int(np.argmax(wrong))
                raise InputError(
                    f"reliability curve: {name} is {means[at]} in bin {at}, which has "
                    f"{self.bin_count[at]} voxels; need a value in [0, 1]"
                )

    @property
    def calibration_error(self) -> float:
        """Σ (n_b/n) |score_b − MHR_b|: the expected calibration error against the MHR."""
        used, error = self._errors()
        return float(np.average(error, weights=self.bin_count[used])) if used.any() else np.nan

    @property
    def average_error(self) -> float:
        """Mean of |score_b − MHR_b| over the occupied bins, however few voxels they hold."""
        used, error = self._errors()
        return float(error.mean()) if used.any() else np.nan

    def _errors(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        used = self.bin_count > 0
        return used, np.abs(self.mean_score[used] - self.mean_mhr[used])


@dataclass(frozen=True, eq=False)
class MethodResults:
    """What one method got, case by case.

    Attributes
    ----------
    cases
        Names, unique.
    values
        Metric name to (cases,) float64, NaN where undefined. A metric that no case has is absent.
    notes
        Case name to remarks on its figures.
    failures
        Name of a case that could not be evaluated to the reason.
    reliability
        Curve pooled over the cases, or None.
    provenance
        What made the results: protocol, version, calibrator; JSON-like.
    examples
        Slices for the qualitative figure.
    fitted_on
        Cases that the method's map was fitted on; None if that is not known.
    patients
        Case name to its patient, for every case if it is known of any: a case of which no patient
        was named is one of its own, called as the case is. Empty if nothing was said of patients.
    """

    cases: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    notes: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    reliability: Reliability | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    fitted_on: Overlap | None = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, NDArray[np.float64]]:
        """`values`, and what follows from them (`twintrack.report.columns.with_derived`)."""
        return with_derived(self.values)

    def __post_init__(self) -> None:
        if len(set(self.cases)) < len(self.cases):
            raise InputError(f"cases: {_first_repeated(self.cases)!r} occurs twice")
        for name, column in self.values.items():
            if column.shape != (len(self.cases),):
                raise InputError(
                    f"values[{name!r}]: shape {column.shape} for {len(self.cases)} cases"
                )
            if np.isinf(column).any():
                case = self.cases[int(np.argmax(np.isinf(column)))]
                raise InputError(f"values[{name!r}] is infinite in case {case!r}")


def read_several(
    folders: Sequence[Path], called: Sequence[str] | None = None, group: str | None = None
) -> dict[str, MethodResults]:
    """Read result folders, in the order given.

    Parameters
    ----------
    folders
        As of `read_results`.
    called
        Names of the methods, in the order of the folders. By default those that the folders state;
        methods of the same name are told apart by their folders' names.
    group
        Where the names of cases have the patient (`twintrack.cohort.patients`), if folders do not
        say.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_results`, when names are equal, when there are not as many as folders, or when
        `group` does not fit.
    """
    if called and len(called) != len(folders):
        raise InputError(
            f"{len(called)} names ({', '.join(called)}) for {len(folders)} folders of results; "
            "give a name for each folder, in their order (--interval chooses how intervals are "
            "made)",
            argument="--method",
        )
    read = [(folder, *read_results(folder)) for folder in folders]
    if called:
        read = [
            (folder, name, known) for name, (folder, _, known) in zip(called, read, strict=True)
        ]
    names = [name for _, name, _ in read]
    results: dict[str, MethodResults] = {}
    for folder, name, method in read:
        alone = called or names.count(name) == 1
        unique = name if alone else f"{name} ({folder.resolve().name})"
        if unique in results:
            raise InputError(
                f"a second method called {unique!r}; give each folder a name of its own: "
                f"{' '.join(f'--method NAME_{k}' for k in range(1, len(names) + 1))}",
                file=folder,
            )
        results[unique] = method
    if group is None:
        return results
    return {
        name: replace(method, patients=patients_of(method.cases, group, method.patients))
        for name, method in results.items()
    }


def read_results(folder: Path) -> tuple[str, MethodResults]:
    """Read one result folder.

    Parameters
    ----------
    folder
        Holds ``cases.csv`` (column ``case``, one column per metric, optionally ``patient`` and
        ``notes``; an empty cell or ``nan`` is undefined) and may hold ``summary.json`` (``method``,
        ``reliability`` with ``bin_count``, ``mean_score``, ``mean_mhr``, and ``fitted_on``, as
        `Overlap`; all else but ``means`` is provenance),
        ``failures.csv`` (``case`` and the reason) and ``examples/*.npz`` (as `write_example` writes
        them).

    Returns
    -------
    name, results
        The method's name is that of the folder when the summary has none.

    Raises
    ------
    FileNotFoundError
        No such folder, or no ``cases.csv`` in it.
    ValueError
        A file that is not what it should be; names the file and the place.
    """
    path = folder / "cases.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; {folder} must be a folder written by twintrack evaluate"
        )
    cases, values, notes, patients = _read_cases(path)
    path = folder / "summary.json"
    content = read_record(path, dict) if path.is_file() else {}
    summary = as_record(content, _Summary, path)
    failures = folder / "failures.csv"
    results = MethodResults(
        cases,
        values,
        notes,
        _read_failures(failures) if failures.is_file() else {},
        None if summary.reliability is None else _reliability(path, summary.reliability),
        {key: value for key, value in content.items() if key not in _NOT_PROVENANCE},
        read_examples(folder / "examples"),
        summary.fitted_on
        and {kind: tuple(map(composed, names)) for kind, names in summary.fitted_on.items()},
        patients,
    )
    return summary.method or folder.resolve().name, results


def _read_cases(
    path: Path,
) -> tuple[tuple[str, ...], dict[str, NDArray[np.float64]], dict[str, str], dict[str, str]]:
    header, rows = _read_table(path)
    if not rows:
        raise InputError("no cases", file=path)
    cases = tuple(row[_CASE] for row in rows)
    if len(set(cases)) < len(cases):
        raise InputError(f"case {_first_repeated(cases)!r} occurs twice", file=path)
    values = {}
    for metric in header:
        if metric in (_CASE, _PATIENT, _NOTES):
            continue
        column = np.array([_number(path, row, metric) for row in rows])
        if not np.isnan(column).all():
            values[metric] = column
    notes = {row[_CASE]: row[_NOTES] for row in rows if row.get(_NOTES)}
    if _PATIENT not in header:
        return cases, values, notes, {}
    patients = {row[_CASE]: composed(row[_PATIENT]) or row[_CASE] for row in rows}
    return cases, values, notes, patients


def _number(path: Path, row: Mapping[str, str], metric: str) -> float:
    text = row[metric]
    try:
        value = float(text or "nan")
    except ValueError:
        value = np.inf
    if np.isinf(value):
        raise InputError(
            f"{metric} of case {row[_CASE]!r} is {text!r}; need a finite number", file=path
        )
    return value


def _read_failures(path: Path) -> dict[str, str]:
    return {
        row[_CASE]: "; ".join(text for key, text in row.items() if key != _CASE and text)
        for row in _read_table(path)[1]
    }


def _read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    header, rows = read_table(path)
    if _CASE not in header:
        raise InputError(f"no column {_CASE!r} in {header}", file=path)
    return header, [{**row, _CASE: composed(row[_CASE])} for row in rows.values()]


def _reliability(path: Path, curve: _Curve) -> Reliability:
    # null, which JSON has for NaN, becomes NaN.
    score, mhr = (np.array(means, np.float64) for means in (curve.mean_score, curve.mean_mhr))
    try:
        return Reliability(np.array(curve.bin_count, np.int64), score, mhr)
    except InputError as error:
        raise InputError.of(error, file=path) from error


def _first_repeated(names: Iterable[str]) -> str:
    return next(name for name, times in Counter(names).items() if times > 1)
