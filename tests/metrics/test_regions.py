import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twintrack.metrics import near_tumour, scored


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    margin=st.floats(0, 9),
    spacing=st.none() | st.tuples(*[st.floats(0.4, 4)] * 3),
)
def test_near_is_within_the_margin(seed, margin, spacing):
    rng = np.random.default_rng(seed)
    raters = rng.random((2, 11, 12, 13)) < 0.002
    at = np.argwhere(raters.any(axis=0)) * (spacing or (1, 1, 1))
    grid = np.argwhere(np.ones((11, 12, 13), bool)) * (spacing or (1, 1, 1))
    distance = np.full(len(grid), np.inf)
    for mark in at:
        distance = np.minimum(distance, np.sqrt(((grid - mark) ** 2).sum(axis=1)))
    near = near_tumour(raters, margin, spacing).ravel()
    # Distances that equal the margin may round either way.
    clear = np.abs(distance - margin) > 1e-9
    np.testing.assert_array_equal(near[clear], (distance <= margin)[clear])


def test_nothing_is_near_nothing():
    assert not near_tumour(np.zeros((2, 4, 5, 6), np.uint8), 3).any()


def test_a_margin_of_0_keeps_the_marks():
    raters = np.random.default_rng(0).random((3, 5, 6, 7)) < 0.2
    np.testing.assert_array_equal(near_tumour(raters, 0), raters.any(axis=0))


def test_bad_arguments_are_named():
    raters = np.zeros((2, 4, 5, 6), np.uint8)
    for margin in (-1, np.inf, np.nan):
        with pytest.raises(ValueError, match="margin is"):
            near_tumour(raters, margin)
    for spacing in ((1, 1), (1, 0, 1), (1, -1, 1)):
        with pytest.raises(ValueError, match="spacing is"):
            near_tumour(raters, 1, spacing)
    with pytest.raises(ValueError, match=r"raters\[1\] has shape"):
        near_tumour([raters[0], raters[1, 1:]], 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scored_is_above_0(dtype):
    score = np.array([0, -0.0, np.finfo(dtype).smallest_subnormal, 0.5, 1], dtype)
    assert scored(score).tolist() == [False, False, True, True, True]


def test_scored_in_bfloat16():
    bits = np.array([0, 0x8000, 1, 0x3F80], np.uint16)  # 0, -0, the least, 1
    assert scored(bits.view("V2")).tolist() == [False, False, True, True]
