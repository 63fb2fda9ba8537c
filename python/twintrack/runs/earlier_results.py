"""What is in a result folder already, and whether the results of a run may take its place.

More cases, changed files or new editions of figures are the same method, measured again. Another
name, calibrator, protocol, region or other option is another method: its results are not replaced
unasked, for they may have taken hours, and who looks for them would find these.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twintrack.errors import InputError
from twintrack.files import read_record
from twintrack.runs.editions import differing_options
from twintrack.runs.evaluate import KIND, EvaluateJob
from twintrack.runs.result_folder import FORMAT
from twintrack.runs.store import stores_there

# Options of an evaluation that are left out where they were not given.
_SAID_IF_GIVEN = (
    *("label", "ignore_label", "use_raters", "tallies", "one_more_rater", "ece_bins", "volumes"),
)


def check_results(
    folder: Path, method: str, options: Mapping[str, Any], *, force: bool = False
) -> list[Path]:
    """Find out before the work whether a result folder holds the results of another method.

    Parameters
    ----------
    folder
        Need not exist.
    method, options
        Name of the method, and what its figures depend on.
    force
        Whether the results of another method may be replaced.

    Returns
    -------
    outdated
        Their files, which have to go when this method's results are on their way.

    Raises
    ------
    ValueError
        There are such results, and no force; names what differs, with both values.
    """
    place, difference = _difference(folder, method, options)
    if not difference:
        return []
    if not force:
        raise InputError(
            f"{difference}; name another folder for this run, or replace what is there "
            "with --force",
            file=place,
        )
    files = [folder / name for name in ("summary.json", "cases.csv", "failures.csv")]
    return [*files, *sorted((folder / "examples").glob("*.npz"))]


def _difference(folder: Path, method: str, options: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the file that tells of another method, and what it tells; "" if there is none."""
    summary = folder / "summary.json"
    if summary.is_file():
        content = _read(summary)
        if content is None:
            return summary, "is not the summary of an evaluation"
        there, here = {"method": method, **content}, {"method": method, **options}
        return summary, _told(there, here)
    # The run has not ended, or was a part of one: nothing but its store tells.
    stores = stores_there(folder / "store", KIND)
    told = [(store.folder, _told(store.options, options)) for store in stores]
    if told:
        return min(told, key=lambda found: len(found[1]))  # "" where one is of this method
    cases = folder / "cases.csv"
    return cases, "holds results, but no summary.json says of what" if cases.exists() else ""


def _told(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say in what another method differs; "" if in nothing."""
    stated = {**EvaluateJob().options, **there}  # earlier versions had fewer options
    here = {**dict.fromkeys(_SAID_IF_GIVEN), **here}
    differing = [
        name
        for name in differing_options(here, {key: stated.get(key) for key in here})
        if not _same_calibrator(stated.get(name), here[name])
    ]
    if not differing:
        return ""
    values = [f"{key} is {_shown(stated.get(key))}, here {_shown(here[key])}" for key in differing]
    return f"is of another method: {'; '.join(values)}"


def _same_calibrator(one: Any, other: Any) -> bool:
    """Whether two are one, as far as both versions of TwinTrack that wrote of it tell."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    known = set(one).intersection(other) - {"versions"}
    return bool(known) and all(one[name] == other[name] for name in known)


def _shown(value: Any) -> str:
    if not isinstance(value, Mapping) or "knots" not in value:
        return "none" if value is None else json.dumps(value, ensure_ascii=False)
    # A calibrator, of which two that differ may be alike in all but the map.
    known = {name: value.get(name) for name in ("target", "region", "cases", "voxels")}
    told = ", ".join(f"{name} {told}" for name, told in known.items() if told is not None)
    knots = zlib.crc32(json.dumps(value.get("knots"), sort_keys=True).encode())
    return f"the map {knots:08x} ({told})"


def _read(summary: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        content = read_record(summary, dict)
        return content if content.get("format") == FORMAT else None
    return None
