from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from twintrack import EqualMassBins
from twintrack.map_fit import fit_map


def bins_of(mean_score, count, votes):
    return EqualMassBins(
        count=np.array(count, np.uint64),
        mean_score=np.array(mean_score, np.float64),
        votes=np.array(votes, np.uint64),
        asked=len(count),
    )


def random_bins(seed, bins=60, raters=4):
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 1000, bins)
    votes = (count * rng.random((raters, bins)) * np.linspace(0, 1, bins)).T
    return bins_of(np.sort(rng.random(bins)), count, votes.astype(int))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", ["mhr", "single", "hard"])
def test_map_goes_through_scipys_fit_of_each_bin(target, seed):
    bins = random_bins(seed)
    fits = [
        isotonic_regression(answers / bins.count, weights=bins.count).x for answers in bins.votes.T
    ]
    together = isotonic_regression(bins.votes.mean(axis=1) / bins.count, weights=bins.count).x
    expected = {"mhr": together, "single": fits[2], "hard": np.mean(fits, axis=0)}[target]
    np.testing.assert_allclose(fit_map(bins, target, 2)(bins.mean_score), expected, atol=1e-14)


def test_of_bins_with_one_mean_the_upper_is_kept():
    fitted = fit_map(bins_of([0.25, 0.25, 0.5], [4, 4, 4], [[1], [2], [3]]), "mhr", 0)
    assert (fitted.x.tolist(), fitted.y.tolist()) == ([0.25, 0.5], [0.5, 0.75])


def test_knots_inside_a_plateau_are_left_out():
    means = [0.1, 0.2, 0.3, 0.4, 0.5]
    fitted = fit_map(bins_of(means, [2] * 5, [[0], [1], [1], [1], [2]]), "mhr", 0)
    assert (fitted.x.tolist(), fitted.y.tolist()) == ([0.1, 0.2, 0.4, 0.5], [0, 0.5, 0.5, 1])


@pytest.mark.parametrize(
    ("target", "rater", "votes", "message"),
    [
        ("mean", 0, [[1]], "target is 'mean'; it must be mhr, single or hard"),
        ("single", 1, [[1]], "rater is 1 but there are 1 raters"),
        ("mhr", 0, [[1], [1]], "not those of the same bins"),
    ],
)
def test_what_cannot_be_fitted_is_refused(target, rater, votes, message):
    with pytest.raises(ValueError, match=message):
        fit_map(bins_of([0.5], [2], votes), target, rater)
