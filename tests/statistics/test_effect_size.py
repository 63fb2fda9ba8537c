"""Effect sizes: the formula, what they do not depend on, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from twintrack.statistics import effect_size


def textbook(a, b):
    return np.mean(a - b) / np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)


def test_it_is_the_difference_in_standard_deviations():
    a, b = np.random.default_rng(0).gamma(2, size=(2, 20)) + np.array([[0.4], [0]])
    assert effect_size(a, b) == pytest.approx(textbook(a, b), rel=1e-12)
    assert effect_size(b, a) == pytest.approx(-textbook(a, b), rel=1e-12)
    for scale in (1e-300, 1e300):
        assert effect_size(a * scale, b * scale) == pytest.approx(textbook(a, b), rel=1e-12)


def test_a_certain_but_slight_difference_is_slight():
    a = np.random.default_rng(1).normal(0, 1, 200)
    assert effect_size(a + 0.01, a) == pytest.approx(0.01, rel=0.2)


def test_a_column_has_its_own_cases():
    a = np.random.default_rng(2).random((12, 3, 2))
    a[4, 0, 1] = a[7, 2, 1] = np.nan
    found = effect_size(a, a[:, [2]])
    assert found.shape == (3, 2)
    kept = np.delete(a[:, :, 1], [4, 7], axis=0)
    assert found[0, 1] == pytest.approx(textbook(kept[:, 0], kept[:, 2]), rel=1e-12)
    assert found[2, 0] == 0


def test_without_spread_there_is_none():
    assert np.isnan(effect_size([0.5], [0.4]))
    assert np.isnan(effect_size([0.1] * 7, [0.3] * 7))
    assert np.isnan(effect_size([np.nan, 1.0], [1.0, np.nan]))
    assert np.isnan(effect_size(np.zeros(5), np.zeros(5)))
    assert effect_size([0.1] * 7, [0.3, 0.2] * 3 + [0.3]) < 0
