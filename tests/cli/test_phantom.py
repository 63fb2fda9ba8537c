from __future__ import annotations

import json
import shlex

import nibabel
import numpy as np
import pytest
from folders import content

from twintrack.cohort import read_manifest


def test_a_cohort_that_the_other_commands_take(twintrack, tmp_path):
    small = ("--cases", 3, "--shape", "24,20,16", "--rater-count", 2, "--seed", 4)
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


@pytest.mark.parametrize("name", ["cohort", "test", "a folder's"])
def test_what_is_advised_can_be_done_and_is_honest(twintrack, tmp_path, monkeypatch, name):
    """Figures on the cohort that was fitted are too good, whatever the cohort is called."""
    monkeypatch.chdir(tmp_path)
    small = ("--cases", 2, "--first", 3, "--shape", "28,24,20", "--rater-count", 2, "--seed", 4)
    status, out, err = twintrack("phantom", "-o", name, *small, "--format", "npz", "--score-bias=1")
    assert status == 0, err
    advised = [shlex.split(line[line.index("twintrack ") :]) for line in out.splitlines()[2:]]
    assert [command[1] for command in advised] == ["fit", "phantom", "evaluate"]
    for program, *arguments in advised:
        assert program == "twintrack"
        status, _, err = twintrack(*arguments)
        assert status == 0, err
        assert "fitted on" not in err
    assert json.loads((tmp_path / "results" / "summary.json").read_text())["fitted_on"] == {}
    fitted, other = (read_manifest(tmp_path / n / "manifest.csv") for n in (name, f"{name}_other"))
    assert [case.name for case in fitted] == ["PHANTOM_00003", "PHANTOM_00004"]
    assert [case.name for case in other] == ["PHANTOM_00005", "PHANTOM_00006"]
    assert {case.score.suffix for case in other} == {".npz"}


@pytest.mark.parametrize("here", [".", "../here", "../here/."])
def test_the_folder_of_other_patients_is_another(twintrack, tmp_path, monkeypatch, here):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _, out, _ = twintrack("phantom", "-o", here, "--cases", 1, "--shape", "24,20,16")
    (line,) = (line for line in out.splitlines() if "twintrack phantom" in line)
    command = shlex.split(line[line.index("twintrack ") :])
    assert command[command.index("-o") + 1].endswith("here_other")


def test_first_gives_other_patients_of_the_same_cohort(twintrack, tmp_path):
    common = ("--shape", "24,20,16", "--rater-count", 1)
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
