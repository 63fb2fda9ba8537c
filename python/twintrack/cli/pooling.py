"""Stores of tallies on the command line: ``--tallies FOLDER``, or ``NAME=FOLDER`` for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.cli.options import CohortFiles
    from twintrack.cli.reporting import Report
    from twintrack.runs.pooled_tallies import Place, Pool


def places(given: Sequence[str]) -> list[Place]:
    """Return the stores that were named.

    Raises
    ------
    InputError
        A name cannot be that of a folder, or a name or folder is given twice.
    """
    from twintrack.cohort.case import check_name
    from twintrack.cohort.names import as_on_disk
    from twintrack.runs.pooled_tallies import Place

    found: list[Place] = []
    for text in given:
        name, sign, folder = text.partition("=")
        if not sign or "/" in name or Path(text).exists():
            place = Place(as_on_disk(Path(text)))
        else:
            place = Place(as_on_disk(Path(folder)), check_name(name, f"--tallies {text}"))
        for other in found:
            if place.folder.resolve() == other.folder.resolve():
                raise InputError(f"--tallies names {place.folder} twice")
            if place.name is not None and place.name == other.name:
                raise InputError(f"--tallies {place.name}= is given twice: give each a name")
        found.append(place)
    return found


def read_pool(
    report: Report, given: Sequence[Place], region: str | None, files: CohortFiles
) -> Pool:
    """Find the tallies of the cases that are asked for, and tell in what the stores differ."""
    from twintrack.runs.pooled_tallies import pool_tallies

    found = pool_tallies(
        given,
        region=region,
        only=files.only or (),
        without=files.without or (),
        group=files.group,
    )
    for note in found.notes:
        report.warn(note)
    return found
