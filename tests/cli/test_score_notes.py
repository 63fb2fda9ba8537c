"""What ``fit``, ``apply`` and ``evaluate`` tell of scores that contradict their segmentation."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from nnunet_scores import affine_of, describe, probabilities, write_case

from twintrack.volumes import write_volume

SHAPE = (14, 12, 10)


@pytest.fixture
def folders(tmp_path):
    """Five cases of a reader that turns images; the segmentations of all but one were changed."""
    affine = affine_of("LPS")
    describe(tmp_path / "scores", "NibabelIOWithReorient")
    for number in range(5):
        found = probabilities(SHAPE, seed=number)
        labels = found.argmax(0)
        if number:
            labels[np.unravel_index(found[1].argmax(), SHAPE)] = 0
        name = f"case{number}"
        write_case(tmp_path / "scores", name, found, affine, "NibabelIOWithReorient", labels)
        (tmp_path / "cases" / name).mkdir(parents=True)
        for rater in (1, 2):
            file = tmp_path / "cases" / name / f"annotation_{rater}.nii.gz"
            write_volume(file, (np.roll(found[1], rater, 0) > 0.4).astype("u1"), affine)
    return tmp_path / "cases", tmp_path / "scores"


def test_notes_are_warnings_and_stand_in_the_results(twintrack, folders, tmp_path):
    cases, scores = folders
    told = "the segmentation case1.nii.gz contradicts the class probabilities in 1 voxel: "
    model = tmp_path / "c.json"
    for arguments in (
        ("fit", "-i", cases, "-p", scores, "-o", model, "--bins", "cells"),
        ("fit", "-i", cases, "-p", scores, "-o", model, "--bins", "cells"),  # from the store
        ("apply", "-i", scores, "-m", model, "-o", tmp_path / "applied"),
        ("apply", "-i", scores, "-m", model, "-o", tmp_path / "applied"),
    ):
        status, _, err = twintrack(*arguments)
        assert status == 0, err
        warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == 4
        assert warnings[0].startswith(f"warning: case1: {told}")
        assert warnings[3] == "warning: such notes on 1 more case are left out here"
    out = tmp_path / "out"
    assert twintrack("evaluate", "-i", cases, "-p", scores, "-o", out)[0] == 0
    with (out / "cases.csv").open(newline="") as file:
        notes = {row["case"]: row["notes"] for row in csv.DictReader(file)}
    assert told in notes["case1"]
    assert "contradicts" not in notes["case0"]


def test_another_readers_order_is_refused_by_every_command(twintrack, folders, tmp_path):
    cases, scores = folders
    model = tmp_path / "c.json"
    assert twintrack("fit", "-i", cases, "-p", scores, "-o", model, "--bins", 20)[0] == 0
    plans = scores / "plans.json"
    plans.write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    for command in (
        ("fit", "-i", cases, "-p", scores, "-o", tmp_path / "d.json"),
        ("apply", "-i", scores, "-m", model, "-o", tmp_path / "applied"),
        ("evaluate", "-i", cases, "-p", scores, "-o", tmp_path / "out"),
    ):
        status, out, err = twintrack(*command)
        assert status != 0, out
        assert "case0.npz: its axes (x, y, z) were taken to point to L, P, S" in err
    assert not (tmp_path / "d.json").exists()
    assert not list((tmp_path / "applied").glob("*.nii.gz"))
    # With the true reader, figures are those of the turned file.
    plans.write_text(json.dumps({"image_reader_writer": "SimpleITKIOWithReorient"}))
    assert twintrack("evaluate", "-i", cases, "-p", scores, "-o", tmp_path / "out")[0] == 0
    written = nib.load(scores / "case0.nii.gz")
    assert nib.aff2axcodes(written.affine) == ("L", "P", "S")
