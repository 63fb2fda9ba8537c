"""The outer contour, by going through all scores."""

import numpy as np
import pytest

import twintrack as tt
from twintrack import InputError
from twintrack.calibration.outer_contour import outer_contour


def make(seed, dtype=np.float16, voxels=800):
    rng = np.random.default_rng(seed)
    score = (rng.random(voxels) ** (1 + rng.random())).astype(dtype)
    return score, [(rng.random(voxels) < score).astype(np.uint8) for _ in range(3)]


def missed(score, masks, least):
    response = np.mean(masks, axis=0)
    return 1 - response[score >= least].sum() / response.sum()


@pytest.mark.parametrize("alpha", [0.06, 0.1, 0.3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_contour_is_the_highest_that_holds(alpha, dtype):
    cases = [make(seed, dtype) for seed in range(20)]
    tallies = [tt.ScoreTally(3).update(*case) for case in cases]
    found = outer_contour(tallies, alpha)
    risk = lambda least: (sum(missed(*case, least) for case in cases) + 1) / 21  # noqa: E731
    assert risk(found.score) <= alpha + 1e-12
    scores = np.unique(np.concatenate([score for score, _ in cases])).astype(float)
    best = max(s for s in scores if risk(s) <= alpha)
    if dtype == np.float16:
        assert found.score == best
        assert found.missed == pytest.approx(np.mean([missed(*case, best) for case in cases]))
    else:
        assert best - found.score < 0.01
    assert outer_contour(tallies[::-1], alpha).score == found.score


def test_new_cases_keep_their_votes_inside():
    outside = []
    for repeat in range(40):
        tallies = [tt.ScoreTally(3).update(*make(100 * repeat + k)) for k in range(20)]
        least = outer_contour(tallies, 0.2).score
        outside += [missed(*make(100 * repeat + 50 + k), least) for k in range(10)]
    assert 0.15 < np.mean(outside) <= 0.2


def test_few_cases_and_cases_without_votes():
    empty = tt.ScoreTally(3).update(make(0)[0], np.zeros((3, 800)))
    tallies = [tt.ScoreTally(3).update(*make(seed)) for seed in range(8)]
    with pytest.raises(InputError, match="needs 9 cases with votes or more, here 8"):
        outer_contour([*tallies, empty], 0.1)
    assert outer_contour([*tallies, empty], 0.2).cases == 8
