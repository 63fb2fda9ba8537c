from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from twintrack import load_calibrator
from twintrack.volumes import read_score, write_volume


@pytest.fixture
def model(twintrack, pristine_cohort, tmp_path):
    path = tmp_path / "c.json"
    assert twintrack("fit", "-i", pristine_cohort / "manifest.csv", "-o", path, "-q")[0] == 0
    return path


@pytest.fixture
def apply(twintrack, model, tmp_path):
    def apply(source, *arguments):
        return twintrack("apply", "-i", source, "-m", model, "-o", tmp_path / "out", *arguments)

    return apply


def names(folder):
    return sorted(path.name for path in folder.glob("*.nii*"))


CASES = [f"PHANTOM_0000{k}.nii.gz" for k in range(6)]


@pytest.mark.parametrize("source", ["predictions", "manifest.csv"])
def test_folder_and_manifest(apply, model, pristine_cohort, tmp_path, source):
    status, out, _ = apply(pristine_cohort / source)
    assert status == 0
    assert "6 in" in out
    assert names(tmp_path / "out") == CASES
    score = read_score(pristine_cohort / "predictions" / CASES[2])
    expected = load_calibrator(model).transform(score.array)
    found = nib.load(tmp_path / "out" / CASES[2])
    assert np.array_equal(np.asarray(found.dataobj), expected)


def test_another_prevalence(apply, model, pristine_cohort, tmp_path):
    assert apply(pristine_cohort / "predictions", "--prevalence", "0.001")[0] == 0
    score = read_score(pristine_cohort / "predictions" / CASES[2])
    fitted = load_calibrator(model)
    expected = fitted.for_prevalence(0.001).transform(score.array)
    found = np.asarray(nib.load(tmp_path / "out" / CASES[2]).dataobj)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, fitted.transform(score.array))
    status, _, err = apply(pristine_cohort / "predictions", "--prevalence", "0.002")
    assert status == 2  # another map, as of another calibrator
    assert "another map" in err
    status, _, err = apply(pristine_cohort / "predictions", "--prevalence", "1")
    assert status == 2
    assert "prevalence is" in err


def test_single_files(twintrack, model, pristine_cohort, tmp_path):
    files = [pristine_cohort / "predictions" / name for name in CASES[:2]]
    arguments = ("-m", model, "-o", tmp_path / "out", "--file_ending", ".nii")
    status, _, _ = twintrack("apply", "-i", files[0], "-i", files[1], *arguments)
    assert status == 0
    assert names(tmp_path / "out") == ["PHANTOM_00000.nii", "PHANTOM_00001.nii"]
    status, _, err = twintrack("apply", "-i", files[0], "-i", files[0], *arguments)
    assert status == 2
    assert "would be written to the same file as" in err


def test_tumour_classes_are_those_of_the_option(apply, model, tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.random((4, 5, 6, 7), np.float32) / 4
    folder = tmp_path / "scores"
    folder.mkdir()
    np.savez(folder / "A.npz", probabilities=probabilities)
    write_volume(folder / "A.nii.gz", np.zeros((7, 6, 5), np.uint8), np.eye(4))
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}')
    # Fitted on scores of which nothing is known: it fits any classes.
    status, _, err = apply(folder, "--tumour", "2,3")
    assert status == 0, err
    expected = load_calibrator(model).transform((probabilities[2] + probabilities[3]).T)
    found = nib.load(tmp_path / "out" / "A.nii.gz")
    assert np.array_equal(np.asarray(found.dataobj), expected)


def test_integers_state_their_error(apply, pristine_cohort):
    status, out, _ = apply(pristine_cohort / "predictions", "--dtype", "uint8")
    assert status == 0
    assert "uint8, within 0.002 of the map" in out


def test_what_is_there_is_refused_kept_or_replaced(apply, pristine_cohort, tmp_path):
    source = pristine_cohort / "predictions"
    apply(source)
    assert "made before  6" in apply(source)[1]
    status, _, err = apply(source, "--dtype", "uint16")
    assert status == 2
    assert "--continue_prediction" in err
    assert "--force" in err
    assert apply(source, "--dtype", "uint16", "--dry-run")[0] == 2
    status, out, _ = apply(source, "--dtype", "uint16", "--continue_prediction")
    assert status == 0
    assert "kept as found  6" in out
    status, _, _ = apply(source, "--dtype", "uint16", "--force")
    assert status == 0
    written = nib.load(tmp_path / "out" / CASES[0])
    assert written.header.get_data_dtype() == np.uint16
    assert apply(source, "--force", "--continue_prediction")[0] == 2
    assert "--overwrite" in apply(source, "--overwrite")[2]  # one name in all commands: --force


def test_parts_share_a_folder(apply, pristine_cohort, tmp_path):
    for part in range(4):
        assert apply(pristine_cohort / "predictions", "-num_parts", 4, "-part_id", part)[0] == 0
    assert names(tmp_path / "out") == CASES


def test_some_failures_are_status_1_and_all_status_2(apply, cohort, tmp_path):
    scores = sorted((cohort / "predictions").iterdir())
    scores[1].write_bytes(b"no volume")
    status, out, err = apply(cohort / "predictions")
    assert status == 1
    assert "failed     1" in out
    assert "PHANTOM_00001: failed: PHANTOM_00001.nii.gz: not a NIfTI file" in err
    assert names(tmp_path / "out") == [name for name in CASES if "00001" not in name]
    assert apply(scores[1])[0] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "c.json: No such file or directory"),
        (lambda path: path.write_text("{"), "c.json: not a JSON file"),
        (
            lambda path: path.write_text(
                json.dumps({**json.loads(path.read_text()), "format_version": 9})
            ),
            "c.json: format_version is 9",
        ),
    ],
)
def test_bad_calibrator_is_named(apply, model, pristine_cohort, tmp_path, change, message):
    change(model)
    status, out, err = apply(pristine_cohort / "predictions")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_nothing_to_calibrate(apply, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = apply(tmp_path / "empty")
    assert status == 2
    assert "no predictions" in err
    assert apply(tmp_path / "nowhere")[0] == 2


def test_limits_of_the_band(twintrack, pristine_cohort, tmp_path):
    model, out = tmp_path / "sure.json", tmp_path / "out"
    manifest = pristine_cohort / "manifest.csv"
    band = ("--band", tmp_path / "band.csv")
    assert twintrack("fit", "-i", manifest, "-o", model, *band, "-q")[0] == 0
    status, told, err = twintrack("apply", "-i", manifest, "-m", model, "-o", out, "--band")
    assert status == 0, err
    assert "0.95 pointwise band of 6 patients" in told
    for folder in ("", "low", "high"):
        assert names(out / folder) == CASES
    rows = (out / "volumes.csv").read_text().splitlines()
    assert rows[0] == "case,voxels,voxels_low,voxels_high,mm3,mm3_low,mm3_high"
    assert len(rows) == 7
    # Limits are no scores of the folder.
    evaluated = ("evaluate", "-i", manifest, "-m", model, "-o", tmp_path / "figures")
    status, told, err = twintrack(*evaluated)
    assert status == 0, err
    assert "volumes in interval" in told


def test_a_calibrator_without_a_band_says_how_to_come_to_one(apply, pristine_cohort, tmp_path):
    status, _, err = apply(pristine_cohort / "predictions", "--band")
    assert status == 2
    assert "c.json: has no band: make it again with twintrack fit --band FILE.csv" in err
    assert not (tmp_path / "out").exists()


def test_masks_begin_where_the_calibrator_or_a_number_says(apply, model, pristine_cohort, tmp_path):
    source = pristine_cohort / "predictions"
    assert apply(source)[0] == 0
    assert not (tmp_path / "out" / "masks").exists()
    known = load_calibrator(model).thresholds_
    fitted = load_calibrator(model)
    for asked, threshold in (
        ((), 0.5),
        (("--threshold", "majority"), known.majority),
        (("--threshold", "dice"), known.dice),
        (("--threshold", "0.25"), 0.25),
    ):
        status, out, err = apply(source, "--mask", *asked, "--force")
        assert status == 0, err
        words = asked[1:] if asked[1:] and asked[1].isalpha() else ()
        told = f"masks      score > {threshold:g}" + "".join(f" ({word})" for word in words)
        assert told in out
        assert names(tmp_path / "out" / "masks") == CASES
        mask = nib.load(tmp_path / "out" / "masks" / CASES[0])
        score = fitted.transform(read_score(source / CASES[0]).array)
        assert np.array_equal(np.asarray(mask.dataobj), score > threshold)
        assert "made before  6" in apply(source, "--mask", *asked)[1]
        record = json.loads((tmp_path / "out" / "prediction.json").read_text())
        assert record["threshold"] == threshold
    status, _, err = apply(source, "--mask", "--threshold", "majority", "--continue_prediction")
    assert status == 2
    assert "the masks that are there were made with another threshold" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threshold", "0.4"), "--threshold is that of masks, which --mask writes"),
        (("--mask", "--threshold", "often"), "--threshold is 'often'; it must be majority, dice"),
        (("--mask", "--threshold", "1.5"), "threshold is 1.5; a score lies in [0, 1]"),
        (("--mask", "--threshold", "dice"), "the map has no thresholds, as maps of earlier"),
    ],
)
def test_thresholds_that_cannot_be_are_refused_before_the_work(
    apply, model, pristine_cohort, tmp_path, arguments, message
):
    old = json.loads(model.read_text())
    del old["thresholds"]
    model.write_text(json.dumps(old))
    status, _, err = apply(pristine_cohort / "predictions", *arguments)
    assert status == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()
