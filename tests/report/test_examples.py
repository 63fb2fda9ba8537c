"""Cutting slices for the qualitative figure: the right slice, the right way up."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from twintrack.report import Example, cut_example, read_examples, write_example
from twintrack.report.examples import typical_case

SHAPE = (20, 26, 9)


def volumes():
    """A lesion in slice z = 6 with a brighter spot towards the patient's right and front."""
    raters = np.zeros((3, *SHAPE), np.uint8)
    raters[:, 8:13, 10:17, 6] = 1
    raters[0, 9:11, 12:14, 5] = 1
    score = np.zeros(SHAPE, np.float32)
    score[8:14, 10:18, 4:8] = 0.75
    score[12, 16, 6] = 1  # RAS: high x is right, high y is front
    image = np.linspace(-500, 500, np.prod(SHAPE)).reshape(SHAPE)
    return score, raters, image


def reoriented(volume, axes, flips):
    return np.flip(np.transpose(volume, axes), [i for i, flip in enumerate(flips) if flip])


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_any_stored_orientation_gives_the_same_picture(axes):
    # A case stored as LPS, or with slices first, must look as it does in RAS.
    score, raters, image = volumes()
    affine = np.diag([0.7, 0.8, 3.0, 1.0])
    expected = cut_example("c", score, raters, score, image, affine)
    for flips in product([False, True], repeat=3):
        ornt = np.array([[axes[i], -1 if flips[i] else 1] for i in range(3)])
        shape = tuple(SHAPE[i] for i in axes)
        stored_affine = affine @ nib.orientations.inv_ornt_aff(
            nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), ornt),
            SHAPE,
        )
        stored = [reoriented(v, axes, flips) for v in (score, *raters, image)]
        assert stored[0].shape == shape
        found = cut_example("c", stored[0], stored[1:4], stored[0], stored[4], stored_affine)
        for name in ("mhr", "score", "calibrated", "background"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert found.spacing == pytest.approx(expected.spacing)


def test_right_is_left_and_front_is_up():
    score, raters, _ = volumes()
    example = cut_example("c", score, raters, affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    row, column = np.argwhere(example.score == 1)[0]
    marked = np.argwhere(example.mhr > 0)
    assert row == marked[:, 0].min()
    assert column == marked[:, 1].min()
    assert example.radiological


def test_the_slice_with_most_marks_is_shown_and_named():
    score, raters, _ = volumes()
    assert cut_example("c", score, raters).slice_name == "axial, z = 6"
    lps = np.diag([-1.0, -1.0, 2.0, 1.0])
    assert cut_example("c", score, raters, affine=lps).slice_name == "axial, z = 6"
    assert cut_example("c", score, raters, index=5).mhr.max() == pytest.approx(1 / 3)
    # Without marks the score decides.
    assert cut_example("c", score, np.zeros_like(raters)).slice_name == "axial, z = 6"


def test_the_crop_is_the_lesion_with_its_margin():
    score, raters, _ = volumes()
    affine = np.diag([0.5, 1.0, 1.0, 1.0])
    example = cut_example("c", score, raters, affine=affine, margin=1.0)
    # 5 × 0.5 mm wide and 7 × 1 mm high: a square of 9 mm.
    assert example.mhr.shape == (9, 18)
    assert example.spacing == (1.0, 0.5)
    assert np.count_nonzero(example.mhr) == 35
    huge = cut_example("c", score, raters, affine=affine, margin=1000.0)
    assert huge.mhr.shape == (SHAPE[1], SHAPE[0])


def test_the_window_sets_black_and_white():
    score, raters, image = volumes()
    image[:], image[:, 12:], image[:, 14:] = -300, 50, 300
    example = cut_example("c", score, raters, image=image, window=(-100, 300))
    assert set(np.unique(example.background)) == {0.0, 0.375, 1.0}


def test_a_file_brings_back_the_example(tmp_path, example):
    write_example(tmp_path / "b.npz", example)
    write_example(tmp_path / "a.npz", Example("a", "z", example.mhr, example.score, (1.0, 1.0)))
    first, second = read_examples(tmp_path)
    assert (first.case, first.calibrated, first.background) == ("a", None, None)
    assert (second.case, second.slice_name, second.spacing) == (
        "case_03",
        "axial, z = 7",
        (0.8, 1.0),
    )
    assert second.radiological
    np.testing.assert_array_equal(second.calibrated, example.calibrated)
    assert read_examples(tmp_path / "nowhere") == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all"])
def test_a_broken_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz: not an example"):
        read_examples(tmp_path)


def test_a_file_of_something_else_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "x.npz", probabilities=np.zeros(3))
    with pytest.raises(ValueError, match=r"x\.npz: not an example"):
        read_examples(tmp_path)


def test_what_cannot_be_shown_is_refused():
    score, raters, image = volumes()
    with pytest.raises(ValueError, match=r"rater 1 has shape \(2, 2\)"):
        cut_example("c", score, [np.zeros((2, 2))])
    with pytest.raises(ValueError, match=r"image has shape"):
        cut_example("c", score, raters, image=image[1:])
    with pytest.raises(ValueError, match="0 raters"):
        cut_example("c", score, [])
    with pytest.raises(ValueError, match="slice 9 is outside 0…8"):
        cut_example("c", score, raters, index=9)
    with pytest.raises(ValueError, match="window"):
        cut_example("c", score, raters, window=(1, 1))
    score[10, 12, 6] = np.nan
    with pytest.raises(ValueError, match="score of 'c' is nan at row"):
        cut_example("c", score, raters)


def test_the_typical_case_has_the_median_volume_and_ties_go_by_name():
    assert typical_case({"a": 9.0, "b": 5.0, "c": 7.0}) == "c"
    assert typical_case({"a": 9.0, "b": 5.0, "c": 7.0, "d": 8.0}) == "c"  # the lower of two
    assert typical_case({"b": 5.0, "a": 5.0, "c": 5.0}) == "b"
    assert typical_case({"empty": 0.0, "b": 5.0, "c": 7.0}) == "b"
    assert typical_case({"empty": 0.0}) is None
