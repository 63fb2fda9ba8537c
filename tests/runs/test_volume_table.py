"""volumes.csv: what calibrated scores predict, with the interval of what raters mark."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest

from twintrack import Calibrator
from twintrack.cohort import Case
from twintrack.runs.apply import ApplyJob, apply_cohort
from twintrack.runs.fit import TallyJob, fit_cohort, fit_tallies, read_tallies
from twintrack.runs.volume_table import PredictedVolume
from twintrack.volumes import read_score, write_volume


@pytest.fixture
def sure(cases, tmp_path):
    fit_cohort(cases, Calibrator(bins=30), TallyJob("roi"), tmp_path / "store")
    _, tallies = read_tallies(tmp_path / "store")
    return fit_tallies(Calibrator(bins=30), tallies, "roi", keep=True).keep_band()


def table(folder):
    with (folder / "volumes.csv").open() as file:
        return {row.pop("case"): row for row in csv.DictReader(file)}


def test_volumes_are_the_sums_of_the_scores_with_their_intervals(cases, sure, tmp_path):
    folder = tmp_path / "out"
    apply_cohort(cases, ApplyJob(sure, folder))
    found = table(folder)
    assert list(found) == [case.name for case in cases]
    for case in cases:
        score = read_score(folder / f"{case.name}.nii.gz")
        row = {name: float(value) for name, value in found[case.name].items()}
        assert row["voxels"] == pytest.approx(score.array.sum(dtype=np.float64), abs=1e-4)
        assert row["mm3"] == pytest.approx(row["voxels"] * score.voxel_volume)
        limits = sure.volume_interval(row["voxels"])
        assert (row["voxels_low"], row["voxels_high"]) == (limits.low, limits.high)
        assert row["mm3_low"] == pytest.approx(row["voxels_low"] * score.voxel_volume)
        assert row["mm3_high"] == pytest.approx(row["voxels_high"] * score.voxel_volume)
        assert row["voxels_low"] < row["voxels_high"]


def test_without_a_band_there_are_volumes_alone(cases, tmp_path, sure):
    sure.band_ = None
    apply_cohort(cases[:1], ApplyJob(sure, tmp_path / "out"))
    (row,) = table(tmp_path / "out").values()
    assert list(row) == ["voxels", "mm3"]


def test_parts_and_other_formats_add_to_one_table(cases, tmp_path, sure):
    """Whoever ends last knows of all that is there, and of nothing that is not."""
    job = ApplyJob(sure, tmp_path / "out")
    apply_cohort(cases[:2], job)
    apply_cohort(cases[2:4], job)
    apply_cohort(cases[:5], dataclasses.replace(job, dtype="uint8"), existing="keep")
    whole = tmp_path / "whole"
    apply_cohort(cases[:5], ApplyJob(sure, whole))
    assert table(job.folder) == table(whole)
    job.place(cases[1]).unlink()
    apply_cohort(cases[2:3], job)
    assert list(table(job.folder)) == [case.name for k, case in enumerate(cases[:5]) if k != 1]


def test_volumes_of_an_earlier_version_are_not_known(cases, tmp_path, sure):
    job = ApplyJob(sure, tmp_path / "out")
    apply_cohort(cases[:2], job)
    (record,) = job.folder.glob(f"store/*/cases/{cases[0].name}.json")
    content = json.loads(record.read_text())
    del content["result"]["predicted_volume"], content["result"]["voxel_volume"]
    record.write_text(json.dumps(content))
    apply_cohort(cases[:2], job)
    first, second = table(job.folder).values()
    assert set(first.values()) == {""}
    assert "" not in second.values()


def test_a_name_that_is_a_formula_is_none(sure, tmp_path):
    write_volume(tmp_path / "A.nii.gz", np.full((2, 2, 2), 0.5, np.float32), np.eye(4))
    apply_cohort([Case("=1+1", tmp_path / "A.nii.gz", ())], ApplyJob(sure, tmp_path / "out"))
    assert list(table(tmp_path / "out")) == ["'=1+1"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_sum_is_the_same_in_any_order(dtype):
    rng = np.random.default_rng(0)
    score = (rng.random((40, 50, 60)) ** 9).astype(dtype)
    turned = np.asfortranarray(score[::-1])
    parts = PredictedVolume()
    for first in range(0, 60, 7):
        parts.add(score[..., first : first + 7])
    assert total(score) == total(turned) == parts.voxels
    assert parts.voxels == pytest.approx(score.sum(dtype=np.float64), abs=1e-5)


def total(score):
    volume = PredictedVolume()
    volume.add(score)
    return volume.voxels
