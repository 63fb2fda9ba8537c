"""Members that are resampled and pasted into the image."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from ensemble_members import geometry_for, logits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.special import softmax

from twintrack import CalibrationMap
from twintrack.ensemble import (
    ExportGeometry,
    ensemble_score,
    export_score,
)

quick = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


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


SIZES = [
    ((7, 20, 18), (30, 41, 33)),
    ((30, 41, 33), (7, 20, 18)),
    ((9, 9, 9), (9, 9, 9)),
    ((1, 1, 1), (5, 6, 7)),
    ((5, 6, 7), (1, 1, 1)),
    ((40, 30, 10), (70, 31, 300)),  # several tiles and slabs
    ((2, 3, 400), (33, 5, 530)),
]


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
