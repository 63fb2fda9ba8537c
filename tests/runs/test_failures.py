from __future__ import annotations

from pathlib import Path

import pytest

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
        (ValueError(f"{FOLDER}/A.nii.gz: truncated"), "score", "A.nii.gz: truncated"),
        (
            ValueError(f"{FOLDER}/A/1.nii.gz: shape differs from that of {FOLDER}/A.nii.gz"),
            "rater_2",
            "1.nii.gz: shape differs from that of A.nii.gz",
        ),
        (
            FileNotFoundError(2, "No such file or directory", f"{FOLDER}/A/1.nii"),
            "rater_1",
            "1.nii: No such file or directory",
        ),
        (OSError(5, "Input/output error"), "", "Input/output error"),
        (ValueError("case 'A': no rater marks any voxel"), "", "no rater marks any voxel"),
        (
            ValueError("raters[1][3, 4, 5] is 2; labels must be 0 or 1"),
            "rater_2",
            "1.nii.gz: voxel (3, 4, 5) is 2; labels must be 0 or 1",
        ),
        (
            ValueError("score[1, 2, 3] is nan; scores must be probabilities"),
            "score",
            "A.nii.gz: voxel (1, 2, 3) is nan; scores must be probabilities",
        ),
        (ValueError("region has shape [1]"), "roi", "roi.nii: has shape [1]"),
        (ValueError("raters[7] has shape [1]"), "", "raters[7] has shape [1]"),
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
