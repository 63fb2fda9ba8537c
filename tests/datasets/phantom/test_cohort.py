"""Synthetic cohorts in files, as CURVAS–PDACVI and as PANORAMA publish theirs."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from twintrack.cohort import read_folders, read_manifest
from twintrack.datasets.phantom import PhantomSpec, phantom_case, write_cohort, write_panorama
from twintrack.volumes import read_label_map, read_labels, read_score

SMALL = PhantomSpec(shape=(48, 44, 40))
TINY = PhantomSpec(shape=(12, 10, 8), spacing=(5.0, 5.0, 5.0), raters=3)


def test_cohort_on_disk_holds_the_cases(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    manifest = write_cohort(
        tmp_path / "new" / "cohort", TINY, [4, 1], progress=lambda *done: calls.append(done)
    )
    assert calls == [(1, 2), (2, 2)]
    cases = read_manifest(manifest)
    assert [case.name for case in cases] == ["PHANTOM_00004", "PHANTOM_00001"]
    assert manifest.read_text().splitlines()[0] == "case,score,rater_1,rater_2,rater_3,vessels,roi"
    for index, files in zip((4, 1), cases, strict=True):
        truth = phantom_case(TINY, index)
        score = read_score(files.score)
        np.testing.assert_array_equal(score.array, truth.score)
        np.testing.assert_allclose(score.affine, truth.affine, atol=1e-3)
        for path, mask in zip(files.raters, truth.raters, strict=True):
            np.testing.assert_array_equal(read_labels(path).array, mask)
        assert files.vessels is not None
        assert files.roi is not None
        np.testing.assert_array_equal(read_label_map(files.vessels).array, truth.vessels)
        np.testing.assert_array_equal(read_label_map(files.roi).array, truth.roi_mask())
        # nibabel alone reads the rest: the layout needs nothing of ours.
        home = files.raters[0].parent
        assert files.raters[0].name == "annotation_1.nii.gz"
        image = nib.load(home / "image.nii.gz")
        assert image.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asarray(image.dataobj), truth.image)
        anatomy = np.asarray(nib.load(home / "anatomy.nii.gz").dataobj)
        np.testing.assert_array_equal(anatomy, truth.anatomy)
    folders = read_folders(manifest.parent / "cases", manifest.parent / "predictions")
    assert {case.name: case.raters for case in folders} == {c.name: c.raters for c in cases}


def test_the_same_command_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_cohort(tmp_path / name, TINY, 2)
        write_cohort(tmp_path / name, TINY, 2, score_format="npz")
    files = {p.relative_to(tmp_path / "a"): p for p in (tmp_path / "a").rglob("*") if p.is_file()}
    # Per case: image, three annotations, vessels, anatomy, roi, two predictions; and the manifest.
    assert len(files) == 2 * 9 + 1
    for relative, path in files.items():
        assert path.read_bytes() == (tmp_path / "b" / relative).read_bytes(), relative


def test_npz_predictions_are_as_nnunet_saves_them(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path, TINY, 1, score_format="npz")
    truth = phantom_case(TINY, 0)
    (files,) = read_manifest(manifest)
    assert files.score.name == "PHANTOM_00000.npz"
    with np.load(files.score) as archive:
        probabilities = archive["probabilities"]
    assert probabilities.shape == (2, *truth.score.T.shape)
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(probabilities[1].T, truth.score)
    np.testing.assert_array_equal(probabilities[0], 1 - probabilities[1])
    score = read_score(files.score)
    np.testing.assert_array_equal(score.array, truth.score)
    np.testing.assert_allclose(score.affine, truth.affine, atol=1e-3)
    segmentation = read_label_map(tmp_path / "predictions" / "PHANTOM_00000.nii.gz")
    np.testing.assert_array_equal(segmentation.array, truth.score > 0.5)


@pytest.mark.parametrize(
    ("spec_dtype", "dtype", "stored", "error"),
    [
        ("float16", None, np.float32, 0.0),
        ("float64", None, np.float64, 0.0),
        ("float32", "uint16", np.uint16, 0.51 / 65535),
        ("float32", "uint8", np.uint8, 0.51 / 255),
    ],
)
def test_scores_are_stored_as_asked(
    tmp_path: Path, spec_dtype: str, dtype: str | None, stored: type, error: float
) -> None:
    spec = replace(TINY, score_dtype=spec_dtype)
    (files,) = read_manifest(write_cohort(tmp_path, spec, 1, score_dtype=dtype))
    assert nib.load(files.score).get_data_dtype() == stored
    difference = read_score(files.score).array - phantom_case(spec, 0).score
    assert np.abs(difference).max() <= error


def test_without_vessels_there_is_neither_file_nor_cell(tmp_path: Path) -> None:
    spec = replace(TINY, vessels=False)
    assert phantom_case(spec, 0).vessels is None
    manifest = write_cohort(tmp_path, spec, 1)
    assert not list(tmp_path.rglob("vessels*"))
    with manifest.open() as file:
        assert [row["vessels"] for row in csv.DictReader(file)] == [""]


def test_panorama_layout(tmp_path: Path) -> None:
    write_panorama(tmp_path, TINY, 2)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.nii.gz"))
    assert names == [
        "images/PHANTOM_00000_0000.nii.gz",
        "images/PHANTOM_00001_0000.nii.gz",
        "labels/PHANTOM_00000.nii.gz",
        "labels/PHANTOM_00001.nii.gz",
    ]
    labels = read_label_map(tmp_path / "labels" / "PHANTOM_00001.nii.gz")
    np.testing.assert_array_equal(labels.array, phantom_case(TINY, 1).anatomy)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cases", {"cases": 0}),
        ("cases", {"cases": [1, 1]}),
        ("score_format", {"cases": 1, "score_format": "mha"}),
        ("score_dtype", {"cases": 1, "score_dtype": "float16"}),
        ("score_dtype", {"cases": 1, "score_format": "npz", "score_dtype": "uint8"}),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, name: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must"):
        write_cohort(tmp_path / "cohort", TINY, **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "cohort").exists()
