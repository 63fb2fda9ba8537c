"""Members on one grid."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ensemble_members import WHOLE, logits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from twintrack import CalibrationMap, _core
from twintrack.ensemble import ensemble_score, export_score

quick = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def mean_of_softmax(members, tumour):
    each = [softmax(m.astype(np.float64), axis=0)[list(tumour)].sum(0) for m in members]
    return np.mean(each, axis=0)


def test_exponential_is_as_accurate_as_its_header_says_and_monotone():
    bits = np.arange(0x80000000, 0xC2AE0000, 1013, dtype=np.uint32)  # -0 down to -87
    x = bits.view(np.float32)
    y = _core.exp_nonpositive(x)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(y - exact) / np.spacing(exact.astype(np.float32))).max() < 0.99
    assert (np.diff(y) <= 0).all()
    assert y[0] == 1
    beyond = np.array([-87.00001, -100, -3e38, -np.inf], np.float32)
    assert (_core.exp_nonpositive(beyond) == 0).all()


def test_logistic_is_accurate_at_both_ends():
    x = np.concatenate([np.linspace(-87, 87, 100_003), [-200, 200, 0]]).astype(np.float32)
    y = _core.logistic(x)
    exact = expit(x.astype(np.float64))
    normal = np.abs(x) <= 87
    error = np.abs(y - exact)[normal] / np.spacing(exact.astype(np.float32))[normal]
    assert error.max() < 2.41
    assert y[-3:].tolist() == [0, 1, 0.5]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("tumour", [(1,), (0, 3), (2, 1, 4)])
def test_mean_of_softmax_is_merged(dtype, tumour):
    rng = np.random.default_rng(0)
    members = logits(rng, (5, 13, 11, 9), dtype=dtype)
    score = ensemble_score(members, tumour=tumour)
    assert score.dtype == np.float32
    assert score.shape == (13, 11, 9)
    np.testing.assert_allclose(score, mean_of_softmax(members, tumour), rtol=2e-6, atol=1e-37)


def test_bfloat16_is_read_as_such():
    rng = np.random.default_rng(1)
    single = logits(rng, (3, 7, 6, 5))
    cut = [(m.view(np.uint32) >> 16).astype(np.uint16) for m in single]
    exact = [(c.astype(np.uint32) << 16).view(np.float32) for c in cut]
    score = ensemble_score([c.view("V2") for c in cut])
    assert np.array_equal(score, ensemble_score(exact))


def test_extreme_logits_give_exact_ends():
    member = np.array([[80.0, -80.0, 1e30, 0.0], [-80.0, 80.0, -1e30, 0.0]], np.float32)
    assert ensemble_score([member]).tolist() == [0, 1, 0, 0.5]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.float16, np.float32]),
    st.integers(1, 4),
    st.integers(2, 8),
    st.lists(st.integers(1, 9), max_size=4),
)
@quick
def test_scores_are_probabilities_and_add_up_to_one(seed, dtype, members, channels, shape):
    rng = np.random.default_rng(seed)
    arrays = logits(rng, (channels, *shape), members, rng.choice([0.1, 3, 40]), dtype)
    each = [ensemble_score(arrays, tumour=c) for c in range(channels)]
    assert all(((s >= 0) & (s <= 1)).all() for s in each)
    np.testing.assert_allclose(np.sum(each, axis=0), 1, rtol=2e-6)
    rest = ensemble_score(arrays, tumour=range(1, channels))
    np.testing.assert_allclose(rest + each[0], 1, rtol=2e-6)


def test_mean_of_logits_in_float32():
    rng = np.random.default_rng(2)
    members = logits(rng, (3, 40, 30))
    score = ensemble_score(members, average="logits")
    expected = softmax(np.mean(np.float64(members), axis=0), axis=0)[1]
    np.testing.assert_allclose(score, expected, rtol=4e-6)
    apart = ensemble_score(members)
    assert np.abs(score - apart).max() > 0.05  # the two rules are different ensembles


def test_mean_of_float16_logits_rounds_like_half_arithmetic():
    rng = np.random.default_rng(3)
    members = logits(rng, (3, 40, 30), dtype=np.float16)
    mean = (members[0] + members[1] + members[2]) / np.float16(3)
    assert mean.dtype == np.float16
    assert np.array_equal(ensemble_score(members, average="logits"), ensemble_score([mean]))


def test_regions_have_a_sigmoid_each():
    rng = np.random.default_rng(4)
    members = logits(rng, (3, 9, 8, 7))
    one = ensemble_score(members, tumour=2, regions=True)
    np.testing.assert_allclose(one, np.mean([expit(m[2]) for m in members], axis=0), rtol=2e-6)
    two = ensemble_score(members, tumour=(0, 2), regions=True)
    highest = [np.maximum(expit(m[0]), expit(m[2])) for m in members]
    np.testing.assert_allclose(two, np.mean(highest, axis=0), rtol=2e-6)
    ready = [expit(m) for m in members]
    merged = ensemble_score(ready, tumour=(0, 2), inputs="probabilities", regions=True)
    np.testing.assert_allclose(merged, two, rtol=1e-6)


def test_probabilities_are_averaged_as_they_are():
    rng = np.random.default_rng(5)
    members = [softmax(m, axis=0) for m in logits(rng, (4, 9, 8, 7))]
    score = ensemble_score(members, tumour=(1, 2), inputs="probabilities")
    np.testing.assert_allclose(score, np.mean([m[1] + m[2] for m in members], axis=0), rtol=1e-6)
    assert score.max() <= 1


def test_memory_order_changes_no_bit():
    rng = np.random.default_rng(6)
    members = logits(rng, (3, 20, 30, 40), dtype=np.float16)
    expected = ensemble_score(members)
    fortran = [np.asfortranarray(m) for m in members]
    last = [np.moveaxis(np.ascontiguousarray(np.moveaxis(m, 0, -1)), -1, 0) for m in members]
    flipped = [np.ascontiguousarray(m[:, ::-1, :, ::-1])[:, ::-1, :, ::-1] for m in members]
    gaps = [np.repeat(m, 2, axis=3)[..., ::2] for m in members]
    for variant in (fortran, last, flipped, gaps, [fortran[0], flipped[1], gaps[2]]):
        assert np.array_equal(ensemble_score(variant), expected)
    assert ensemble_score([m.transpose(0, 3, 2, 1) for m in fortran]).flags.f_contiguous is False
    assert ensemble_score(fortran).flags.f_contiguous  # in the members' order: fastest to write
    assert np.array_equal(ensemble_score(np.stack(members)), expected)


def test_out_of_other_types_and_strides():
    rng = np.random.default_rng(7)
    members = logits(rng, (2, 10, 11, 12))
    expected = ensemble_score(members)
    wide = np.full((20, 11, 12), 7, np.float32)
    out = wide[::-2]
    assert ensemble_score(members, out=out) is out
    assert np.array_equal(out, expected)
    assert (wide[0::2] == 7).all()
    half = ensemble_score(members, out=np.empty(expected.shape, np.float16))
    assert np.array_equal(half, expected.astype(np.float16))


def test_calibrator_is_applied_to_the_merged_score():
    rng = np.random.default_rng(8)
    members = logits(rng, (3, 30, 20, 25))
    knots = np.sort(rng.random(40)), np.sort(rng.random(40))
    cmap = CalibrationMap(*knots)
    expected = cmap(ensemble_score(members))
    plain = SimpleNamespace(X_thresholds_=knots[0], y_thresholds_=knots[1])
    fitted = SimpleNamespace(map_=cmap)
    for calibrator in (cmap, plain, fitted, _core.CalibrationMap(*map(list, knots))):
        assert np.array_equal(ensemble_score(members, calibrator=calibrator), expected)
    with pytest.raises(TypeError, match="calibrator is str"):
        ensemble_score(members, calibrator="calibrator.json")


def test_probabilities_of_classes_that_exceed_one_are_named():
    member = np.full((3, 6, 5, 4), 0.33, np.float32)
    member[1:, 2, 3, 1] = 0.9
    with pytest.raises(
        ValueError, match=r"members\[0\]\[2, 3, 1\] has tumour channels that add up to 1.79"
    ):
        ensemble_score([member], (1, 2), "probabilities")
    regions = ensemble_score([member], (1, 2), "probabilities", regions=True)
    assert regions[2, 3, 1] == np.float32(0.9)
    rounded = np.full((2, 5), 0.5, np.float16)
    rounded[1] = np.nextafter(np.float16(0.5), np.float16(1))
    assert (ensemble_score([rounded], (0, 1), "probabilities") == 1).all()


@pytest.mark.torch
def test_members_of_torch_give_a_tensor():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    members = logits(np.random.default_rng(3), (3, 6, 5, 4))
    tensors = [torch.from_numpy(member) for member in members]
    for call in (ensemble_score, lambda given: export_score(given, WHOLE)):
        found, expected = call(tensors), call(members)
        assert isinstance(found, torch.Tensor)
        assert isinstance(expected, np.ndarray)
        np.testing.assert_array_equal(found.numpy(), expected, strict=True)
    out = np.empty((6, 5, 4), np.float32)
    assert ensemble_score(tensors, out=out) is out
