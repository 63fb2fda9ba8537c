from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.special import expit, softmax

from twintrack import CalibrationMap, Calibrator, _core
from twintrack.ensemble import (
    ExportGeometry,
    check_ensemble,
    ensemble_record,
    ensemble_score,
    export_score,
)

quick = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
WHOLE = ExportGeometry((6, 5, 4), ((0, 6), (0, 5), (0, 4)), (1, 1, 1), (1, 1, 1))


def logits(rng, shape, members=3, scale=4.0, dtype=np.float32):
    return [(rng.normal(size=shape) * scale).astype(dtype) for _ in range(members)]


def mean_of_softmax(members, tumour):
    each = [softmax(m.astype(np.float64), axis=0)[list(tumour)].sum(0) for m in members]
    return np.mean(each, axis=0)


def coordinates(size_in, size_out):
    return (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5


def resampled(channel, shape, nearest=None):
    """Linear along all axes but `nearest`, in float64: SciPy's spline interpolation of order 1."""
    at = [coordinates(n, m) for n, m in zip(channel.shape, shape, strict=True)]
    if nearest is not None:
        at[nearest] = np.floor(np.clip(at[nearest], 0, channel.shape[nearest] - 1) + 0.5)
    grid = np.meshgrid(*at, indexing="ij")
    return map_coordinates(channel.astype(np.float64), grid, order=1, mode="nearest")


# --- exponential ------------------------------------------------------------------------------


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


# --- members on one grid ----------------------------------------------------------------------


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


# --- calibration ------------------------------------------------------------------------------


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


def test_calibrator_of_another_ensemble_is_refused(tmp_path):
    rng = np.random.default_rng(9)
    members = logits(rng, (3, 12, 12, 12))
    score = ensemble_score(members, tumour=(1, 2))
    record = ensemble_record(3, (1, 2), "probabilities")
    fitted = Calibrator(bins=10, ensemble=record).fit(score, [rng.random(score.shape) < score])
    fitted.save(tmp_path / "calibrator.json")
    loaded = Calibrator.load(tmp_path / "calibrator.json")
    for calibrator in (fitted, loaded):
        ensemble_score(members, (1, 2), calibrator=calibrator)
        with pytest.raises(ValueError, match=r"average = 'probabilities'.*average = 'logits'"):
            ensemble_score(members, (1, 2), average="logits", calibrator=calibrator)
        with pytest.raises(ValueError, match=r"tumour = \[1, 2\].*tumour = \[1\]"):
            ensemble_score(members, calibrator=calibrator)
        with pytest.raises(ValueError, match="members = 3"):
            export_score(members[:2], WHOLE, (1, 2), calibrator=calibrator)


def test_what_is_not_known_of_a_score_is_not_compared():
    recorded = {"tumour": (1, 2), "average": "logits"}
    calibrator = SimpleNamespace(provenance_={"ensemble": recorded})
    for made in ({}, {"tumour": [1, 2]}, {"average": "logits", "members": 5}):
        check_ensemble(calibrator, made)
    with pytest.raises(ValueError, match=r"tumour = \(1, 2\), but this one has tumour = \[2, 1\]"):
        check_ensemble(calibrator, {"tumour": [2, 1]})


# --- export: resampling -----------------------------------------------------------------------

SIZES = [
    ((7, 20, 18), (30, 41, 33)),
    ((30, 41, 33), (7, 20, 18)),
    ((9, 9, 9), (9, 9, 9)),
    ((1, 1, 1), (5, 6, 7)),
    ((5, 6, 7), (1, 1, 1)),
    ((40, 30, 10), (70, 31, 300)),  # several tiles and slabs
    ((2, 3, 400), (33, 5, 530)),
]


def geometry_for(shape, member_spacing=(1, 1, 1), spacing=(1, 1, 1)):
    return ExportGeometry(shape, tuple((0, n) for n in shape), spacing, member_spacing)


@pytest.mark.parametrize(("grid", "shape"), SIZES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logits_are_resampled_before_the_softmax(grid, shape, dtype):
    rng = np.random.default_rng(10)
    members = logits(rng, (3, *grid), members=2, dtype=dtype)
    each = [np.stack([resampled(c, shape) for c in m]).astype(dtype) for m in members]
    expected = mean_of_softmax(each, (1,))
    score = export_score(members, geometry_for(shape))
    np.testing.assert_allclose(score, expected, rtol=1e-5)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="SciPy's compiler may contract products and sums here",
)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([None, 0, 1, 2]),
    st.permutations([0, 1, 2]),
    st.integers(-24, 0),
)
@quick
def test_resampled_float16_are_scipys_to_the_bit(seed, grid, factor, nearest, transpose, exponent):
    # Values a few steps of float16 apart and small denominators: many results lie halfway between
    # two float16, where the order of SciPy's roundings decides.
    rng = np.random.default_rng(seed)
    steps = rng.integers(0x3C00 - 40, 0x3C00, grid, dtype=np.uint16)
    channel = np.ldexp(steps.view(np.float16), exponent).astype(np.float16)
    shape = tuple(3 * n * f // 4 + 1 if f % 2 else n * f for n, f in zip(grid, factor, strict=True))
    expected = resampled(channel, shape, nearest=nearest)
    if shape != grid:
        expected = expected.astype(np.float16)
    # Into the image's axes; a spacing that makes the coarse axis the one that is to be.
    image = [shape[transpose.index(axis)] for axis in range(3)]
    spacing = [1.0, 1.0, 1.0]
    if nearest is not None:
        spacing[transpose[nearest]] = 4.0
    box = tuple((0, n) for n in image)
    geometry = ExportGeometry(tuple(image), box, tuple(spacing), (1, 1, 1), tuple(transpose))
    score = export_score([channel[None]], geometry, (0,), "probabilities")
    turned = np.moveaxis(expected, (0, 1, 2), transpose)
    assert np.array_equal(score, turned.astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_coarse_axis_is_resampled_by_nearest_neighbour(axis):
    rng = np.random.default_rng(11)
    grid, shape = (8, 9, 10), (19, 21, 23)
    member_spacing = [1.0, 1.0, 1.0]
    member_spacing[axis] = 4.0
    members = logits(rng, (2, *grid))
    each = [np.stack([resampled(c, shape, nearest=axis) for c in m]) for m in members]
    score = export_score(members, geometry_for(shape, member_spacing))
    np.testing.assert_allclose(score, mean_of_softmax(each, (1,)), rtol=1e-5)
    linear = export_score(members, geometry_for(shape, member_spacing), force_separate_z=False)
    assert np.abs(score - linear).max() > 0.1


def test_probabilities_are_resampled_as_such():
    rng = np.random.default_rng(12)
    shape = (20, 21, 22)
    members = [softmax(m, axis=0) for m in logits(rng, (4, 9, 8, 11))]
    expected = np.mean([resampled(m[1], shape) + resampled(m[3], shape) for m in members], axis=0)
    score = export_score(members, geometry_for(shape), (1, 3), "probabilities")
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-7)


def test_mean_of_logits_commutes_with_resampling():
    rng = np.random.default_rng(13)
    members = logits(rng, (3, 9, 8, 11))
    mean = np.mean(members, axis=0, dtype=np.float32)
    score = export_score(members, geometry_for((20, 21, 22)), average="logits")
    np.testing.assert_allclose(score, export_score([mean], geometry_for((20, 21, 22))), rtol=3e-6)


def test_members_on_the_images_grid_need_no_resampling():
    rng = np.random.default_rng(14)
    shape = (40, 37, 300)
    for dtype in (np.float16, np.float32):
        members = logits(rng, (3, *shape), dtype=dtype)
        score = export_score(members, geometry_for(shape, (4, 1, 1)))
        assert np.array_equal(score, ensemble_score(members))


def test_members_may_have_grids_of_their_own():
    rng = np.random.default_rng(15)
    shape = (20, 21, 22)
    grids = [(9, 8, 11), (20, 21, 22), (13, 30, 7)]
    members = [logits(rng, (3, *grid), members=1)[0] for grid in grids]
    geometries = [geometry_for(shape), geometry_for(shape, (4, 1, 1)), geometry_for(shape)]
    each = [export_score([m], g) for m, g in zip(members, geometries, strict=True)]
    score = export_score(members, geometries)
    np.testing.assert_allclose(score, np.mean(each, axis=0, dtype=np.float64), rtol=3e-7)
    with pytest.raises(ValueError, match=r"members on one grid, but members\[1\]"):
        export_score(members, geometries, average="logits")


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.sampled_from(["nnunet", "torch"]),
    st.sampled_from([None, False, True]),
    st.sampled_from([np.float16, np.float32]),
)
@quick
def test_constant_logits_stay_constant(seed, grid, shape, resampling, separate, dtype):
    # Weights that do not add up to 1, or a tap beyond the array, would show.
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=4) * 3).astype(dtype)
    member = np.broadcast_to(values[:, None, None, None], (4, *grid))
    geometry = geometry_for(shape, (5, 1, 2))
    score = export_score([member], geometry, resampling=resampling, force_separate_z=separate)
    assert (score == ensemble_score([values])).all()


def test_a_coordinate_rounded_to_beyond_the_edge_reads_the_edge():
    # The last of so many float32 coordinates is rounded up to the number of the member's voxels.
    member = np.ones((1, 1, 1, 8238929), np.float32)
    geometry = geometry_for((1, 1, 8408682))
    score = export_score([member], geometry, (0,), "probabilities", resampling="torch")
    assert (score == 1).all()


# --- export: pasting --------------------------------------------------------------------------


def test_outside_the_box_is_zero_and_the_rest_of_a_larger_volume_untouched():
    rng = np.random.default_rng(16)
    members = logits(rng, (2, 5, 6, 7))
    geometry = ExportGeometry((20, 21, 22), ((3, 15), (0, 21), (4, 19)), (1, 1, 1), (1, 1, 1))
    raised = CalibrationMap([0.2, 0.8], [0.1, 0.9])  # maps a score of 0 to 0.1
    fresh = export_score(members, geometry, calibrator=raised)
    box = np.zeros(geometry.shape, bool)
    box[3:15, :, 4:19] = True
    assert not fresh[~box].any()
    assert fresh[box].min() >= np.float32(0.1)
    inside = export_score(members, geometry_for((12, 21, 15)), calibrator=raised)
    assert np.array_equal(fresh[3:15, :, 4:19], inside)

    larger = np.full((30, 30, 30), 5, np.float32)
    out = larger[4:24, 5:26, 6:28]
    assert export_score(members, geometry, calibrator=raised, out=out) is out
    assert np.array_equal(out, fresh)
    out[:] = 5
    assert (larger == 5).all()

    fortran = np.full(geometry.shape, 5, np.float16, order="F")
    export_score(members, geometry, calibrator=raised, out=fortran)
    assert np.array_equal(fortran, fresh.astype(np.float16))


@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_transposed_members_give_the_same_bits(transpose):
    rng = np.random.default_rng(17)
    straight = ExportGeometry((20, 21, 22), ((1, 20), (2, 21), (0, 19)), (1, 1, 1), (1, 4, 1))
    turned = ExportGeometry(straight.shape, straight.box, (1, 1, 1), (1, 4, 1), transpose)
    axes = (0, *(axis + 1 for axis in transpose))
    for dtype in (np.float32, np.float16):
        members = logits(rng, (3, 7, 8, 9), dtype=dtype)
        expected = export_score(members, straight)
        score = export_score([m.transpose(axes) for m in members], turned)
        if dtype is np.float32:
            assert np.array_equal(score, expected)
        else:
            # Ties between two float16 are decided in the member's order of axes, as in nnU-Net.
            assert (score != expected).mean() < 1e-3
        copies = [np.ascontiguousarray(m.transpose(axes)) for m in members]
        assert np.array_equal(export_score(copies, turned), score)


def test_geometry_of_an_nnunet_case_comes_in_the_images_order():
    properties = {
        "spacing": [0.7, 5.0, 0.8],
        "shape_before_cropping": (30, 100, 110),
        "bbox_used_for_cropping": [[1, 29], [10, 90], [20, 100]],
    }
    geometry = ExportGeometry.from_nnunet(properties, (4.0, 1.0, 1.1), (1, 0, 2))
    assert geometry.shape == (100, 30, 110)
    assert geometry.box == ((10, 90), (1, 29), (20, 100))
    assert geometry.member_spacing == (1.0, 4.0, 1.1)
    assert geometry.separate_axis() == 1
    two = ExportGeometry.from_nnunet(properties, (1.0, 1.1), (1, 0, 2))
    assert two.member_spacing == (1.0, 5.0, 1.1)


def test_which_axis_is_separate():
    def axis(member_spacing, spacing, force=None):
        return geometry_for((4, 4, 4), member_spacing, spacing).separate_axis(force)

    assert axis((3.0, 1.0, 1.0), (1, 1, 1)) is None  # not above three
    assert axis((3.1, 1.0, 1.0), (1, 1, 1)) == 0
    assert axis((1, 1, 1), (1.0, 1.0, 3.1)) == 2
    assert axis((3.1, 1.0, 1.0), (1.0, 1.0, 9.0)) == 0  # the member's spacing decides
    assert axis((4.0, 4.0, 1.0), (9.0, 1.0, 1.0)) is None  # two coarse axes
    assert axis((3.1, 1.0, 1.0), (1, 1, 1), force=False) is None
    assert axis((1.1, 1.0, 1.0), (1, 1, 1), force=True) == 0
    assert axis((1, 1, 1), (1, 1, 1), force=True) is None


# --- the same bits, little memory -------------------------------------------------------------

SCORES = """
import hashlib, numpy as np
from twintrack import CalibrationMap
from twintrack.ensemble import ExportGeometry, ensemble_score, export_score
rng = np.random.default_rng(0)
digest = hashlib.sha256()
cmap = CalibrationMap(np.sort(rng.random(50)), np.sort(rng.random(50)))
geometry = ExportGeometry((70, 41, 300), ((0, 70), (1, 41), (0, 299)), (1, 1, 1), (1, 1, 1))
for dtype in (np.float16, np.float32):
    members = [(rng.normal(size=(4, 23, 24, 150)) * 5).astype(dtype) for _ in range(3)]
    for options in ({}, {"average": "logits"}, {"regions": True}, {"calibrator": cmap}):
        digest.update(ensemble_score(members, (1, 2), **options).tobytes())
        digest.update(export_score(members, geometry, (1, 2), **options).tobytes())
        digest.update(export_score(members, geometry, resampling="torch", **options).tobytes())
print(digest.hexdigest())
"""


def test_threads_and_instruction_sets_change_no_bit():
    digests = set()
    for threads, chosen in (("1", "baseline"), ("3", "")):
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "TWINTRACK_INSTRUCTION_SET": chosen,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-c", SCORES],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


MEMORY = """
import resource, numpy as np
from twintrack.ensemble import ExportGeometry, export_score
shape = (96, 256, 256)
geometry = ExportGeometry(shape, tuple((0, n) for n in shape), (1, 1, 1), (1, 1, 1))
member = np.random.default_rng(0).normal(size=(20, 24, 32, 32)).astype(np.float16)
export_score([member[:, :2, :2, :2]], geometry, out=np.zeros(shape, np.float16))
out = np.ones(shape, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
export_score([member] * 3, geometry, out=out)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_no_array_of_channels_at_image_resolution():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], env=environment, capture_output=True, text=True, check=True
    )
    # One channel at image resolution alone would be 12 MB, all of them 250 MB.
    assert int(done.stdout) < 6_000


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logits_that_are_not_finite_are_named(value, dtype):
    rng = np.random.default_rng(18)
    members = logits(rng, (3, 6, 5, 4), dtype=dtype)
    members[1][2, 3, 4, 1] = value
    for average in ("probabilities", "logits"):
        with pytest.raises(ValueError, match=r"members\[1\]\[2, 3, 4, 1\] is .*must be finite"):
            ensemble_score(members, average=average)
        with pytest.raises(ValueError, match=r"members\[1\]\[2, 3, 4, 1\] is .*must be finite"):
            export_score(members, geometry_for((9, 9, 9)), average=average)
    turned = [m.transpose(0, 2, 3, 1) for m in members]
    geometry = ExportGeometry((9, 9, 9), ((0, 9),) * 3, (1, 1, 1), (1, 1, 1), (1, 2, 0))
    with pytest.raises(ValueError, match=r"members\[1\]\[2, 4, 1, 3\]"):
        export_score(turned, geometry)


def test_logits_that_arithmetic_could_overflow_are_named():
    # The mean of two, or a value between a high and a low one, would be infinite, and where it is
    # looked up in the map anything.
    a_map = CalibrationMap([0.0, 1.0], [0.0, 0.5])
    for value in (2.0**100, -3e38):
        members = [np.zeros((2, 6, 5, 4), np.float32) for _ in range(2)]
        for member in members:
            member[1, 3] = value
        with pytest.raises(ValueError, match=r"members\[0\]\[1, 3, 0, 0\] is .*below 2\^100"):
            ensemble_score(members, average="logits", calibrator=a_map)
        with pytest.raises(ValueError, match=r"members\[0\]\[1, 3, 0, 0\] is .*below 2\^100"):
            export_score(members, geometry_for((9, 9, 9)), calibrator=a_map)
    largest = np.float32(np.nextafter(np.float32(2.0**100), 0, dtype=np.float32))
    member = np.zeros((2, 6, 5, 4), np.float32)
    member[1, ::2], member[1, 1::2] = largest, -largest
    for average in ("probabilities", "logits"):
        members = [member] * 50
        score = ensemble_score(members, average=average)
        np.testing.assert_array_equal(score[::2], 1)
        np.testing.assert_array_equal(score[1::2], 0)
        exported = export_score(members, geometry_for((9, 9, 9)), average=average)
        assert ((exported >= 0) & (exported <= 1)).all()


@pytest.mark.parametrize("value", [-1e-6, 1.001, np.nan])
def test_probabilities_outside_the_unit_interval_are_named(value):
    member = np.full((2, 6, 5, 4), 0.5, np.float32)
    member[1, 5, 0, 2] = value
    for score in (ensemble_score, lambda *a, **k: export_score(a[0], WHOLE, **k)):
        with pytest.raises(ValueError, match=r"members\[0\]\[1, 5, 0, 2\] is .*in \[0, 1\]"):
            score([member], inputs="probabilities")


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


@pytest.mark.parametrize("over", [0, 2.0**-9, 2.0**-7, 2.0**-7 + 2.0**-20, 0.01, 0.02, 0.1])
def test_classes_add_up_to_one_within_the_rounding_of_bfloat16(over):
    member = np.full((3, 4, 5), 0.25, np.float32)
    member[1:, 2, 3] = 0.5, 0.5 + over
    export = ExportGeometry((1, 4, 5), ((0, 1), (0, 4), (0, 5)), (1, 1, 1), (1, 1, 1))
    for score in (
        lambda: ensemble_score([member], (1, 2), "probabilities"),
        lambda: export_score([member[:, np.newaxis]], export, (1, 2), "probabilities")[0],
    ):
        if over <= 2.0**-7:
            expected = np.full((4, 5), 0.5, np.float32)
            expected[2, 3] = 1
            np.testing.assert_array_equal(score(), expected)
        else:
            with pytest.raises(
                ValueError, match=r"2, 3\] has tumour channels that add up to 1\.[01]"
            ):
                score()


def test_arguments_that_do_not_fit():
    box = ((0, 4),) * 3
    ones = (1, 1, 1)
    half = np.zeros((3, 6, 5, 4), np.float16)
    rng = np.random.default_rng(19)
    members = logits(rng, (3, 6, 5, 4))
    a, b, _ = members
    fails = [
        (ValueError, "members is empty", lambda: ensemble_score([])),
        (ValueError, r"channel 3 but members have 3", lambda: ensemble_score(members, 3)),
        (ValueError, r"tumour\[0\] is -1", lambda: ensemble_score(members, -1)),
        (ValueError, "names a channel twice", lambda: ensemble_score(members, (1, 1))),
        (ValueError, "names no channel", lambda: ensemble_score(members, ())),
        (ValueError, "inputs is 'softmax'", lambda: ensemble_score(members, inputs="softmax")),
        (ValueError, "average is 'mean'", lambda: ensemble_score(members, average="mean")),
        (ValueError, "needs logits", lambda: ensemble_score(members, 1, "probabilities", "logits")),
        (ValueError, "softmax needs two", lambda: ensemble_score([members[0][:1]], 0)),
        (TypeError, "int64", lambda: ensemble_score([members[0].astype(int)])),
        (ValueError, "different dtypes", lambda: ensemble_score([*members, half])),
        (ValueError, r"members\[1\] has 2 channels", lambda: ensemble_score([a, b[:2]])),
        (ValueError, r"members\[1\] has shape", lambda: ensemble_score([a, b[:, 1:]])),
        (ValueError, "overlaps", lambda: ensemble_score(members, out=members[0][0])),
        (
            ValueError,
            "out must be float32",
            lambda: ensemble_score(members, out=np.zeros((6, 5, 4))),
        ),
        (
            ValueError,
            "out has shape",
            lambda: export_score(members, WHOLE, out=np.zeros((6, 5, 3), "f")),
        ),
        (ValueError, "spatial axes", lambda: export_score([m[0] for m in members], WHOLE)),
        (
            ValueError,
            "resampling is 'cubic'",
            lambda: export_score(members, WHOLE, resampling="cubic"),
        ),
        (ValueError, "3 members but 2 geom", lambda: export_score(members, [WHOLE, WHOLE])),
        (
            ValueError,
            r"box\[1\]",
            lambda: ExportGeometry((4, 4, 4), ((0, 4), (2, 5), (0, 4)), ones, ones),
        ),
        (ValueError, "transpose", lambda: ExportGeometry((4, 4, 4), box, ones, ones, (0, 0, 1))),
        (
            ValueError,
            "spacings are positive",
            lambda: ExportGeometry((4, 4, 4), box, (1, 0, 1), ones),
        ),
    ]
    for error, match, call in fails:
        with pytest.raises(error, match=match):
            call()
    locked = np.zeros((6, 5, 4), np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ensemble_score(members, out=locked)
