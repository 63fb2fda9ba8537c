from __future__ import annotations

import math
from pathlib import Path

import pytest

from twintrack.errors import InputError
from twintrack.runs.failures import explain

FOLDER = Path("/data/of a/user")
FILES = {
    "score": FOLDER / "A.nii.gz",
    "rater_1": FOLDER / "A" / "1.nii",
    "rater_2": FOLDER / "A" / "1.nii.gz",
    "roi": FOLDER / "A" / "roi.nii",
}


@pytest.mark.parametrize(
    ("error", "role", "message"),
    [
        (InputError("truncated", file=FOLDER / "A.nii.gz"), "score", "A.nii.gz: truncated"),
        (
            InputError(
                f"shape differs from that of {FOLDER}/A.nii.gz", file=f"{FOLDER}/A/1.nii.gz"
            ),
            "rater_2",
            "1.nii.gz: shape differs from that of A.nii.gz",
        ),
        (
            FileNotFoundError(2, "No such file or directory", f"{FOLDER}/A/1.nii"),
            "rater_1",
            "1.nii: No such file or directory",
        ),
        (OSError(5, "Input/output error"), "", "Input/output error"),
        (InputError("no rater marks any voxel", case="A"), "", "no rater marks any voxel"),
        (
            InputError("labels must be 0 or 1", argument="raters[1]", voxel=(3, 4, 5), value=2.0),
            "rater_2",
            "1.nii.gz: voxel (3, 4, 5) is 2; labels must be 0 or 1",
        ),
        (
            InputError(
                "scores must be probabilities", argument="score", voxel=(1, 2, 3), value=math.nan
            ),
            "score",
            "A.nii.gz: voxel (1, 2, 3) is nan; scores must be probabilities",
        ),
        (InputError("has shape [1]", argument="region"), "roi", "roi.nii: has shape [1]"),
        (InputError("has shape [1]", argument="raters[7]"), "", "raters[7] has shape [1]"),
        (ValueError("two\n  lines"), "", "two lines"),
        (MemoryError(), "", "not enough memory; run fewer cases at a time"),
        (KeyError("x"), "", "KeyError: 'x'"),
        (ValueError(), "", "ValueError"),
    ],
)
def test_message_names_the_file_by_role_and_never_its_folder(error, role, message):
    failure = explain("A", "read", FILES, error)
    assert failure.message.startswith(message)
    assert failure.file == role
    assert str(FOLDER) not in failure.message
