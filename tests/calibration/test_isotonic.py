import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

import twintrack as tt

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(VALUES, st.randoms(use_true_random=False))
def test_agrees_with_scipy(values, random):
    weights = [random.randint(1, 1000) for _ in values]
    expected = isotonic_regression(values, weights=weights).x
    np.testing.assert_allclose(tt.isotonic(values, weights), expected, rtol=1e-9, atol=1e-6)


@given(VALUES)
def test_is_monotone_and_keeps_the_weighted_mean(values):
    weights = np.arange(1, len(values) + 1)
    fit = tt.isotonic(values, weights)
    assert np.all(np.diff(fit) >= 0)
    np.testing.assert_allclose(
        np.average(fit, weights=weights), np.average(values, weights=weights), rtol=1e-9, atol=1e-6
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5)), min_size=1, max_size=30))
def test_a_weight_is_as_many_repeats(pairs):
    values, weights = zip(*pairs, strict=True)
    repeated = tt.isotonic(np.repeat(values, weights))
    np.testing.assert_allclose(
        np.repeat(tt.isotonic(values, weights), weights), repeated, atol=1e-12
    )


def test_sums_beyond_float64_are_refused():
    with pytest.raises(ValueError, match=r"values\[1\].* more than float64 holds"):
        tt.isotonic([1e308, 0], [10, 1])


@given(VALUES)
def test_monotone_values_are_left_as_they_are(values):
    ordered = np.sort(values)
    assert np.array_equal(tt.isotonic(ordered), ordered)


def test_by_hand():
    # Barlow et al. 1972: pooling 3, 2 gives 2.5; 6, 4, 5 gives 5.
    assert tt.isotonic([1, 3, 2, 6, 4, 5]).tolist() == [1, 2.5, 2.5, 5, 5, 5]


def test_a_value_of_weight_zero_has_no_say():
    assert tt.isotonic([9, 1, 0, 2], [0, 1, 0, 1]).tolist() == [1, 1, 1, 2]


def test_empty_and_single():
    assert tt.isotonic([]).shape == (0,)
    assert tt.isotonic([0.3], [2.0]).tolist() == [0.3]


def test_long_alternation_is_linear_time():
    # Quadratic pooling would need 10^11 steps.
    values = np.tile([1.0, 0.0], 200_000)
    np.testing.assert_allclose(tt.isotonic(values), 0.5)
    np.testing.assert_allclose(tt.isotonic(np.arange(400_000.0)[::-1]), 199_999.5)


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        ([0.1, np.nan], None, r"values\[1\] is nan"),
        ([0.1, np.inf], None, r"values\[1\] is inf"),
        ([0.1, 0.2], [1, -1], r"weights\[1\] is -1"),
        ([0.1, 0.2], [np.nan, 1], r"weights\[0\] is nan"),
        ([0.1, 0.2], [0, 0], "weights are all 0"),
        ([0.1, 0.2], [1], "equally long"),
        ([[0.1, 0.2]], None, "1-D"),
    ],
)
def test_bad_input_is_named(values, weights, message):
    with pytest.raises(ValueError, match=message):
        tt.isotonic(values, weights)
