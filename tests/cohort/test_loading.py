from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from twintrack.cohort import Case, annotated_box, load_case
from twintrack.volumes import read_score, write_volume

SHAPE = (6, 5, 4)
AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])


def make_case(folder: Path) -> Case:
    """A case on disk: two raters, a vessel map of type int16 and a mask of type float64."""
    rng = np.random.default_rng(0)
    files = {
        "score": rng.random(SHAPE, "f4"),
        "r1": np.zeros(SHAPE, "i2"),
        "r2": np.zeros(SHAPE, "u1"),
        "vessels": rng.integers(0, 6, SHAPE).astype("i2"),
        "roi": rng.random(SHAPE) > 0.5,
    }
    files["r1"][3, 2, 1] = files["r2"][3, 3, 1] = 1
    for name, array in files.items():
        write_volume(folder / f"{name}.nii.gz", array, AFFINE)
    write_volume(folder / "roi.nii.gz", files["roi"].astype("f8"), AFFINE, "float64")
    path = {name: folder / f"{name}.nii.gz" for name in files}
    return Case("a", path["score"], (path["r1"], path["r2"]), path["vessels"], path["roi"])


def test_load_case_gives_arrays_on_one_grid(tmp_path):
    case = make_case(tmp_path)
    loaded = load_case(case, "all")
    assert loaded.case == case
    assert loaded.region is None
    assert [array.dtype for array in loaded.raters] == [np.int16, np.uint8]
    assert loaded.vessels.dtype == np.uint8
    assert {array.shape for array in (*loaded.raters, loaded.vessels)} == {SHAPE}
    np.testing.assert_array_equal(loaded.score.array, read_score(case.score).array)
    assert load_case(dataclasses.replace(case, vessels=None, roi=None), "all").vessels is None


def test_region_rules(tmp_path, monkeypatch):
    case = make_case(tmp_path)
    mask = load_case(case, "roi").region
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, read_score(case.roi).array == 1)

    monkeypatch.setattr(annotated_box, "__defaults__", (1,))  # a margin that does not fill all
    box = load_case(case, "box").region
    expected = np.zeros(SHAPE, bool)
    expected[2:5, 1:5, 0:3] = True
    np.testing.assert_array_equal(box, expected)

    with pytest.raises(ValueError, match="'roi' needs a mask"):
        load_case(dataclasses.replace(case, roi=None), "roi")
    with pytest.raises(ValueError, match="region_rule is 'mask'"):
        load_case(case, "mask")


@pytest.mark.parametrize("name", ["r2", "vessels", "roi"])
def test_header_fault_of_any_file_is_found_and_can_be_overridden(tmp_path, name):
    # CURVAS 2024 has an annotation whose header alone is wrong.
    case = make_case(tmp_path)
    fault = tmp_path / f"{name}.nii.gz"
    array = np.ones(SHAPE, "u1")
    write_volume(fault, array, AFFINE * [[1], [1], [1.5], [1]])
    with pytest.raises(ValueError, match=rf"{name}\.nii\.gz: geometry.*score\.nii\.gz.*spacing"):
        load_case(case, "roi")
    load_case(case, "roi", ignore_header=True)
    write_volume(fault, array[:-1], AFFINE)
    with pytest.raises(ValueError, match=rf"{name}\.nii\.gz: shape"):
        load_case(case, "roi", ignore_header=True)


def test_annotations_are_compared_with_each_other_where_the_score_has_no_geometry(tmp_path):
    case = make_case(tmp_path)
    score = np.stack([np.zeros(SHAPE[::-1], "f4"), np.ones(SHAPE[::-1], "f4")])
    np.savez(tmp_path / "a.npz", probabilities=score)
    case = dataclasses.replace(case, score=tmp_path / "a.npz")
    assert (load_case(case, "all").score.array == 1).all()
    assert (load_case(case, "all", tumour=(0,)).score.array == 0).all()
    write_volume(tmp_path / "r2.nii.gz", np.ones(SHAPE, "u1"), AFFINE * 2)
    with pytest.raises(ValueError, match=r"r2\.nii\.gz: geometry differs from .*r1\.nii\.gz"):
        load_case(case, "all")


def test_unusable_masks_and_annotations_are_named(tmp_path):
    case = make_case(tmp_path)
    mask = np.zeros(SHAPE, "u1")
    write_volume(case.roi, mask, AFFINE)
    with pytest.raises(ValueError, match=r"roi\.nii\.gz: the mask is empty"):
        load_case(case, "roi")
    mask[5, 0, 3] = 2
    mask[4, 1, 3] = 1
    write_volume(case.roi, mask, AFFINE)
    message = r"roi\.nii\.gz: voxel \(4, 1, 3\) is 1 but a voxel before it is 2; a region is 0"
    with pytest.raises(ValueError, match=message):
        load_case(case, "roi")
    for rater in case.raters:
        write_volume(rater, np.zeros(SHAPE, "u1"), AFFINE)
    with pytest.raises(ValueError, match="case 'a': no rater marks any voxel"):
        load_case(case, "box")
    case.raters[1].write_bytes(case.raters[1].read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"r2\.nii\.gz: truncated"):
        load_case(case, "all")


BOX = (slice(1, 5), slice(2, 5), slice(1, 3))


def crop_score(case: Case, affine: np.ndarray = AFFINE) -> np.ndarray:
    """Replace a case's score by nnU-Net's npz of a crop to BOX, its segmentation beside it."""
    inside = read_score(case.score).array[BOX]
    origin = affine[:3, :3] @ [part.start for part in BOX] + affine[:3, 3]
    placed = affine.copy()
    placed[:3, 3] = origin
    score = case.score.with_name("crop.npz")
    np.savez(score, probabilities=np.stack([1 - inside.T, inside.T]))
    write_volume(case.score.with_name("crop.nii.gz"), np.zeros(inside.shape, "u1"), placed)
    return inside


def test_score_that_is_a_crop_is_0_outside(tmp_path):
    """nnU-Net's validation of a network that was trained on crops; raters mark the whole CT."""
    whole = make_case(tmp_path)
    inside = crop_score(whole)
    case = dataclasses.replace(whole, score=tmp_path / "crop.npz")
    for rule in ("all", "box", "roi"):
        loaded, expected = load_case(case, rule), load_case(whole, rule)
        assert loaded.part == BOX
        assert loaded.score.array.shape == SHAPE
        np.testing.assert_array_equal(loaded.score.array[BOX], inside)
        assert loaded.score.array.sum(dtype="f8") == inside.sum(dtype="f8")
        for found, wanted in zip(loaded.raters, expected.raters, strict=True):
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(loaded.vessels, expected.vessels)
        np.testing.assert_array_equal(loaded.region, expected.region)
    assert load_case(whole, "all").part is None
    # A mask of the same crop says nothing of what is outside; neither was any network asked.
    mask = read_score(whole.score).array[BOX] > 0.5
    write_volume(whole.roi, mask.astype("u1") * 255, read_score(case.score))
    region = load_case(case, "roi").region
    np.testing.assert_array_equal(region[BOX], mask)
    assert region.sum() == mask.sum()
    # One of another crop, though of the same shape, is not of this score.
    moved = AFFINE.copy()
    moved[:3, 3] = AFFINE[:3, :3] @ [part.start - 1 for part in BOX]
    write_volume(whole.roi, mask.astype("u1"), moved)
    with pytest.raises(ValueError, match=r"roi\.nii\.gz: shape \(4, 3, 2\) differs"):
        load_case(case, "roi")


def test_crops_that_are_none_stay_errors(tmp_path):
    whole = make_case(tmp_path)
    case = dataclasses.replace(whole, score=tmp_path / "crop.npz")
    half = np.eye(4)
    half[0, 3] = 0.5 * AFFINE[0, 0]
    away = np.eye(4)
    away[2, 3] = 3 * AFFINE[2, 2]
    for change in (half, away, np.diag([1, 1, 1.2, 1]), np.diag([-1.0, 1, 1, 1])):
        crop_score(whole, change @ AFFINE)
        with pytest.raises(
            ValueError, match=r"r1\.nii\.gz: shape \(6, 5, 4\) differs from \(4, 3, 2\)"
        ):
            load_case(case, "all")
    crop_score(whole)
    load_case(case, "all")
    with pytest.raises(ValueError, match="shape"):  # headers are not to be believed
        load_case(case, "all", ignore_header=True)
    # Annotations of the crop do not tell what raters marked elsewhere.
    write_volume(case.raters[1], np.ones((4, 3, 2), "u1"), read_score(case.score))
    with pytest.raises(ValueError, match=r"r2\.nii\.gz: shape \(4, 3, 2\) differs"):
        load_case(case, "all")
