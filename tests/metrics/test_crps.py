import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from twintrack import evaluate
from twintrack.metrics.crps import crps_corrected, crps_exact_integral, crps_official

volumes = st.lists(st.integers(0, 10**6), min_size=2, max_size=9)


def distribution(raters):
    """The reference distribution function, from SciPy's normal distribution."""
    mean, deviation = np.mean(raters), np.std(raters)
    at = np.linspace(*norm.ppf([0.01, 0.99], mean, deviation), 100)
    share = norm.cdf(at, mean, deviation)
    return mean, deviation, lambda y: np.interp(y, at, share, left=0, right=1)


@settings(max_examples=25)
@given(raters=volumes.filter(lambda v: np.std(v) > 0), at=st.floats(-5, 5))
def test_official_is_quad_over_numpy(raters, at):
    # The same numbers to the last bits in the integrand: quad divides where they tell it to.
    mean, deviation, cdf = distribution(raters)
    predicted = max(0.0, mean + at * deviation)
    value = quad(
        lambda y: (cdf(y) - np.heaviside(y - predicted, 0.5)) ** 2,
        mean - 3 * deviation,
        mean + 3 * deviation,
        full_output=1,  # instead of warnings
    )[0]
    assert crps_official(predicted, raters) == pytest.approx(value, rel=1e-6)


def test_threads_do_not_touch_the_filters_of_warnings(monkeypatch):
    """They are the process's: a thread that changes them silences, or wakes, all others."""
    before = list(warnings.filters)
    changed = []

    def watched(*arguments, **settings):
        changed.append(warnings.filters != before)
        return quad(*arguments, **settings)

    monkeypatch.setattr("scipy.integrate.quad", watched)
    rng = np.random.default_rng(0)
    score = rng.random((9, 9, 9))
    cases = [[rng.random(score.shape) < score**power for power in (1, 2, k)] for k in range(3, 9)]
    alone = [evaluate(score, raters).crps for raters in cases]
    with ThreadPoolExecutor(6) as pool:
        together = [list(pool.map(lambda r: evaluate(score, r).crps, cases)) for _ in range(5)]
    assert together == [alone] * 5
    assert len(changed) == 36
    assert not any(changed)
    assert warnings.filters == before


@settings(max_examples=40)
@given(raters=volumes.filter(lambda v: np.std(v) > 0), at=st.floats(-9, 9))
def test_closed_forms_are_the_integrals(raters, at):
    mean, deviation, cdf = distribution(raters)
    predicted = max(0.0, mean + at * deviation)

    def midpoints(low, high):
        pieces = 200_000
        y = low + (np.arange(pieces) + 0.5) * (high - low) / pieces
        return float(np.mean((cdf(y) - (y > predicted)) ** 2)) * (high - low)

    low, high = mean - 3 * deviation, mean + 3 * deviation
    assert crps_exact_integral(predicted, raters) == pytest.approx(midpoints(low, high), rel=1e-4)
    everything = midpoints(min(low, predicted), max(high, predicted))
    assert crps_corrected(predicted, raters) == pytest.approx(everything, rel=1e-4)


def test_agreeing_raters():
    assert crps_official(500, [100, 100, 100]) == 0
    assert crps_exact_integral(500, [100, 100]) == 0
    assert crps_corrected(500, [100, 100]) == 400
    assert crps_corrected(7, [7]) == 0


@pytest.mark.parametrize("crps", [crps_official, crps_exact_integral, crps_corrected])
def test_what_is_no_volume_is_refused(crps):
    # NaN is greater than nothing, and has a deviation that is not above 0: plausible numbers.
    for predicted, raters, message in (
        (np.nan, [1, 2, 4], "predicted is nan"),
        (3, [1, np.nan], r"rater_volumes are \[ *1. nan\]; their spread"),
        (3, [1, np.inf], "their spread is not a finite number"),
        (3, [1e300, 0], "their spread is not a finite number"),
        (3, [], r"rater_volumes has shape \(0,\)"),
        (3, [[1, 2], [3, 4]], r"rater_volumes has shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            crps(predicted, raters)
    with pytest.raises(TypeError, match="rater_volumes has dtype <U1"):
        crps(3, ["1", "2"])
    assert crps(np.inf, [1, 2, 4]) > 3  # the official sum of many float16 scores


def test_corrected_tells_near_from_far_everywhere():
    raters = [90, 100, 110]
    far = [crps_corrected(v, raters) for v in (100, 130, 200, 1e3, 1e6)]
    assert far == sorted(far)
    # Beyond the distribution each further voxel costs one.
    assert far[-1] - far[-2] == pytest.approx(1e6 - 1e3)
    assert crps_official(1e3, raters) == pytest.approx(crps_official(1e6, raters), rel=1e-2)


def test_scales_with_the_unit_of_volume():
    raters = np.array([90, 100, 130])
    for crps in (crps_corrected, crps_exact_integral):
        assert crps(2.5 * 140, 2.5 * raters) == pytest.approx(2.5 * crps(140, raters), rel=1e-12)
