"""Holm's correction, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twintrack.statistics import holm


def rejected_one_by_one(p, alpha):
    """As Holm writes it: the smallest against alpha / m, the next against alpha / (m - 1) …"""
    left = sorted((value, place) for place, value in enumerate(p))
    rejected = set()
    while left and left[0][0] <= alpha / len(left):
        rejected.add(left.pop(0)[1])
    return rejected


@given(st.lists(st.integers(1, 1000).map(lambda k: k / 1024), max_size=8), st.sampled_from([64, 8]))
def test_what_is_rejected_is_what_holm_rejects(p, parts):
    alpha = 1 / parts  # products of these are exact
    adjusted = holm(p)
    assert {k for k in range(len(p)) if adjusted[k] <= alpha} == rejected_one_by_one(p, alpha)
    assert all(adjusted >= p)
    assert all(adjusted <= 1)


def test_adjusted_values():
    # statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.005], method="holm")
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == pytest.approx(0.2)
    assert holm([]).tolist() == []


def test_what_was_not_tested_does_not_count():
    np.testing.assert_array_equal(holm([np.nan, 0.02, np.nan, 0.03]), [np.nan, 0.04, np.nan, 0.04])
    assert np.isnan(holm([np.nan])).all()
