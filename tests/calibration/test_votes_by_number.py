"""The voxels that exactly k raters mark: exact for every number of raters, spill and dtype."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import KINDS, sample
from threadpoolctl import threadpool_limits

import twintrack as tt

# Up to six raters share an entry with their numbers of votes, seven have narrower fields, more are
# counted in groups of seven that do not know each other's votes.
RATERS = (1, 2, 3, 5, 6, 7, 8, 14, 15)


def case(raters, seed=0, voxels=60_000, kind="uniform", dtype=np.float32):
    rng = np.random.default_rng(seed)
    score = sample(rng, voxels, kind, dtype)
    marks = rng.random((raters, voxels)) < score.astype(float) ** (1 + np.arange(raters)[:, None])
    return score, list(marks)


def assert_counts_by_number(made, score, marks):
    """A voxel of k votes is in column k of its cell: as if it had been tallied with its like."""
    votes = np.sum(marks, axis=0)
    for k in range(1, len(marks) + 1):
        like = tt.ScoreTally(1).update(score[votes == k], [np.zeros((votes == k).sum(), bool)])
        used = made.exactly[:, k - 1] > 0
        assert np.array_equal(made.cells[used], like.cells)
        assert np.array_equal(made.exactly[used, k - 1], like.counts)


@pytest.mark.parametrize("raters", RATERS)
@pytest.mark.parametrize("kind", KINDS)
def test_voxels_are_counted_by_their_number_of_votes(raters, kind):
    score, marks = case(raters, kind=kind)
    made = tt.ScoreTally(raters).update(score, marks)
    assert made.counts_votes
    assert_counts_by_number(made, score, marks)


@pytest.mark.parametrize("raters", RATERS)
@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 700)), min_size=5, max_size=20),
)
def test_runs_of_ties_are_counted_as_single_voxels_are(raters, seed, dtype, runs):
    """Fields of an entry must not overflow into each other, however runs and voxels alternate."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([[0, 1], rng.random(4)]).astype(dtype)
    patterns = rng.integers(0, 2, (6, raters), dtype=np.uint8) | (np.arange(6) == 1)[:, None]
    which = np.concatenate([np.full(length, at) for at, length in runs])
    score, marks = values[which], list(patterns[which].T)
    assert_counts_by_number(tt.ScoreTally(raters).update(score, marks), score, marks)


@pytest.mark.parametrize("raters", [5, 7, 9])
def test_numbers_of_votes_do_not_depend_on_threads_or_order(raters):
    score, marks = case(raters, voxels=300_000)
    with threadpool_limits(1, "openmp"):
        one = tt.ScoreTally(raters).update(score, marks)
    with threadpool_limits(3, "openmp"):
        backwards = [rater[::-1] for rater in marks]
        parts = [slice(k, None, 3) for k in range(3)]
        made = [
            tt.ScoreTally(raters).update(score[::-1][own], [rater[own] for rater in backwards])
            for own in parts
        ]
    assert made[2] + (made[0] + made[1]) == one


@pytest.mark.parametrize("raters", [5, 7, 9])
def test_a_refused_case_leaves_no_number_of_votes_behind(raters):
    """What was counted before the bad voxel was met must not turn up in the next case."""
    score, marks = case(raters, voxels=300_000)
    tally = tt.ScoreTally(raters)
    bad = score.copy()
    bad[-1] = 2
    with pytest.raises(ValueError, match=r"score\[299999\] is 2"):
        tally.update(bad, marks)
    assert tally.update(score, marks) == tt.ScoreTally(raters).update(score, marks)


def test_more_raters_than_votes_are_counted_for_are_refused():
    score = np.zeros(3, np.float32)
    assert tt.ScoreTally(255).update(score, np.ones((255, 3))).exactly[0, 254] == 3
    with pytest.raises(ValueError, match="raters is 256; it must be a whole number, from 1 to 255"):
        tt.ScoreTally(256)
