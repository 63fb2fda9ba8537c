"""Which scores a run used, by what its records say of the files, and which maps know them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from twintrack.calibration.fitted_on import FittedCase, Overlap, find_overlap
from twintrack.cohort import Case
from twintrack.runs.stamps import FileStamp, read_stamp
from twintrack.runs.store import Store

_SCORE = "score"  # role of its file; those of files that are read with it begin with "score."


def score_digest(stamps: Mapping[str, FileStamp]) -> str | None:
    """Return digest and size of the files that a case's score is in, as `FittedCase` has them.

    Parameters
    ----------
    stamps
        Role to stamp, as in the record of a case.

    Returns
    -------
    digest
        ``DIGEST-BYTES``, joined by "+" of the header and the data of an ``.mhd`` or ``.nhdr``; None
        if there is no score, or if the data of its header were not stamped, for headers of
        different scores can be equal. Files that only tell of a score (``dataset.json`` and the
        like) do not count: they may come and go.
    """
    roles = roles_of_voxels(stamps)
    if roles == [_SCORE] and _is_header(stamps[_SCORE].name):
        return None
    return "+".join(f"{stamps[role].digest}-{stamps[role].size}" for role in roles) or None


def roles_of_voxels(files: Mapping[str, FileStamp] | Mapping[str, Path]) -> list[str]:
    """Return the roles of the files that a case's score is in, in the order of its digest."""
    score = files.get(_SCORE)
    if score is None:
        return []
    data = [role for role in files if role.startswith(f"{_SCORE}.") and _holds_data(files[role])]
    return [_SCORE, *(sorted(data) if _is_header(score.name) else [])]


def _is_header(name: str) -> bool:
    return name.lower().endswith((".mhd", ".nhdr"))


def _holds_data(file: FileStamp | Path) -> bool:
    return not file.name.lower().endswith(".json")


def find_among(
    cases: Sequence[Case],
    fitted_on: Collection[FittedCase],
    files: Callable[[Case], Mapping[str, Path]],
    store: Store,
) -> Overlap:
    """Find out before a run which of its cases a map was fitted on.

    Only scores are read that are as large as one of those that it was fitted on, and of which the
    store has no valid record.

    Parameters
    ----------
    cases
        To be evaluated.
    fitted_on
        What the map was fitted on.
    files
        Role to file of a case.
    store
        Where the run keeps what is finished; nothing is written.
    """
    known_scores = (case.score for case in fitted_on if case.score is not None)
    sizes = {file.rpartition("-")[2] for score in known_scores for file in score.split("+")}

    def stamp(case: Case, role: str, path: Path) -> FileStamp:
        size = path.stat().st_size
        if str(size) not in sizes:  # another score, whatever it holds
            return FileStamp(path.name, size, None, "")
        entry = store.find(case.name)
        known = None if entry is None else entry.inputs.get(role)
        return known if known is not None and known.matches(path) else read_stamp(path)

    def digest(case: Case) -> str | None:
        found = files(case)
        roles = roles_of_voxels(found)
        return score_digest({role: stamp(case, role, found[role]) for role in roles})

    if not fitted_on:
        return {}
    scores: dict[str, str | None] = {}
    for case in cases:
        scores[case.name] = None
        with contextlib.suppress(OSError, ValueError):  # what cannot be read the run will tell
            scores[case.name] = digest(case)
    return find_overlap(fitted_on, scores, {case.name: case.patient for case in cases})
