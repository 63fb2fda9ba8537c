"""Which scores a run used, by what its records say of the files, and which maps know them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from twintrack.cohort import Case
from twintrack.fitted_on import FittedCase, Overlap, find_overlap
from twintrack.runs.stamps import FileStamp, read_stamp
from twintrack.runs.store import Store

__all__ = ["find_among", "score_digest"]

_SCORE = "score"  # begins the roles of the files that a score is in


def score_digest(stamps: Mapping[str, FileStamp]) -> str | None:
    """Return digest and size of the files that a case's score is in, as `FittedCase` has them.

    Parameters
    ----------
    stamps
        Role to stamp, as in the record of a case.

    Returns
    -------
    digest
        ``DIGEST-BYTES``, joined by "+" of several files; None if there is no score, or if its
        voxels are in a file that was not stamped, for headers (``.mhd``) of different scores can
        be equal.
    """
    files = [stamps[role] for role in sorted(stamps) if role.startswith(_SCORE)]
    if all(file.name.lower().endswith(".mhd") for file in files):
        return None
    return "+".join(f"{file.digest}-{file.size}" for file in files)


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
        of_score = ((role, path) for role, path in files(case).items() if role.startswith(_SCORE))
        return score_digest({role: stamp(case, role, path) for role, path in of_score})

    if not fitted_on:
        return {}
    scores: dict[str, str | None] = {}
    for case in cases:
        scores[case.name] = None
        with contextlib.suppress(OSError, ValueError):  # what cannot be read the run will tell
            scores[case.name] = digest(case)
    return find_overlap(fitted_on, scores)
