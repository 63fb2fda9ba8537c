"""Affine updates of a map: composed exactly, of greatest likelihood, and exact ends kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from twintrack import CalibrationMap
from twintrack.calibration.departures import Answers
from twintrack.calibration.map_updates import AffineUpdates, composed

MAP = CalibrationMap([0.0, 0.2, 0.3, 0.6, 0.95], [0.0, 0.0, 0.25, 0.25, 0.9])


def answers(a, b, seed=0, voxels=4000):
    rng = np.random.default_rng(seed)
    score = np.sort(rng.random(voxels))
    m = np.interp(score, MAP.x, MAP.y)
    with np.errstate(divide="ignore"):
        chance = expit(a * logit(m) + b)
    return Answers(score, np.ones(voxels), rng.binomial(5, chance) / 5)


def test_a_composed_map_is_one_map_after_the_other():
    rng = np.random.default_rng(0)
    for _ in range(20):
        inner, outer = (
            CalibrationMap(np.sort(rng.random(n)), np.sort(rng.integers(0, 9, n) / 10))
            for n in rng.integers(1, 9, 2)
        )
        found = composed(inner, outer)
        at = np.linspace(0, 1, 2001)
        wanted = np.interp(np.interp(at, inner.x, inner.y), outer.x, outer.y)
        np.testing.assert_allclose(np.interp(at, found.x, found.y), wanted, atol=1e-12)


def test_the_update_is_of_greatest_likelihood():
    group = answers(0.7, -0.5)
    fitted, found = AffineUpdates(MAP, [group]).fit()
    m = np.interp(group.score, MAP.x, MAP.y)
    inside = m > 0
    x = logit(m[inside])[:, None].repeat(2, axis=0)
    y = np.tile([1, 0], inside.sum())
    weight = np.stack([group.yes[inside], 1 - group.yes[inside]], axis=1).ravel()
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(x, y, weight)
    assert found["a"] == pytest.approx(peer.coef_[0, 0], abs=2e-3)
    assert found["b"] == pytest.approx(peer.intercept_[0], abs=2e-3)
    value = np.interp(group.score, fitted.x, fitted.y)
    np.testing.assert_allclose(
        value[inside], expit(found["a"] * logit(m[inside]) + found["b"]), atol=2e-5
    )
    assert value.sum() == pytest.approx(group.yes.sum(), rel=1e-4)


def test_votes_at_an_exact_zero_do_not_move_the_rest():
    group = answers(0.7, -0.5)
    at_zero = np.interp(group.score, MAP.x, MAP.y) == 0
    more = Answers(group.score, group.count, np.where(at_zero, 0.5, group.yes))
    assert at_zero.sum() > 100
    assert AffineUpdates(MAP, [more]).fit() == AffineUpdates(MAP, [group]).fit()


def test_an_exact_end_and_the_bounds_stay():
    fitted, found = AffineUpdates(MAP, [answers(1.0, 3.0)]).fit()
    assert found["b"] > 2
    assert np.interp(0.1, fitted.x, fitted.y) == 0
    kept, _ = AffineUpdates(MAP, [answers(1.0, 3.0)], 0.01, 0.8).fit()
    assert (kept.y.min(), kept.y.max()) == (0.01, 0.8)


def test_one_left_out_is_the_update_of_the_others():
    groups = [answers(0.7, 0.2, seed) for seed in range(3)]
    everyone = AffineUpdates(MAP, groups)
    for c in range(3):
        left, found = everyone.fit(c)
        wanted, other = AffineUpdates(MAP, groups[:c] + groups[c + 1 :]).fit()
        assert found == pytest.approx(other, abs=1e-4)  # a step is taken at its mean
        at = np.linspace(0, 1, 99)
        np.testing.assert_allclose(left(at), wanted(at), atol=2e-5)


def test_without_marks_the_map_stays():
    nothing = Answers(np.array([0.5, 0.7]), np.ones(2), np.zeros(2))
    assert AffineUpdates(MAP, [nothing]).fit() == (MAP, {"a": 1.0, "b": 0.0})
    assert AffineUpdates(MAP, [nothing, answers(1, 0)]).fit(1)[0] == MAP
