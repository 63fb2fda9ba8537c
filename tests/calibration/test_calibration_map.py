import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import twintrack as tt

DTYPES = (np.float16, np.float32, np.float64)


def every_float16():
    return np.arange(0x3C00 + 1, dtype=np.uint16).view(np.float16)


def every_bfloat16():
    return np.arange(0x3F80 + 1, dtype=np.uint16)


def widen(bits):
    """bfloat16 bit patterns as float32 values."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@st.composite
def knots(draw):
    """Knots as fits make them: crowded at the ends, plateaus, near-vertical steps."""
    centres = draw(
        st.lists(st.sampled_from([0.0, 1e-30, 1e-7, 1e-3, 0.3, 0.5, 0.7, 1.0]), max_size=4)
    )
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    parts = [rng.random(draw(st.integers(1, 40)))]
    for centre in centres:
        away = 10.0 ** rng.uniform(-12, -1, draw(st.integers(1, 60)))
        parts.append(np.clip(centre + rng.choice([-1, 1]) * away, 0, 1))
    x = np.unique(np.concatenate(parts))
    y = np.sort(rng.choice([rng.random(len(x)), np.round(rng.random(len(x)), 1)]))
    return x, y


def neighbours(rng, x, dtype):
    """Random scores, and all scores next to the knots and to powers of two."""
    u = np.concatenate([rng.random(3000), 10.0 ** rng.uniform(-12, 0, 3000)])
    u = np.concatenate([u, 1 - u, x, 2.0 ** -np.arange(1, 30), [0, 0.5, 1]]).astype(dtype)
    near = [u]
    for _ in range(2):
        near.append(np.nextafter(near[-1], dtype(2)))
    for _ in range(2):
        near.append(np.nextafter(near[-1], dtype(-1)))
    near = np.unique(np.concatenate(near))
    return near[(near >= 0) & (near <= 1)]


@settings(max_examples=60)
@given(knots())
def test_is_the_interpolation(pair):
    x, y = pair
    rng = np.random.default_rng(len(x))
    fitted = tt.CalibrationMap(x, y)
    for dtype, tolerance in ((np.float32, 2.0**-23), (np.float64, 1e-9)):
        scores = neighbours(rng, x, dtype)
        exact = np.interp(scores.astype(np.longdouble).astype(np.float64), x, y)
        # np.interp itself is only as good as its slopes in near-vertical segments.
        steep = np.concatenate([[0], np.diff(y) / np.diff(x), [0]])
        slope = steep[np.searchsorted(x, scores, "right")]
        allowed = tolerance + 4 * slope * np.spacing(np.float64(1))
        assert np.all(np.abs(fitted(scores).astype(np.float64) - exact) <= allowed)


@settings(max_examples=60)
@given(knots())
def test_never_decreases_and_stays_in_the_unit_interval(pair):
    x, y = pair
    rng = np.random.default_rng(len(x))
    fitted = tt.CalibrationMap(x, y)
    for scores in (every_float16(), neighbours(rng, x, np.float32), neighbours(rng, x, np.float64)):
        mapped = fitted(scores)
        assert mapped.dtype == scores.dtype
        assert mapped.min() >= 0
        assert mapped.max() <= 1
        assert np.all(np.diff(mapped.astype(np.float64)) >= 0)


@st.composite
def close_knots(draw):
    """Knots a few representable numbers apart, from the smallest ones up to 1."""
    bits = np.float64(1).view(np.int64)
    places = draw(
        st.lists(
            st.sampled_from([0.0, 1e-320, 1e-310, 2.0**-1022, 1e-300, 1e-170, 1e-40, 0.5, 1.0]),
            min_size=1,
            max_size=4,
        )
    )
    x = []
    for place in places:
        steps = draw(st.lists(st.integers(-9, 9), min_size=1, max_size=6))
        width = draw(st.sampled_from([1, 1000, 2**40]))
        x += [int(np.float64(place).view(np.int64)) + width * step for step in steps]
    x = np.unique(np.clip(x, 0, bits)).view(np.float64)
    heights = st.one_of(st.sampled_from([0.0, 5e-324, 0.5, 1.0]), st.floats(0, 1))
    y = draw(st.lists(heights, min_size=len(x), max_size=len(x)))
    return x, np.sort(y)


def bits_around(x):
    """Every knot and its nearest doubles, and a score half-way from each knot to the next."""
    bits = x.view(np.int64)
    near = (bits[:, np.newaxis] + np.arange(-3, 4)).ravel()
    between = bits[:-1] + np.diff(bits) // 2
    all_bits = np.concatenate([near, between, np.float64([0, 1e-45, 1e-38, 0.5, 1]).view(np.int64)])
    return np.unique(np.clip(all_bits, 0, np.float64(1).view(np.int64))).view(np.float64)


@settings(max_examples=150)
@example((np.array([0, 5e-324, 1]), np.array([0.0, 1, 1])))
@example((np.array([1e-310, np.nextafter(1e-310, 1), 1]), np.array([0, 0.5, 1])))
@example((np.array([0.25, 1 - 2.0**-51, 1 - 2.0**-52, 1]), np.array([0.25, 0.5, 0.75, 1])))
@given(close_knots())
def test_between_knots_however_close_the_map_is_between_their_values(pair):
    x, y = pair
    fitted = tt.CalibrationMap(x, y)
    scores = bits_around(x)
    for dtype in DTYPES:
        tolerance = 2.0**-11 if dtype == np.float16 else 2.0**-23
        some = np.unique(scores.astype(dtype))
        mapped = fitted(some).astype(np.float64)
        above = np.searchsorted(x, some.astype(np.float64), "right")
        low = y[np.clip(above - 1, 0, len(x) - 1)]
        high = y[np.clip(above, 0, len(x) - 1)]
        high = np.where(np.isin(some.astype(np.float64), x), low, high)  # at a knot, its value
        assert np.all((mapped >= low - tolerance) & (mapped <= high + tolerance))
        assert np.all(np.diff(mapped) >= 0)
        assert not np.any(np.signbit(mapped))
    half = fitted(every_float16())
    assert np.array_equal(half, fitted(every_float16().astype(np.float32)).astype(np.float16))


@st.composite
def crowded_knots(draw):
    """Knots of means of K networks: ever closer towards k / K, and as steep as steps can be."""
    networks = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([4.0, 9.0, 16.0]))  # octaves of ten
    centres = rng.integers(0, networks + 1, draw(st.integers(2, 250))) / networks
    away = rng.choice([-1, 1], centres.size) * 10.0 ** -rng.uniform(0.5, spread, centres.size)
    x = np.unique(np.clip(centres + away, 0, 1))
    if draw(st.booleans()):
        x = np.unique(x.astype(np.float32).astype(np.float64))
    steps = rng.random(len(x)) ** draw(st.sampled_from([0, 1, 20]))  # even, uneven, few large ones
    y = np.minimum(np.cumsum(steps) / steps.sum(), 1) * draw(st.sampled_from([1.0, 1e-3]))
    return x, y


def bends(x, dtype):
    """The scores next to every knot and half-way to the next."""
    near = np.concatenate([x, (x[1:] + x[:-1]) / 2]).astype(dtype)
    near = [near, np.nextafter(near, dtype(0)), np.nextafter(near, dtype(1))]
    return np.unique(np.clip(np.concatenate(near), dtype(0), dtype(1)))


@settings(max_examples=200)
@given(crowded_knots())
def test_where_knots_crowd_it_is_the_interpolation_and_never_decreases(pair):
    x, y = pair
    fitted = tt.CalibrationMap(x, y)
    rng = np.random.default_rng(len(x))
    for dtype in (np.float32, np.float64):
        scores = np.unique(np.concatenate([bends(x, dtype), neighbours(rng, x, dtype)]))
        mapped = fitted(scores).astype(np.float64)
        assert np.all(np.diff(mapped) >= 0)
        assert mapped.min() >= 0
        assert mapped.max() <= 1
        # A knot and a score that are nearly the same cost digits of double.
        below = np.clip(np.searchsorted(x, scores, "right") - 1, 0, max(len(x) - 2, 0))
        slope = (np.diff(y) / np.diff(x))[below] if len(x) > 1 else 0
        exact = np.interp(scores.astype(np.float64), x, y)
        allowed = 2.0**-23 + 4 * slope * np.spacing(np.float64(1))
        assert np.all(np.abs(mapped - exact) <= allowed)
    half = fitted(every_float16())
    assert np.array_equal(half, fitted(every_float16().astype(np.float32)).astype(np.float16))


def test_knots_too_close_for_a_slope_make_a_step_above_the_lower():
    fitted = tt.CalibrationMap([1e-310, 3e-310, 1], [0.25, 0.5, 0.75])
    scores = [0, 1e-310, np.nextafter(1e-310, 1), 2e-310, 3e-310, 4e-310]
    assert fitted(np.array(scores)).tolist() == [0.25, 0.25, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("x", "y"),
    [([1e-40, 1], [0.0, 0.9]), ([0.3, 1], [-0.0, 1]), ([0.3], [-0.0])],
)
def test_no_score_is_mapped_to_minus_zero(x, y):
    # As the bits of a float16 that is in [0, 1] it would be 2.
    fitted = tt.CalibrationMap(x, y)
    for scores in (every_float16(), every_float16().astype(np.float32)):
        mapped = fitted(scores)
        assert not np.any(np.signbit(mapped))
        assert mapped[0] == 0


def test_float16_and_bfloat16_are_float32_rounded():
    x, y = np.linspace(0.01, 0.99, 250), np.linspace(0, 1, 250) ** 2
    fitted = tt.CalibrationMap(x, y)
    half = every_float16()
    assert np.array_equal(fitted(half), fitted(half.astype(np.float32)).astype(np.float16))
    brain = every_bfloat16()
    mapped = widen(fitted(brain.view("V2")).view(np.uint16))
    exact = fitted(widen(brain)).view(np.uint32)
    rounded = ((exact + 0x7FFF + ((exact >> 16) & 1)) >> 16 << 16).astype(np.uint32)
    assert np.array_equal(mapped.view(np.uint32), rounded)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["C", "F", "sliced", "reversed", "transposed", "broadcast"])
def test_any_memory_layout(dtype, layout):
    rng = np.random.default_rng(1)
    fitted = tt.CalibrationMap(np.linspace(0, 1, 50), np.linspace(0, 1, 50) ** 3)
    whole = rng.random((14, 15, 16)).astype(dtype)
    expected = fitted(whole.ravel()).reshape(whole.shape)
    views = {
        "C": (whole, expected),
        "F": (np.asfortranarray(whole), expected),
        "sliced": (whole[1::2, :, 3::4], expected[1::2, :, 3::4]),
        "reversed": (whole[::-1, :, ::-1], expected[::-1, :, ::-1]),
        "transposed": (whole.transpose(2, 0, 1), expected.transpose(2, 0, 1)),
        "broadcast": (
            np.broadcast_to(whole[:, :1], whole.shape),
            np.broadcast_to(expected[:, :1], whole.shape),
        ),
    }
    score, answer = views[layout]
    assert np.array_equal(fitted(score), answer)
    out = np.full((20, 20, 40), 7, dtype)[
        : score.shape[0], : score.shape[1], : 2 * score.shape[2] : 2
    ]
    assert fitted(score, out=out) is out
    assert np.array_equal(out, answer)


def test_in_place_and_overlapping():
    fitted = tt.CalibrationMap([0, 1], [0.25, 0.75])
    score = np.linspace(0, 1, 5000, dtype=np.float32)
    expected = fitted(score)
    shifted = np.concatenate([score, [0]]).astype(np.float32)
    fitted(shifted[:-1], out=shifted[1:])
    assert np.array_equal(shifted[1:], expected)
    fitted(score, out=score)
    assert np.array_equal(score, expected)
    square = np.linspace(0, 1, 2500, dtype=np.float32).reshape(50, 50)
    turned = fitted(square.T)
    fitted(square.T, out=square)  # the same address, other strides
    assert np.array_equal(square, turned)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shift", [0, 1, 2])  # of score and out: aligned to 16 bytes or not
def test_large_output_is_streamed_to_the_same_bits(dtype, shift):
    rng = np.random.default_rng(0)
    fitted = tt.CalibrationMap(np.linspace(0, 1, 250), np.linspace(0, 1, 250) ** 2)
    voxels = (4 << 20) // np.dtype(dtype).itemsize + 1037  # streaming begins at 4 MiB
    score = rng.random(voxels + shift).astype(dtype)[shift:]
    score[::77] = -0.0
    room = np.empty(voxels + 5, dtype)
    mapped = fitted(score, out=room[3 - shift : voxels + 3 - shift])
    parts = np.concatenate([fitted(part) for part in np.array_split(score, 300)])
    assert np.array_equal(mapped, parts)
    gaps = np.repeat(score, 2)[::2]
    assert np.array_equal(fitted(gaps, out=np.empty_like(score)), parts)
    score[-1] = 1.5
    with pytest.raises(ValueError, match=rf"score\[{voxels - 1}\] is 1.5"):
        fitted(score, out=mapped)


def test_empty_scalar_and_many_dimensions():
    fitted = tt.CalibrationMap([0.5], [0.3])
    assert fitted(np.empty((0, 3), np.float32)).shape == (0, 3)
    assert fitted(np.float32(0.9).reshape(())) == np.float32(0.3)
    assert fitted(np.zeros((1,) * 12 + (5,), np.float32)).shape == (1,) * 12 + (5,)
    with pytest.raises(ValueError, match="17 dimensions"):
        fitted(np.zeros((1,) * 17, np.float32))


def test_identity_is_exact():
    fitted = tt.CalibrationMap([0, 1], [0, 1])
    scores = np.random.default_rng(0).random(10_000, dtype=np.float32)
    assert np.array_equal(fitted(scores), scores)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -2e-6, 1.000002])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bad_score_is_named_and_nothing_is_overwritten(bad, dtype):
    fitted = tt.CalibrationMap([0, 1], [0.5, 0.5])
    score = np.full((4, 50, 60), 0.25, dtype)
    score[3, 40, 50] = bad
    before = score.copy()
    with pytest.raises(ValueError, match=r"score\[3, 40, 50\] is .*\[0, 1\]"):
        fitted(score, out=score)
    assert np.array_equal(score, before, equal_nan=True)


def test_minus_zero_is_zero():
    fitted = tt.CalibrationMap([0, 1], [0, 1])
    assert fitted(np.array([-0.0], np.float32))[0] == 0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([], [], "no knots"),
        ([0.1, 0.2], [0.1], "2 x values but 1 y values"),
        ([0.2, 0.1], [0, 1], r"x\[1\] is 0.1, not above"),
        ([0.1, 0.1], [0, 1], r"x\[1\] is 0.1, not above"),
        ([0.1, 0.2], [0.5, 0.4], r"y\[1\] is 0.4, below"),
        ([-0.1], [0], r"x\[0\] is -0.1, not in"),
        ([0.1], [1.5], r"y\[0\] is 1.5, not in"),
        ([np.nan], [0.5], r"x\[0\] is nan"),
    ],
)
def test_broken_knots_are_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        tt.CalibrationMap(x, y)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty(4, np.float32), ValueError, "out has shape"),
        (np.empty(5, np.float64), ValueError, "different dtypes"),
        (np.broadcast_to(np.float32(0), 5), ValueError, "read-only"),
    ],
)
def test_a_wrong_out_is_refused(out, error, message):
    with pytest.raises(error, match=message):
        tt.CalibrationMap([0.5], [0.5])(np.zeros(5, np.float32), out=out)


def test_integers_are_no_scores():
    with pytest.raises(TypeError, match="int64"):
        tt.CalibrationMap([0.5], [0.5])(np.zeros(5, np.int64))


def test_pickles_and_compares():
    fitted = tt.CalibrationMap([0.1, 0.2], [0.3, 0.4])
    assert pickle.loads(pickle.dumps(fitted)) == fitted
    assert fitted != tt.CalibrationMap([0.1, 0.2], [0.3, 0.5])
