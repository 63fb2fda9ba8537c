"""Contact angles are the benchmark's, bit for bit, whatever the arrays look like; distances too."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, ndimage, stats
from threadpoolctl import threadpool_limits

from twintrack.metrics.vascular import (
    AXES,
    THRESHOLDS,
    VESSELS,
    ContactDegrees,
    contact_degrees,
    invasion_distances,
)

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
KERNELS = [np.array(k) for k in ([[1, 1]], [[1], [1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]])]


def load_golden(name):
    with np.load(GOLDEN / f"{name}.npz") as case:
        return case["score"], case["raters"], case["vessels"]


def all_degrees(degrees):
    return np.concatenate([degrees.raters, degrees.thresholds], axis=-1)


# --- the definition, slice by slice, as the protocol writes it ------------------------------------


def slice_degrees(tumour, vessel, crop):
    if not tumour.any() or not vessel.any():
        return 0.0
    if crop:
        pixels = np.argwhere(tumour | vessel)
        low, high = np.maximum(pixels.min(0) - 20, 0), pixels.max(0) + 20
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        tumour, vessel = tumour[window], vessel[window]
    lesion = ndimage.binary_dilation(tumour)
    edge = vessel & ~ndimage.binary_erosion(vessel)
    lesion_only, edge_only = (lesion & ~edge).astype(int), edge & ~lesion
    contact = (lesion & edge).sum()
    for kernel in KERNELS:
        contact += (edge_only & (ndimage.convolve(lesion_only, kernel, mode="constant") > 0)).sum()
    return contact / edge.sum() * 360


def reference_degrees(score, raters, vessels, labels, crop=True):
    masks = [rater == 1 for rater in raters]
    masks += [score.astype(np.float64) > threshold for threshold in THRESHOLDS]
    return np.array(
        [
            [
                [
                    max(
                        slice_degrees(*slices, crop)
                        for slices in zip(
                            np.moveaxis(mask, axis, 0),
                            np.moveaxis(vessels == label, axis, 0),
                            strict=True,
                        )
                    )
                    for mask in masks
                ]
                for axis in range(3)
            ]
            for label in labels
        ]
    )


def random_case(rng, shape, raters, labels=(1, 2)):
    """Blobs that overlap, touch each other and the borders."""

    def blob(density):
        smooth = ndimage.uniform_filter(rng.random(shape), 3, mode="constant", cval=0.5)
        return smooth > np.quantile(smooth, 1 - density)

    vessels = np.zeros(shape, np.uint8)
    for label in labels:
        vessels[blob(rng.uniform(0.02, 0.5))] = label
    masks = np.array([blob(rng.uniform(0.0, 0.4)) for _ in range(raters)]).astype(np.uint8)
    score = np.clip(masks.mean(0) + rng.normal(0, 0.2, shape), 0, 1).astype(np.float32)
    return score, masks, vessels


# --- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_golden_degrees_are_exact_and_distances_agree(name):
    expected = EXPECTED[name]
    degrees = contact_degrees(*load_golden(name))
    assert list(degrees.labels) == list(expected["degrees"])
    for row, vessel in enumerate(degrees.labels):
        for axis, axis_name in enumerate(AXES):
            for kind in ("raters", "thresholds"):
                found = getattr(degrees, kind)[row, axis].tolist()
                assert found == expected["degrees"][vessel][kind][axis_name], (vessel, axis_name)
    distance = invasion_distances(degrees).distance
    assert distance == pytest.approx(expected["vi"], abs=1e-9)


@settings(max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    raters=st.sampled_from([1, 2, 3, 7]),
    seed=st.integers(0, 2**32 - 1),
)
def test_degrees_match_the_definition(shape, raters, seed):
    score, masks, vessels = random_case(np.random.default_rng(seed), shape, raters)
    found = all_degrees(contact_degrees(score, masks, vessels, {"a": 1, "b": 2, "absent": 3}))
    expected = reference_degrees(score, masks, vessels, [1, 2, 3])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("raters", [20, 58])
def test_many_raters(raters):
    # 26 and 64 masks: all bits of the word.
    score, masks, vessels = random_case(np.random.default_rng(raters), (9, 8, 7), raters)
    found = all_degrees(contact_degrees(score, masks, vessels, {"a": 1, "b": 2}))
    assert found.shape == (2, 3, raters + 6)
    np.testing.assert_array_equal(found, reference_degrees(score, masks, vessels, [1, 2]))


def test_the_crop_of_the_definition_changes_nothing():
    # Small objects far apart and at borders, where a crop with a margin of 20 pixels is smaller
    # than the slice, or ends at its border.
    rng = np.random.default_rng(3)
    shape = (70, 6, 64)
    vessels, tumour = np.zeros(shape, bool), np.zeros(shape, bool)
    for corner in [(0, 0, 0), (66, 2, 60), (30, 1, 30), (0, 3, 40)]:
        box = tuple(slice(c, c + 4) for c in corner)
        vessels[box] = rng.random(vessels[box].shape) < 0.6
        tumour[box] = rng.random(tumour[box].shape) < 0.4
    for marked, volume in ((tumour, vessels), (vessels, tumour)):
        case = marked.astype(np.float32), marked[None], volume.astype(np.uint8)
        cropped = reference_degrees(*case, [1])
        assert cropped.min() > 0
        np.testing.assert_array_equal(cropped, reference_degrees(*case, [1], crop=False))
        np.testing.assert_array_equal(all_degrees(contact_degrees(*case, {"a": 1})), cropped)


def test_everything_touches_all_borders():
    shape = (5, 6, 7)
    rng = np.random.default_rng(4)
    for tumour in (np.ones(shape, bool), rng.random(shape) < 0.5):
        vessels = np.ones(shape, np.uint8)
        score = tumour.astype(np.float32)
        found = all_degrees(contact_degrees(score, tumour[None], vessels, {"a": 1}))
        np.testing.assert_array_equal(found, reference_degrees(score, tumour[None], vessels, [1]))


def test_slabs_of_different_boxes():
    # One thread takes several slabs of slices in turn; none may see what another left behind.
    rng = np.random.default_rng(9)
    score, masks, vessels = random_case(rng, (100, 7, 6), 3)
    vessels[:16, :, 3:] = vessels[16:48, :2] = vessels[60:70] = vessels[80:, 4:, :2] = 0
    with threadpool_limits(1):
        found = all_degrees(contact_degrees(score, masks, vessels, {"a": 1, "b": 2}))
    np.testing.assert_array_equal(found, reference_degrees(score, masks, vessels, [1, 2]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_single_slice(axis):
    shape = [9, 8, 7]
    shape[axis] = 1
    score, masks, vessels = random_case(np.random.default_rng(axis), shape, 3)
    result = contact_degrees(score, masks, vessels, {"a": 1, "b": 2})
    np.testing.assert_array_equal(
        all_degrees(result), reference_degrees(score, masks, vessels, [1, 2])
    )
    assert any(f"one voxel along axis {axis}" in note for note in invasion_distances(result).notes)


def test_scores_on_thresholds_are_compared_in_double():
    # float32(0.1) is greater than 0.1, float32(0.66) and float32(0.24) are not.
    vessels = np.ones((1, 1, 6), np.uint8)
    for dtype in (np.float16, np.float32, np.float64):
        score = np.array(THRESHOLDS, dtype).reshape(1, 1, 6)
        expected = reference_degrees(score, [], vessels, [1])
        found = contact_degrees(score, [np.zeros((1, 1, 6))], vessels, {"a": 1}).thresholds
        np.testing.assert_array_equal(found, expected)


# --- whatever the arrays look like ----------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_case():
    return load_golden("typical_b")


@pytest.fixture(scope="module")
def golden_degrees(golden_case):
    return all_degrees(contact_degrees(*golden_case))


def reversed_in_memory(array):
    return np.ascontiguousarray(array[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]


def strided(array):
    room = np.zeros([2 * n + 1 for n in array.shape], array.dtype)
    room[1::2, 1::2, 1::2] = array
    return room[1::2, 1::2, 1::2]


def inner_axis_first(array):
    return np.ascontiguousarray(array.transpose(2, 0, 1)).transpose(1, 2, 0)


def unaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    view = room[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


LAYOUTS = [np.asfortranarray, reversed_in_memory, strided, inner_axis_first, unaligned]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_does_not_matter(layout, golden_case, golden_degrees):
    score, raters, vessels = golden_case
    laid_out = contact_degrees(layout(score), [layout(r) for r in raters], layout(vessels))
    np.testing.assert_array_equal(all_degrees(laid_out), golden_degrees)
    mixed = contact_degrees(score, [layout(r) for r in raters], vessels)
    np.testing.assert_array_equal(all_degrees(mixed), golden_degrees)
    other = contact_degrees(score, raters, layout(vessels))
    np.testing.assert_array_equal(all_degrees(other), golden_degrees)


@pytest.mark.parametrize("dtype", [bool, "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", ">i2"])
def test_dtypes_do_not_matter(dtype, golden_case, golden_degrees):
    score, raters, vessels = golden_case
    of_map = np.int8 if dtype is bool else dtype
    found = contact_degrees(score, raters.astype(dtype), vessels.astype(of_map))
    np.testing.assert_array_equal(all_degrees(found), golden_degrees)
    in_double = contact_degrees(score.astype(np.float64), raters, vessels)
    np.testing.assert_array_equal(all_degrees(in_double), golden_degrees)


def test_bfloat16_scores():
    score, masks, vessels = random_case(np.random.default_rng(8), (8, 7, 9), 2)
    upper_half = (score.view(np.uint32) >> 16).astype(np.uint16)
    found = all_degrees(contact_degrees(upper_half.view("V2"), masks, vessels, {"a": 1}))
    value = (upper_half.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found, reference_degrees(value, masks, vessels, [1]))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(threads, golden_case, golden_degrees):
    with threadpool_limits(threads):
        np.testing.assert_array_equal(all_degrees(contact_degrees(*golden_case)), golden_degrees)


def test_order_of_raters_does_not_matter(golden_case):
    score, raters, vessels = golden_case
    order = [3, 0, 4, 1, 2]
    straight, shuffled = (
        contact_degrees(*golden_case),
        contact_degrees(score, raters[order], vessels),
    )
    np.testing.assert_array_equal(shuffled.raters, straight.raters[..., order])
    for protocol in ("official", "corrected"):
        a = invasion_distances(straight, protocol).distance
        assert invasion_distances(shuffled, protocol).distance == pytest.approx(a, abs=1e-9)


def test_permuting_axes_permutes_planes(golden_case, golden_degrees):
    axes = (2, 0, 1)
    score, raters, vessels = golden_case
    found = contact_degrees(
        score.transpose(axes), [r.transpose(axes) for r in raters], vessels.transpose(axes)
    )
    np.testing.assert_array_equal(all_degrees(found), golden_degrees[:, axes])


def test_labels_are_independent(golden_case, golden_degrees):
    # Names and labels at will, any number, other structures in the map ignored.
    score, raters, vessels = golden_case
    recoded = np.array([0, 10, 300, 7, 4, 99], np.int32)[vessels]
    found = contact_degrees(score, raters, recoded, {"b": 300, "a": 10})
    np.testing.assert_array_equal(all_degrees(found), golden_degrees[[1, 0]])
    assert found.labels == {"b": 300, "a": 10}
    # A label that the map's dtype cannot hold does not wrap around to one that it can.
    absent = contact_degrees(score, raters, vessels, {"big": 256 + 1})
    assert not absent.occurs.any()
    assert not all_degrees(absent).any()
    assert all_degrees(contact_degrees(score, raters, vessels, {})).shape == (0, 3, 11)


def test_tumour_far_from_vessels_is_not_read():
    # What makes it fast, and what the documentation says of checks.
    vessels = np.zeros((30, 30, 30), np.uint8)
    vessels[14:16, 14:16, 14:16] = 1
    score = np.zeros(vessels.shape, np.float32)
    score[0, 0, 0] = math.nan
    assert not contact_degrees(score, [vessels * 0], vessels).thresholds.any()
    score[0, 0, 0], score[16, 15, 15] = 0, math.nan
    with pytest.raises(ValueError, match=r"score\[16, 15, 15\] is nan"):
        contact_degrees(score, [vessels * 0], vessels)


def test_no_voxels():
    empty = np.zeros((0, 3, 4), np.float32)
    assert not all_degrees(contact_degrees(empty, [empty], empty)).any()


# --- bad input ------------------------------------------------------------------------------------


def bad_inputs():
    zeros = np.zeros((4, 5, 6))
    score, raters, vessels = zeros.astype(np.float32), [zeros, zeros], zeros + 1
    two = zeros.copy()
    two[1, 2, 3] = 2
    half = zeros.copy()
    half[3, 0, 1] = 1.5
    infinite = half.astype(np.float16)
    infinite[3, 0, 1] = np.inf
    yield "NaN", (score + np.nan, raters, vessels), ValueError, r"score\[0, 0, 0\] is nan"
    yield "rater", (score, [zeros, two], vessels), ValueError, r"raters\[1\]\[1, 2, 3\] is 2"
    yield "half", (score, raters, half), ValueError, r"vessels\[3, 0, 1\] is 1.5.*whole"
    yield "inf", (score, raters, infinite), ValueError, r"vessels\[3, 0, 1\] is inf"
    yield "shape", (score, raters, vessels[1:]), ValueError, r"vessels has shape \[3, 5, 6\] but"
    yield "rater shape", (score, [zeros[1:]], vessels), ValueError, r"raters\[0\] has shape"
    yield "2-D", (score[0], [zeros[0]], vessels[0]), ValueError, "three dimensions"
    yield "no rater", (score, [], vessels), ValueError, "raters is empty"
    yield "59 raters", (score, [zeros] * 59, vessels), ValueError, "at most 58"
    yield "integers", (score.astype(int), raters, vessels), TypeError, "score has dtype int64"
    yield "complex", (score, raters, vessels + 0j), TypeError, "vessels has unsupported dtype"
    yield "0", (score, raters, vessels, {"a": 0}), ValueError, r"labels\['a'\] is 0; .*from 1"
    yield "huge", (score, raters, vessels, {"a": 1 << 63}), ValueError, "to 9223372036854775807"
    yield "twice", (score, raters, vessels, {"a": 3, "b": 3}), ValueError, "labels has 3 twice"
    yield "float", (score, raters, vessels, {"a": 1.0}), TypeError, r"labels\['a'\] is 1.0"
    many = {str(i): i for i in range(1, 257)}
    yield "256", (score, raters, vessels, many), ValueError, "at most 255"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [pytest.param(*rest, id=name) for name, *rest in bad_inputs()],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        contact_degrees(*arguments)


def test_slices_of_too_many_pixels_are_refused():
    one = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1 << 15, 1 << 15), (0, 0, 0))
    with pytest.raises(ValueError, match="less than 2\\^30 pixels"):
        contact_degrees(one, [one], one)


def test_unknown_protocol(golden_case):
    with pytest.raises(ValueError, match="protocol is 'offical'"):
        invasion_distances(contact_degrees(*golden_case), "offical")


# --- distances ------------------------------------------------------------------------------------


def one_vessel(raters, thresholds):
    """Degrees of one vessel that are the same along all axes."""
    return ContactDegrees(
        {"a": 1},
        np.tile(np.asarray(raters, float), (1, 3, 1)),
        np.tile(np.asarray(thresholds, float), (1, 3, 1)),
        np.array([True]),
        (9, 9, 9),
    )


def distance_of(raters, thresholds, protocol):
    found = invasion_distances(one_vessel(raters, thresholds), protocol)
    return found.distance["a"], found.notes


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 350), min_size=2, max_size=9),
    st.lists(st.floats(0, 350), min_size=6, max_size=6),
)
def test_official_distance_is_scipys_on_the_grid(raters, thresholds):
    grid = np.linspace(0, 360, 1000)
    densities = [stats.norm.pdf(grid, np.mean(d), np.std(d) + 1e-6) for d in (raters, thresholds)]
    found, _ = distance_of(raters, thresholds, "official")
    if all(not np.allclose(density, 0) for density in densities):
        u, v = (density / density.sum() for density in densities)
        assert found == pytest.approx(stats.wasserstein_distance(grid, grid, u, v), abs=1e-9)
    else:
        assert found == 0 or found == 360 or min(len(set(raters)), len(set(thresholds))) == 1


@pytest.mark.parametrize(
    ("raters", "thresholds", "expected"),
    [
        ([45.3] * 5, [100.1] * 6, 0),  # neither peak is on a grid point
        ([45.3] * 5, [90, 100, 110, 120, 130, 140], 360),
        ([90, 100, 110, 120], [45.3] * 6, 360),
        ([0] * 5, [45.3] * 6, 0),  # a peak on the grid's first point: its mean is 0
        ([45.3] * 5, [0] * 6, 0),
        ([120] * 5, [45.3] * 6, 120),  # 120 is a grid point
        ([45.3] * 5, [120] * 6, 360),  # but the prediction's mean is not divided
        ([0] * 5, [120] * 6, 120),  # two grid points
        ([500, 501, 502], [90, 100, 110, 120, 130, 140], 360),  # beyond the grid
    ],
)
def test_official_distance_of_spikes(raters, thresholds, expected):
    found, notes = distance_of(raters, thresholds, "official")
    assert found == pytest.approx(expected, abs=1e-6)
    vanishes = any("vanishes" in note for note in notes)
    assert vanishes == (not {0, 120} >= {*raters, *thresholds})


@settings(max_examples=25)
@given(
    st.lists(st.floats(0, 360), min_size=2, max_size=9),
    st.lists(st.floats(0, 360), min_size=6, max_size=6),
)
def test_corrected_distance_is_the_integral_between_quantiles(raters, thresholds):
    mean = np.mean(raters) - np.mean(thresholds)
    deviation = np.std(raters) - np.std(thresholds)

    def gap(z):
        return abs(mean + deviation * z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    root = [-mean / deviation] if deviation and abs(mean / deviation) < 40 else None
    expected, _ = integrate.quad(gap, -40, 40, points=[-5, 0, 5, *(root or [])], limit=200)
    found, _ = distance_of(raters, thresholds, "corrected")
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_corrected_distance_has_no_accidents():
    assert distance_of([45.3] * 5, [100.1] * 6, "corrected")[0] == pytest.approx(54.8)
    assert distance_of([45.3], [45.3] * 6, "corrected")[0] == pytest.approx(0, abs=1e-12)
    # Continuous where the official distance jumps to 360.
    spread = [45.3 - 1e-3, 45.3, 45.3 + 1e-3]
    a = distance_of([45.3] * 3, [90, 100, 110, 120, 130, 140], "corrected")[0]
    assert distance_of(spread, [90, 100, 110, 120, 130, 140], "corrected")[0] == pytest.approx(
        a, abs=1e-2
    )
    # Angles beyond the full circle are the full circle, and said to be.
    found, notes = distance_of([400, 500], [360] * 6, "corrected")
    assert found == 0
    assert any("capped at 360: a cor 500" in note for note in notes)


def test_distances_agree_where_the_grid_does_no_harm():
    raters, thresholds = [120, 150, 180, 200], [140, 150, 160, 190, 200, 230]
    official, corrected = (distance_of(raters, thresholds, p)[0] for p in ("official", "corrected"))
    assert official == pytest.approx(corrected, abs=0.05)


def test_notes_name_degenerate_cases():
    def notes(name):
        return " | ".join(invasion_distances(contact_degrees(*load_golden(name))).notes)

    assert "raters are equal" in notes("raters_identical")
    assert "no rater's tumour touches" in notes("all_raters_empty")
    assert "touches no vessel at any threshold" in notes("prediction_empty")
    assert "not in vessels, so the distance is 0: CELIAC TRUNK (4)" in notes("vessel_missing")
    assert "PORTA (1), SMV (2), AORTA (3)" in notes("no_vessels")
    assert "density of the raters vanishes" in notes("raters_identical")
    assert notes("scores_saturated") == ""


def test_one_call_and_two_steps_are_the_same(golden_case):
    once = invasion_distances(contact_degrees(*golden_case), "corrected")
    assert once == invasion_distances(contact_degrees(*golden_case), "corrected")
    assert list(once.distance) == list(VESSELS)


@pytest.mark.parametrize(
    ("dtype", "label"),
    [("float16", 2**11), ("float32", 2**24), ("float64", 2**53), ("uint8", 255), ("int16", 32767)],
)
def test_the_largest_label_of_a_type_is_measured(dtype, label):
    """One that a type cannot hold would be one that does not occur: 0 degrees, without a word."""
    score, masks, vessels = random_case(np.random.default_rng(3), (9, 8, 7), 2, labels=(1,))
    expected = contact_degrees(score, masks, vessels, {"a": 1})
    assert expected.raters.any()
    found = contact_degrees(
        score, masks, vessels.astype(dtype) * np.dtype(dtype).type(label), {"a": label}
    )
    assert found.occurs.all()
    np.testing.assert_array_equal(all_degrees(found), all_degrees(expected))
