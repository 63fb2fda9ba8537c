from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from sklearn.isotonic import IsotonicRegression

from twintrack import EqualMassBins, ScoreTally
from twintrack.calibration.map_fit import fit_map


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


def test_bins_with_one_mean_are_one_bin_of_all_their_answers():
    fitted = fit_map(bins_of([0.25, 0.25, 0.5], [4, 12, 4], [[0], [4], [3]]), "mhr", 0)
    assert (fitted.x.tolist(), fitted.y.tolist()) == ([0.25, 0.5], [0.25, 0.75])


def test_scores_that_the_tally_cannot_tell_from_0_keep_their_answers():
    # The mean of a bin of 1e-300 rounds to that of the bin of 0.
    scores = np.repeat([0.0, 1e-300, 0.5], 4)
    tally = ScoreTally(1).update(scores, [np.array([1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1])])
    bins = tally.equal_mass_bins(3)
    assert bins.mean_score.tolist() == [0, 0, 0.5]
    assert fit_map(bins, "mhr", 0)(np.array([0.0, 1e-300, 0.5])).tolist() == [0.5, 0.5, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", ["mhr", "single", "hard"])
def test_bins_with_equal_means_are_fitted_as_scikit_learn_fits_repeated_scores(target, seed):
    bins = random_bins(seed)
    means = np.round(bins.mean_score, 1)  # about six bins to a mean
    bins = bins_of(means, bins.count, bins.votes)

    def fit(answers):
        isotonic = IsotonicRegression(out_of_bounds="clip")
        return isotonic.fit(means, answers / bins.count, bins.count).predict(means)

    fits = [fit(answers) for answers in bins.votes.T]
    together = fit(bins.votes.mean(axis=1))
    expected = {"mhr": together, "single": fits[2], "hard": np.mean(fits, axis=0)}[target]
    np.testing.assert_allclose(fit_map(bins, target, 2)(means), expected, atol=1e-14)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12
    ),
    st.sampled_from(["mhr", "single", "hard"]),
)
def test_bins_with_equal_means_count_as_their_sum(rows, target):
    rows = sorted((place, count, min(votes, count)) for place, count, votes in rows)
    split = bins_of(
        [place / 4 for place, _, _ in rows],
        [count for _, count, _ in rows],
        [[votes] for _, _, votes in rows],
    )
    sums = {place: [0, 0] for place, _, _ in rows}
    for place, count, votes in rows:
        sums[place][0] += count
        sums[place][1] += votes
    summed = bins_of(
        [place / 4 for place in sums],
        [count for count, _ in sums.values()],
        [[votes] for _, votes in sums.values()],
    )
    assert fit_map(split, target, 0) == fit_map(summed, target, 0)


def test_bins_whose_means_rounding_has_swapped_are_one_bin():
    low = np.nextafter(0.5, 0)
    votes = [[0], [2], [0], [1], [2]]
    fitted = fit_map(bins_of([0.25, 0.5, low, 0.5, 1], [2] * 5, votes), "mhr", 0)
    assert (fitted.x.tolist(), fitted.y.tolist()) == ([0.25, 0.5, 1], [0, 0.5, 1])


def test_a_mean_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"x\[1\] is nan"):
        fit_map(bins_of([0.25, np.nan, 0.5], [1] * 3, [[0], [1], [1]]), "mhr", 0)


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
