"""Bins are cut by one rule, in whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

import twintrack as tt


@pytest.mark.parametrize("seed", range(5))
def test_cuts_follow_the_rule_in_integers(seed):
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 9, 60) * rng.integers(0, 2, 60)
    bins, after = 13, np.cumsum(count)
    first = [int(np.argmax(after > k * after[-1] // bins)) for k in range(bins)]
    starts = np.unique(first)
    sums = np.stack([count, np.zeros_like(count), count // 2], axis=1).astype(np.uint64)
    rows = np.arange(60, dtype=np.uint32), sums
    found = tt.ScoreTally.of_rows(1, {(0,): rows}).equal_mass_bins(bins)
    np.testing.assert_array_equal(found.count, np.add.reduceat(count, starts))
    np.testing.assert_array_equal(found.votes[:, 0], np.add.reduceat(count // 2, starts))
    assert found.asked == bins
