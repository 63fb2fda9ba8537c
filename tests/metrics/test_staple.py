"""The STAPLE consensus is SimpleITK's; the Dice coefficient against it is the benchmark's."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twintrack.metrics.staple import staple_consensus, staple_dice

GOLDEN = Path(__file__).parents[1] / "golden"


def sitk_probability(raters):
    sitk = pytest.importorskip("SimpleITK")
    staple = sitk.STAPLEImageFilter()
    staple.SetForegroundValue(1)
    images = [sitk.GetImageFromArray(np.asarray(rater, np.uint8)) for rater in raters]
    return sitk.GetArrayFromImage(staple.Execute(images))


def assert_same_consensus(raters):
    probability = sitk_probability(raters)
    decided = ~(np.abs(probability - 0.5) < 1e-9)  # not at the mercy of the order of a sum
    consensus = staple_consensus(raters)
    np.testing.assert_array_equal(consensus[decided], probability[decided] > 0.5)
    return consensus


@pytest.mark.parametrize(
    "name", ["typical_a", "one_rater_empty", "only_one_rater_marks", "raters_identical"]
)
def test_consensus_of_golden_cases_is_simpleitks(name):
    with np.load(GOLDEN / f"{name}.npz") as case:
        raters, score = case["raters"], case["score"]
    consensus = assert_same_consensus(raters)
    predicted = score > 0.5
    expected = 2 * (predicted & consensus).sum() / (predicted.sum() + consensus.sum() + 1e-6)
    assert staple_dice(score, raters) == pytest.approx(expected, abs=1e-15)
    assert staple_dice(predicted, raters) == staple_dice(score, raters)
    assert staple_dice(predicted.astype(np.int16), raters) == staple_dice(score, raters)


@settings(max_examples=40)
@given(
    raters=st.integers(1, 7),
    shape=st.tuples(*[st.integers(2, 8)] * 3),
    noise=st.floats(0.02, 0.4),
    seed=st.integers(0, 2**32 - 1),
)
@example(raters=4, shape=(2, 2, 2), noise=0.25, seed=11924)  # every voxel marked by somebody
def test_consensus_is_simpleitks(raters, shape, noise, seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < rng.uniform(0.1, 0.9)
    masks = truth ^ (rng.random((raters, *shape)) < noise)
    if 0 < masks.sum() < masks.size:
        assert_same_consensus(masks)


def test_background_matters_so_that_a_crop_would_not_do():
    # Why the whole volume is counted: the same marks in more background, another consensus.
    rng = np.random.default_rng(5)
    truth = np.zeros((12, 12, 12), bool)
    truth[3:9, 3:9, 3:9] = True
    masks = truth ^ (rng.random((3, *truth.shape)) < [[[[0.05]]], [[[0.15]]], [[[0.3]]]])
    padded = np.pad(masks, [(0, 0), (20, 20), (20, 20), (20, 20)])
    inner = assert_same_consensus(padded)[20:-20, 20:-20, 20:-20]
    assert (inner != staple_consensus(masks)).any()


def test_layout_dtype_and_order_of_raters_do_not_matter():
    with np.load(GOLDEN / "typical_b.npz") as case:
        raters, score = case["raters"], case["score"]
    expected, consensus = staple_dice(score, raters), staple_consensus(raters)
    for masks in (
        [np.asfortranarray(r) for r in raters],
        [r[::-1].astype(np.float32)[::-1] for r in raters],
        raters.astype(bool),
        raters[[4, 2, 0, 1, 3]],
        [raters[0], *[np.asfortranarray(r) for r in raters[1:]]],
    ):
        np.testing.assert_array_equal(staple_consensus(masks), consensus)
        assert staple_dice(score, masks) == expected
        assert staple_dice(np.asfortranarray(score), masks) == expected
    bfloat16 = (score.view(np.uint32) >> 16).astype(np.uint16).view("V2")
    assert staple_dice(bfloat16, raters) == pytest.approx(expected, abs=0.02)


def test_more_raters_than_bits_of_a_word():
    rng = np.random.default_rng(6)
    truth = rng.random((6, 6, 6)) < 0.3
    masks = truth ^ (rng.random((70, 6, 6, 6)) < 0.1)
    np.testing.assert_array_equal(assert_same_consensus(masks), truth)


def test_unanimous_raters():
    empty, full = np.zeros((3, 4, 5, 6), np.uint8), np.ones((3, 4, 5, 6), np.uint8)
    assert not staple_consensus(empty).any()
    assert staple_consensus(full).all()
    # Both empty: the one case in which the protocols differ.
    assert staple_dice(empty[0], empty) == 0
    assert staple_dice(empty[0], empty, protocol="corrected") == 1
    assert staple_dice(full[0], empty, protocol="corrected") == 0
    assert staple_dice(full[0], full) == pytest.approx(1, abs=1e-8)


def test_a_half_is_not_above_a_half():
    # Two raters who never agree are as likely right as wrong: a probability of exactly 1/2.
    raters = np.array([[1, 0], [0, 1]], np.uint8)
    assert not staple_consensus(raters).any()
    whole = np.ones((2, 8), np.uint8)
    score = np.repeat([0.5, np.nextafter(0.5, 1)], 4)
    assert staple_dice(score, whole) == pytest.approx(2 * 4 / (4 + 8), abs=1e-6)


def test_bad_input_is_named():
    score, raters = np.zeros((3, 4, 5), np.float32), np.zeros((2, 3, 4, 5))
    wrong = raters.copy()
    wrong[1, 2, 0, 4] = 3
    with pytest.raises(ValueError, match=r"raters\[1\]\[2, 0, 4\] is 3"):
        staple_dice(score, wrong)
    with pytest.raises(ValueError, match=r"raters\[1\]\[2, 0, 4\] is 3"):
        staple_dice(score, [np.asfortranarray(r) for r in wrong])
    score[2, 3, 1] = np.nan
    with pytest.raises(ValueError, match=r"prediction\[2, 3, 1\] is nan; scores"):
        staple_dice(score, raters)
    with pytest.raises(ValueError, match=r"prediction\[2, 0, 4\] is 3; labels"):
        staple_dice(wrong[1].astype(np.int8), raters)
    with pytest.raises(ValueError, match=r"prediction has shape \(3, 4\)"):
        staple_dice(score[..., 0], raters)
    with pytest.raises(ValueError, match=r"raters\[1\] has shape"):
        staple_dice(score, [raters[0], raters[1, 1:]])
    with pytest.raises(ValueError, match="protocol is 'x'"):
        staple_dice(score, raters, protocol="x")
