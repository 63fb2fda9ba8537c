import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import KINDS, equal_mass, sample
from threadpoolctl import threadpool_limits

import twintrack as tt
from twintrack.calibration.cut_refinement import refined_bins


def make(seed, voxels, kind, dtype):
    rng = np.random.default_rng(seed)
    score = sample(rng, voxels, kind, dtype)
    return score, [rng.random(voxels) < score.astype(float) for _ in range(3)]


def assert_exact(score, labels, bins, cases):
    whole = tt.ScoreTally(3).update(score, labels)
    made = refined_bins(whole, bins, cases)
    count, mean, votes = equal_mass(score, labels, bins)
    assert np.array_equal(made.count, count)
    assert np.array_equal(made.votes, votes)
    np.testing.assert_allclose(made.mean_score, mean, rtol=1e-9)


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.integers(1, 400),
)
def test_cuts_follow_the_rule_exactly(seed, kind, dtype, bins):
    score, labels = make(seed, 5000, kind, dtype)
    half = len(score) // 2
    cases = [
        (score[:half], [rater[:half] for rater in labels], None),
        (score[half:], [rater[half:] for rater in labels], None),
    ]
    assert_exact(score, labels, bins, cases)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("centre", [0.0, 1e-9, 0.3, 0.5, 1.0])
def test_all_scores_within_one_cell(dtype, centre):
    # The hardest case: the first pass knows nothing, every cut lies in one or two cells.
    rng = np.random.default_rng(0)
    score = np.clip(centre + rng.random(4000) * 1e-12, 0, 1).astype(dtype)
    if dtype == np.float64 and centre == 1.0:
        score = 1 - rng.random(4000) * 1e-15
    labels = [rng.random(4000) < 0.5 for _ in range(3)]
    assert_exact(score, labels, 37, [(score, labels, None)])


def test_threads_do_not_matter():
    score, labels = make(0, 300_000, "uniform", np.float32)
    whole = tt.ScoreTally(3).update(score, labels)
    made = []
    for threads in (1, 2, 5):
        with threadpool_limits(threads, "openmp"):
            made.append(refined_bins(whole, 250, [(score, labels, None)]))
    for other in made[1:]:
        assert np.array_equal(made[0].count, other.count)
        assert np.array_equal(made[0].mean_score, other.mean_score)
        assert np.array_equal(made[0].votes, other.votes)


def test_other_voxels_are_noticed():
    score, labels = make(0, 5000, "uniform", np.float32)
    whole = tt.ScoreTally(3).update(score, labels)
    with pytest.raises(RuntimeError, match="not those of the tally"):
        refined_bins(whole, 50, [(score[:2500], [rater[:2500] for rater in labels], None)])
