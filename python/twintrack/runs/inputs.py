"""Which files decide the result of a case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twintrack.cohort import Case, score_records
from twintrack.files import split_suffix
from twintrack.volumes import files_read


def case_files(case: Case, *, vessels: bool, roi: bool) -> dict[str, Path]:
    """Return role to file: score, rater_1 …, and vessels and roi if the case has them.

    And all that is read with them, as far as it is there now: what `with_files_read` finds, and the
    record of how the score was made.
    """
    files = {"score": case.score}
    files.update({f"rater_{k + 1}": path for k, path in case.annotations.items()})
    if vessels and case.vessels is not None:
        files["vessels"] = case.vessels
    if roi and case.roi is not None:
        files["roi"] = case.roi
    record = score_records.record_beside(case.score)
    return {**with_files_read(files), **({} if record is None else {"score.record": record})}


def with_files_read(files: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files of some roles, and those that are read with them.

    These have the role of the file that they are read with and what their own name says beyond that
    of that file: ``score.dataset.json``, ``rater_1.raw`` beside ``A.mhd``. So a file that appears
    where there was none is a role more, and no role depends on the folder or the name of a case.
    """
    found = dict(files)
    for role, path in files.items():
        stem = split_suffix(path.name)[0]
        for number, beside in enumerate(files_read(path), start=1):
            name = f"{role}.{beside.name.removeprefix(f'{stem}.')}"
            found[name if name not in found else f"{name}.{number}"] = beside
    return found


def size_of(files: Mapping[str, Path]) -> int:
    """Return the bytes of all files; one that is missing counts 0, for reading it will say so."""

    def size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    return sum(map(size, files.values()))
