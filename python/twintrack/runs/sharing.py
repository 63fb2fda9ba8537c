"""Tallies to be sent to another site: a copy of a store without names of cases, patients or files.

What stays is what a fit needs: the tallies, which voxels counted, how the scores were made, and
which cases are of one patient; and, unless it is not wanted, the digests of the scores, by which a
case is known that would count twice, or that a map is measured on. The key, which says what a case
is called in the copy, stays where it is written: it is no part of the copy.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from twintrack.cohort.case import check_name
from twintrack.cohort.names import composed
from twintrack.errors import InputError
from twintrack.files import csv_text, read_table, write_text
from twintrack.runs.fitted_cases import roles_of_voxels
from twintrack.runs.pooled_tallies import KIND
from twintrack.runs.records import Entry
from twintrack.runs.stamps import FileStamp
from twintrack.runs.store import Store
from twintrack.runs.stored_tallies import StoredTallies

_COLUMNS = ["kind", "name", "shared"]


class Shared(NamedTuple):
    """What `share_tallies` has written.

    Attributes
    ----------
    names
        Case to what it is called in the copy.
    patients
        Patient to what he is called there.
    """

    names: Mapping[str, str]
    patients: Mapping[str, str]


def share_tallies(
    tallies: StoredTallies,
    options: Mapping[str, object],
    target: Path,
    key: Path,
    site: str,
    *,
    digests: bool = True,
) -> Shared:
    """Write a copy of stored tallies that names nobody.

    Parameters
    ----------
    tallies, options
        What `twintrack.runs.fit.read_tallies` gives of a store.
    target
        Folder of the copy; new or empty.
    key
        CSV file with the columns kind ("case" or "patient"), name and shared. One that is there is
        gone on with, so that a case is called the same in every copy; new ones are numbered at
        random.
    site
        Names of the copy begin with it: ``SITE-0001``.
    digests
        Keep the digests of the scores.

    Raises
    ------
    ValueError
        There is something in the target, the key is inside of it or is none, or the site cannot be
        part of a file's name.
    StoreError
        The target cannot be written.
    """
    check_name(site, "--site")
    if target.is_dir() and any(target.iterdir()):
        raise InputError("holds something already; name a new folder for the copy", file=target)
    if key.absolute().is_relative_to(target.absolute()):
        raise InputError("it says who is who, and must not lie in what is sent", file=key)
    known = _read_key(key)
    whose = tallies.patients()
    names = _numbered("case", tallies.cases, known, site)
    patients = _numbered("patient", filter(None, whose.values()), known, f"{site}-P")
    rows = [[kind, name, shared] for (kind, name), shared in sorted(known.items())]
    write_text(key, csv_text(_COLUMNS, rows))  # first: nothing is sent whose names are lost
    said = {name: value for name, value in options.items() if name != "ensemble"}
    with Store(target, KIND, said).writing(names.values()) as store:
        # In the order of their new names: times of the files say nothing of the old ones.
        for case in sorted(names, key=names.__getitem__):
            ((_, tally),) = tallies.of([case])
            entry = tallies.entry(case)
            place = store.tally_path(names[case])
            tally.save(store.staged(place.name))
            patient = whose[case]
            made = Entry(
                names[case],
                _stamps(entry.inputs) if digests else {},
                tally.voxels,
                {"voxels_in_region": tally.voxels, "ensemble": entry.result.get("ensemble", {})},
                {"tally": store.stamp_staged(place.name, place)},
            ).of_patient(None if patient is None else patients[patient])
            store.save(made, {store.staged(place.name): place})
    return Shared(names, patients)


def _read_key(path: Path) -> dict[tuple[str, str], str]:
    if not path.exists():
        return {}
    columns, rows = read_table(path)
    if columns != _COLUMNS:
        raise InputError(
            f"is no key of shared tallies, which has the columns {', '.join(_COLUMNS)}", file=path
        )
    found = {(row["kind"], composed(row["name"])): row["shared"] for row in rows.values()}
    if len(set(found.values())) < len(rows):
        raise InputError("has a name twice; restore it, or begin with a new one", file=path)
    return found


def _numbered(
    kind: str, names: Iterable[str], known: dict[tuple[str, str], str], prefix: str
) -> dict[str, str]:
    """Return what each name is in the copy, and add to what is known those that are new."""
    wanted = sorted(set(names))
    new: Sequence[str] = [name for name in wanted if (kind, name) not in known]
    taken = set(known.values())
    dash = "" if kind == "patient" else "-"
    free = (shared for k in range(1, 10**9) if (shared := f"{prefix}{dash}{k:04d}") not in taken)
    for name, shared in zip(random.SystemRandom().sample(new, len(new)), free, strict=False):
        known[kind, name] = shared
    return {name: known[kind, name] for name in wanted}


def _stamps(inputs: Mapping[str, FileStamp]) -> dict[str, FileStamp]:
    """Return what of the files' stamps says which score it is, without names and times."""
    found = {}
    for number, role in enumerate(roles_of_voxels(inputs)):
        stamp = inputs[role]
        # The ending of a header says that the voxels are elsewhere.
        ending = stamp.name[-4:].lower() if stamp.name.lower().endswith(".mhd") else ""
        ending = ".nhdr" if stamp.name.lower().endswith(".nhdr") else ending
        new = "score" if number == 0 else f"score.{number:06d}"
        found[new] = FileStamp(f"{new}{ending}", stamp.size, None, stamp.digest)
    return found
