"""Which files decide the result of a case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twintrack.cohort import Case
from twintrack.files import split_suffix

__all__ = ["case_files", "size_of"]


def case_files(case: Case, *, vessels: bool, roi: bool) -> dict[str, Path]:
    """Return role to file: score, rater_1 …, and vessels and roi if the case has them.

    nnU-Net's ``CASE.npz`` has its geometry from the segmentation beside it, whose role is
    "geometry".
    """
    files = {"score": case.score}
    stem, suffix = split_suffix(case.score.name)
    if suffix == ".npz":
        beside = (case.score.with_name(stem + ending) for ending in (".nii.gz", ".nii", ".mha"))
        found = next((path for path in beside if path.exists()), None)
        if found is not None:
            files["geometry"] = found
    files.update({f"rater_{k + 1}": path for k, path in enumerate(case.raters)})
    if vessels and case.vessels is not None:
        files["vessels"] = case.vessels
    if roi and case.roi is not None:
        files["roi"] = case.roi
    return files


def size_of(files: Mapping[str, Path]) -> int:
    """Return the bytes of all files; one that is missing counts 0, for reading it will say so."""

    def size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    return sum(map(size, files.values()))
