"""A cohort in a CSV file."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

from twintrack.cohort.case import Case, check_name, check_same_raters, not_found
from twintrack.errors import InputError
from twintrack.files import csv_text, is_file, natural_order, read_table, write_text


def read_manifest(path: str | os.PathLike[str]) -> list[Case]:
    """Read a cohort from a CSV file.

    The first row names the columns: ``case``, ``score``, ``rater_1`` … ``rater_N`` and, if wanted,
    ``vessels`` and ``roi``, in any order. Every further row is a case. Paths are relative to the
    manifest's folder or absolute. All cases need all raters; ``vessels`` and ``roi`` may be empty.
    The file is UTF-8 with commas; a byte order mark and any line ends are accepted.

    Raises
    ------
    FileNotFoundError
        The manifest, or a file named in it; the message names row and column.
    ValueError
        No cases, unknown, repeated or missing columns, a repeated or unusable case name, a rater
        missing in a case, one file given for two raters, the same files for two cases; the message
        names row and column.
    """
    path = Path(path)
    columns, rows = read_table(path)
    if not rows:
        raise InputError("no cases; it needs a header row and a row for each case", file=path)
    rater_columns = _check_columns(path, columns)
    cases: dict[str, Case] = {}
    seen: dict[Case, str] = {}
    missing: list[str] = []
    for number, row in rows.items():
        place = f"row {number}"
        name = check_name(row["case"], path, f"{place}: ")
        if name in cases:
            raise InputError(f"{place}: case {name!r} appears twice", file=path)
        for column in ("score", *rater_columns):
            if not row[column]:
                raise InputError(
                    f"{place}, column {column!r}: no file for case {name!r}", file=path
                )
        files = {
            column: path.parent / cell for column, cell in row.items() if cell and column != "case"
        }
        missing += [
            f"{path}: {place}, column {column!r}: {file}"
            for column, file in files.items()
            if not is_file(file)
        ]
        raters = tuple(files[column] for column in rater_columns)
        if len(set(raters)) < len(raters):
            raise InputError(f"{place}: case {name!r} has the same file for two raters", file=path)
        case = Case(name, files["score"], raters, files.get("vessels"), files.get("roi"))
        same = seen.setdefault(dataclasses.replace(case, name=""), name)
        if same != name:
            raise InputError(
                f"{place}: case {name!r} has the same files as case {same!r}", file=path
            )
        cases[name] = case
    if missing:
        raise not_found(missing)
    return list(cases.values())


def write_manifest(path: str | os.PathLike[str], cases: Iterable[Case]) -> None:
    """Write a cohort as a CSV file that `read_manifest` reads back.

    Files inside the manifest's folder are written relative to it, so that the folder can be moved
    as a whole; others keep their absolute path.

    Raises
    ------
    ValueError
        No cases, a repeated case name, or cases with different numbers of raters.
    OSError
        Writing failed; an existing manifest is unharmed.
    """
    path = Path(path)
    folder = path.parent.absolute()
    cases = list(cases)
    if not cases:
        raise InputError("no cases to write", file=path)
    check_same_raters(
        {case.name: tuple(str(k + 1) for k in range(len(case.raters))) for case in cases}
    )
    if len({case.name for case in cases}) < len(cases):
        raise InputError("two cases have the same name", file=path)

    def cell(file: Path | None) -> str:
        if file is None:
            return ""
        file = file.absolute()
        return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()

    raters = [f"rater_{k + 1}" for k in range(len(cases[0].raters))]
    rows = [
        [
            check_name(case.name, path),
            *map(cell, (case.score, *case.raters, case.vessels, case.roi)),
        ]
        for case in cases
    ]
    write_text(path, csv_text(["case", "score", *raters, "vessels", "roi"], rows))


def _check_columns(path: Path, columns: list[str]) -> list[str]:
    """Return the rater columns in order."""
    raters = sorted((c for c in columns if re.fullmatch(r"rater_\d+", c)), key=natural_order)
    for column in columns:
        if column not in {"case", "score", "vessels", "roi", *raters}:
            raise InputError(
                f"unknown column {column!r}; known are case, score, rater_1, rater_2, …, "
                "vessels and roi",
                file=path,
            )
    wanted = ["case", "score", *(f"rater_{k + 1}" for k in range(max(1, len(raters))))]
    for column in wanted:
        if column not in columns:
            raise InputError(
                f"column {column!r} is missing; it has {', '.join(columns)}", file=path
            )
    return raters
