"""A cohort in a CSV file."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from twintrack.cohort.case import Case, check_name, choose_raters, left_out, not_found
from twintrack.cohort.names import as_on_disk, composed, look_alike_of, names_in
from twintrack.cohort.patients import with_patients
from twintrack.errors import InputError
from twintrack.files import csv_text, is_file, natural_order, read_table, write_text


def read_manifest(
    path: str | os.PathLike[str],
    *,
    select: Callable[[list[str]], Iterable[str]] = iter,
    use_raters: Sequence[int] | None = None,
    group: str | None = None,
) -> list[Case]:
    """Read a cohort from a CSV file.

    The first row names the columns: ``case``, ``score``, ``rater_1`` … ``rater_N`` and, if wanted,
    ``vessels``, ``roi`` and ``patient`` (see `Case`), in any order. Every further row is a case.
    Paths are relative to the manifest's folder or absolute; their spelling of Unicode (NFC or NFD)
    does not matter, and names of cases and patients are NFC. ``vessels``, ``roi`` and ``patient``
    may be empty; so may a rater, whom the case then does not have, but not all of them. The file is
    UTF-8 with commas; a byte order mark and any line ends are accepted.

    Parameters
    ----------
    path
        The file.
    select
        Gets the names of all cases, and returns those to be used, before any other cell is read.
    use_raters
        Numbers of the raters that count, from 1: other columns are not read. None is all of them;
        an empty list is none, for cohorts of scores.
    group
        Where the name of a case has its patient (`PatientPattern`), if there is no such column.

    Raises
    ------
    FileNotFoundError
        The manifest, or a file named in it; the message names row and column.
    ValueError
        No cases, unknown, repeated or missing columns, a repeated or unusable case name, a
        case without a rater, one file given for two raters, the same files for two cases; the
        message names row and column. Or `group` does not fit (`with_patients`).
    """
    path = Path(path)
    columns, rows = read_table(path)
    if not rows:
        raise InputError("no cases; it needs a header row and a row for each case", file=path)
    everyone = _check_columns(path, columns, use_raters)
    if group is not None and "patient" in columns:
        raise InputError(
            "has a column patient, which tells the patients; leave out --group, or the column",
            file=path,
        )
    rater_columns = choose_raters(everyone, use_raters)
    wanted = {"score", "vessels", "roi", *rater_columns}
    names = functools.cache(names_in)
    chosen = set(select(list(dict.fromkeys(composed(row["case"]) for row in rows.values()))))
    cases: dict[str, Case] = {}
    seen: dict[Case, str] = {}
    missing: list[str] = []
    for number, row in rows.items():
        if composed(row["case"]) not in chosen:
            continue
        place = f"row {number}"
        name = check_name(row["case"], path, f"{place}: ")
        if name in cases:
            raise InputError(f"{place}: case {name!r} appears twice", file=path)
        if not row["score"]:
            raise InputError(f"{place}, column 'score': no file for case {name!r}", file=path)
        files = {
            column: as_on_disk(path.parent / cell, names)
            for column, cell in row.items()
            if cell and column in wanted
        }
        missing += [
            f"{path}: {place}, column {column!r}: {file}"
            + (f" ({hint})" if (hint := look_alike_of(file, names)) else "")
            for column, file in files.items()
            if not is_file(file)
        ]
        annotations = tuple(files.get(column) for column in rater_columns)
        there = [annotation for annotation in annotations if annotation is not None]
        if annotations and not there:
            raise InputError(
                f"{place}: it has no rater in {', '.join(rater_columns)}; name an annotation, or "
                f"leave out this case with {left_out(name)}",
                case=name,
                file=path,
            )
        if len(set(there)) < len(there):
            raise InputError(f"{place}: case {name!r} has the same file for two raters", file=path)
        patient = composed(row.get("patient", "")) or None
        case = Case(
            name, files["score"], annotations, files.get("vessels"), files.get("roi"), patient
        )
        same = seen.setdefault(dataclasses.replace(case, name="", patient=None), name)
        if same != name and annotations:
            raise InputError(
                f"{place}: case {name!r} has the same files as case {same!r}", file=path
            )
        cases[name] = case
    if missing:
        raise not_found(missing)
    return with_patients(list(cases.values()), group)


def write_manifest(path: str | os.PathLike[str], cases: Iterable[Case]) -> None:
    """Write a cohort as a CSV file that `read_manifest` reads back.

    Files inside the manifest's folder are written relative to it, so that the folder can be moved
    as a whole; others keep their absolute path.

    Raises
    ------
    ValueError
        No cases, or a repeated case name.
    OSError
        Writing failed; an existing manifest is unharmed.
    """
    path = Path(path)
    folder = path.parent.absolute()
    cases = list(cases)
    if not cases:
        raise InputError("no cases to write", file=path)
    raters = [f"rater_{k + 1}" for k in range(max(len(case.raters) for case in cases))]
    if len({composed(case.name) for case in cases}) < len(cases):
        raise InputError("two cases have the same name", file=path)

    def cell(file: Path | None) -> str:
        if file is None:
            return ""
        file = file.absolute()
        return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()

    several = any(case.patient is not None for case in cases)
    rows = [
        [
            check_name(case.name, path),
            cell(case.score),
            *(cell(case.annotations.get(k)) for k in range(len(raters))),
            *map(cell, (case.vessels, case.roi)),
            *([case.patient or ""] if several else []),
        ]
        for case in cases
    ]
    columns = ["case", "score", *raters, "vessels", "roi", *(["patient"] if several else [])]
    write_text(path, csv_text(columns, rows))


def _check_columns(path: Path, columns: list[str], use_raters: Sequence[int] | None) -> list[str]:
    """Return the columns of all raters in order."""
    raters = sorted((c for c in columns if re.fullmatch(r"rater_\d+", c)), key=natural_order)
    for column in columns:
        if column not in {"case", "score", "vessels", "roi", "patient", *raters}:
            raise InputError(
                f"unknown column {column!r}; known are case, score, rater_1, rater_2, …, "
                "vessels, roi and patient",
                file=path,
            )
    needed = 0 if use_raters is not None and not use_raters else max(1, len(raters))
    for column in ("case", "score", *(f"rater_{k + 1}" for k in range(needed))):
        if column not in columns:
            raise InputError(
                f"column {column!r} is missing; it has {', '.join(columns)}", file=path
            )
    return raters
