from __future__ import annotations

import nibabel
import numpy as np
from folders import content

from twintrack.cohort import read_manifest


def test_a_cohort_that_the_other_commands_take(twintrack, tmp_path):
    small = ("--cases", 3, "--shape", "24,20,16", "--raters", 2, "--seed", 4)
    status, out, err = twintrack("phantom", "-o", tmp_path / "cohort", *small)
    assert status == 0, err
    assert "twintrack fit -i" in out
    cases = read_manifest(tmp_path / "cohort" / "manifest.csv")
    assert len(cases) == 3
    assert {len(case.raters) for case in cases} == {2}
    assert nibabel.load(cases[0].score).shape == (24, 20, 16)
    status, _, err = twintrack(
        "evaluate", "-i", tmp_path / "cohort" / "manifest.csv", "-o", tmp_path / "results"
    )
    assert status == 0, err

    twintrack("phantom", "-o", tmp_path / "again", *small)
    assert content(tmp_path / "again").keys() == content(tmp_path / "cohort").keys()
    for name, written in content(tmp_path / "cohort").items():
        if not name.endswith(".csv"):  # the manifest names its folder's files
            assert written == content(tmp_path / "again")[name], name


def test_first_gives_other_patients_of_the_same_cohort(twintrack, tmp_path):
    common = ("--shape", "24,20,16", "--raters", 1)
    twintrack("phantom", "-o", tmp_path / "two", "--cases", 2, *common)
    twintrack("phantom", "-o", tmp_path / "second", "--cases", 1, "--first", 1, *common)
    two = read_manifest(tmp_path / "two" / "manifest.csv")
    (second,) = read_manifest(tmp_path / "second" / "manifest.csv")
    assert second.name == two[1].name
    np.testing.assert_array_equal(
        nibabel.load(second.score).get_fdata(), nibabel.load(two[1].score).get_fdata()
    )


def test_npz_is_what_nnunet_leaves(twintrack, tmp_path):
    twintrack("phantom", "-o", tmp_path, "--cases", 1, "--shape", "24,20,16", "--format", "npz")
    (case,) = read_manifest(tmp_path / "manifest.csv")
    with np.load(case.score) as archive:
        assert archive["probabilities"].shape == (2, 16, 20, 24)


def test_a_shape_that_is_none_is_refused(twintrack, tmp_path):
    status, _, err = twintrack("phantom", "-o", tmp_path / "cohort", "--shape", "24x20")
    assert status == 2
    assert "--shape is '24x20'" in err
    assert not (tmp_path / "cohort").exists()
