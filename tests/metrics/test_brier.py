import numpy as np
import pytest

from twintrack.metrics import CaseTally
from twintrack.metrics.brier import brier, murphy
from twintrack.metrics.ece import average_error, expected_error, expected_error_per_rater


def case(seed, voxels=5000, raters=3):
    rng = np.random.default_rng(seed)
    p = rng.random(voxels, dtype=np.float32) ** 3
    p[::7] = 0
    p[::11] = 1
    return p, rng.random((raters, voxels)) < p**0.7


def test_brier_against_the_response_and_each_rater():
    p, labels = case(0)
    tally = CaseTally(3).update(p, labels)
    wide = p.astype(np.float64)
    assert brier(tally) == pytest.approx(np.mean((wide - labels.mean(axis=0)) ** 2), rel=1e-12)
    for k, marks in enumerate(labels):
        assert brier(tally, rater=k) == pytest.approx(np.mean((wide - marks) ** 2), rel=1e-12)
    assert np.isnan(brier(CaseTally(3)))


def test_a_perfect_prediction_scores_0():
    _, labels = case(1, raters=4)
    tally = CaseTally(4).update(labels.mean(axis=0), labels)
    assert brier(tally) == pytest.approx(0, abs=1e-15)
    assert brier(tally) >= 0
    assert expected_error(tally.score_bins.closed()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rater", [None, 0, 2])
def test_murphy_adds_up_to_the_brier_score_of_bin_means(rater):
    p, labels = case(2)
    bins = CaseTally(3).update(p, labels).score_bins.closed()
    parts = murphy(bins, rater)
    place = np.searchsorted(
        np.cumsum(bins.count), np.argsort(np.argsort(p, kind="stable")), "right"
    )
    binned = bins.mean[place]  # bins are runs of sorted scores
    answers = labels if rater is None else labels[rater : rater + 1]
    score = np.mean((binned - answers) ** 2)
    assert parts.reliability - parts.resolution + parts.uncertainty == pytest.approx(
        score, rel=1e-9
    )
    rate = answers.mean()
    assert parts.uncertainty == pytest.approx(rate * (1 - rate), rel=1e-12)
    assert parts.resolution > parts.reliability > 0
    assert np.isnan(murphy(CaseTally(3).score_bins.closed(), rater)).all()


def test_pooling_is_adding_tallies():
    first, second = case(3), case(4, voxels=800)
    pooled = CaseTally(3).update(*first) + CaseTally(3).update(*second)
    together = CaseTally(3).update(
        np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]], axis=1)
    )
    assert brier(pooled) == brier(together)
    assert murphy(pooled.score_bins) == murphy(together.score_bins)


def test_errors_by_bin_and_rater():
    p, labels = case(5)
    bins = CaseTally(3).update(p, labels).score_bins.closed()
    filled = bins.count > 0
    share = bins.count[filled] / p.size
    gaps = np.abs(bins.mhr - bins.mean)[filled]
    assert expected_error(bins) == pytest.approx(share @ gaps, rel=1e-12)
    assert average_error(bins) == pytest.approx(gaps.mean(), rel=1e-12)
    by_rater = share @ np.abs(bins.rates - bins.mean[:, np.newaxis])[filled]
    np.testing.assert_allclose(expected_error_per_rater(bins), by_rater, rtol=1e-12)
    empty = CaseTally(3).score_bins.closed()
    assert np.isnan([expected_error(empty), average_error(empty)]).all()
    assert np.isnan(expected_error_per_rater(empty)).all()


def test_a_bin_of_one_voxel_counts_as_much_as_any_other():
    # Of background, which is right, and of a voxel that is wrong by 0.9.
    score = np.append(np.full(1000, 0.1), 0.9)
    marks = np.append(np.arange(1000) < 100, False)
    bins = CaseTally(1).update(score, [marks]).score_bins.closed()
    assert average_error(bins) == pytest.approx(0.45, abs=1e-9)
    assert expected_error(bins) == pytest.approx(0.9 / 1001, abs=1e-9)
