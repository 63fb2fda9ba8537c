"""Bins of groups of voxels are cut by the rule that cuts bins of cells."""

from __future__ import annotations

import numpy as np
import pytest

import twintrack as tt
from twintrack.calibration.equal_mass import bins_of_groups


def tally(seed, voxels=5000, values=300):
    rng = np.random.default_rng(seed)
    score = rng.choice(rng.random(values).astype(np.float16), voxels)
    return tt.ScoreTally(4).update(score, rng.random((4, voxels)) < score)


@pytest.mark.parametrize("bins", [1, 7, 50, 250, 1000])
def test_groups_of_one_cell_each_are_cut_as_cells(bins):
    whole = tally(0)
    cells = whole.equal_mass_bins(whole.voxels)
    expected = whole.equal_mass_bins(bins)
    found = bins_of_groups(cells.count, cells.mean_score, cells.votes.T, bins)
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_array_equal(found.votes, expected.votes)
    np.testing.assert_allclose(found.mean_score, expected.mean_score, rtol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_cuts_follow_the_rule_in_integers(seed):
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 9, 60) * rng.integers(0, 2, 60)
    mean, bins = np.sort(rng.random(60)), 13
    after = np.cumsum(count)
    first = [int(np.argmax(after > k * after[-1] // bins)) for k in range(bins)]
    starts = np.unique(first)
    found = bins_of_groups(count, mean, np.array([count // 2]), bins)
    np.testing.assert_array_equal(found.count, np.add.reduceat(count, starts))
    np.testing.assert_array_equal(found.votes[:, 0], np.add.reduceat(count // 2, starts))
    weighted = np.add.reduceat(count * mean, starts) / np.add.reduceat(count, starts)
    np.testing.assert_array_equal(found.mean_score, weighted)
    assert found.asked == bins
    # Votes of several raters in one row: the same cuts, every voxel counting as often.
    pooled = bins_of_groups(count, mean, np.array([3 * count // 2]), bins, answers=3)
    np.testing.assert_array_equal(pooled.count, 3 * found.count)
    np.testing.assert_array_equal(pooled.mean_score, found.mean_score)
