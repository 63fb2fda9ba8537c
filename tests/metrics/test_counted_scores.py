"""Voxels added as rows of one score: the sums of the same voxels one by one, bit for bit."""

import numpy as np
import pytest
from case_reference import THRESHOLDS
from hypothesis import given, settings
from hypothesis import strategies as st

from twintrack import _core
from twintrack.metrics import CaseTally

DTYPES = ("float16", "bfloat16", "float32", "float64")


def few_scores(dtype, seed):
    """Values of a dtype, among them what divides scores, and its neighbours; bfloat16 as V2."""
    rng = np.random.default_rng(seed)
    edges = _core.uniform_bin_edges(50).astype(float)
    at = np.concatenate([edges, 1 - edges, THRESHOLDS, [0.5, 2.0**-24, 1e-8, 1e-40], rng.random(9)])
    if dtype == "bfloat16":
        bits = (at.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return rng.choice(np.concatenate([bits, np.maximum(bits, 1) - 1]), 30).view("V2")
    at = at.astype(dtype)
    down, up = np.nextafter(at, at.dtype.type(0)), np.nextafter(at, at.dtype.type(1))
    return rng.choice(np.concatenate([at, down, up, [at.dtype.type(-0.0)]]), 30)


def voxels(dtype, seed, raters, number=3000):
    """Which of the few scores each voxel has, and who marks it."""
    rng = np.random.default_rng(seed)
    which = np.where(rng.random(number) < 0.5, 0, rng.integers(0, 30, number))
    return few_scores(dtype, seed), which, rng.random((raters, number)) < rng.random(number)


def rows_of(values, which, marks):
    """The voxels as rows: a column that nobody reads, votes by rater and by number."""
    votes = np.sum(marks, axis=0)
    columns = [np.ones(which.size), np.full(which.size, 7), *marks]
    columns += [votes == k for k in range(1, len(marks) + 1)]
    counted = [np.bincount(which, column, len(values)).astype(np.uint64) for column in columns]
    return np.stack(counted, axis=1)


def same_sums(one, other):
    mine, theirs = one.by_set(), other.by_set()
    return mine.keys() == theirs.keys() and all(
        np.array_equal(mine[raters].sums, theirs[raters].sums) for raters in mine
    )


@settings(max_examples=60)
@given(
    st.sampled_from(DTYPES),
    st.integers(1, 9),
    st.sampled_from([1, 2, 7, 50]),
    st.integers(0, 2**32 - 1),
)
def test_rows_give_the_sums_of_their_voxels(dtype, raters, bins, seed):
    """Also at what divides scores: thresholds, edges of bins, the last bits before them."""
    values, which, marks = voxels(dtype, seed, raters)
    sums = rows_of(values, which, marks)
    counted = CaseTally(raters, bins).add_rows(tuple(range(raters)), values, sums)
    assert same_sums(counted, CaseTally(raters, bins).update(values[which], list(marks)))


def test_more_voxels_than_a_product_of_64_bits_holds():
    """Some 2^59 voxels of scores that take 46 bits."""
    values, which, marks = voxels("float32", 3, 3)
    sums = rows_of(values, which, marks)
    many = CaseTally(3).add_rows((0, 1, 2), values, sums << np.uint64(48))
    doubled = CaseTally(3).add_rows((0, 1, 2), values, sums)
    for _ in range(48):
        doubled = doubled + doubled
    assert same_sums(many, doubled)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda values, _: values.__setitem__(3, 1.5), r"score .*outside \[0, 1\] in row 3"),
        (lambda values, _: values.__setitem__(3, np.nan), r"score .*outside \[0, 1\] in row 3"),
        (lambda _, sums: sums.__setitem__((2, 3), sums[2, 0] + np.uint64(1)), "sums .*in row 2"),
        (lambda _, sums: sums.__setitem__((2, 5), sums[2, 5] + np.uint64(1)), "sums .*in row 2"),
        (lambda _, sums: sums.__setitem__((2, 0), np.uint64(0)), "sums .*in row 2"),
    ],
)
def test_rows_that_cannot_be_are_refused_and_nothing_is_added(damage, message):
    values, *rest = voxels("float32", 5, 3)
    sums = rows_of(values, *rest)
    damage(values, sums)
    tally = CaseTally(3)
    with pytest.raises(ValueError, match=message):
        tally.add_rows((0, 1, 2), values, sums)
    assert tally.voxels == 0


def test_rows_of_other_raters_are_refused():
    values, *rest = voxels("float32", 5, 3)
    sums = rows_of(values, *rest)
    with pytest.raises(ValueError, match="sums has 8 columns; 2 raters need 6"):
        CaseTally(2).add_rows((0, 1), values, sums)
