"""Voxels added as rows of one score: the sums of the same voxels one by one, bit for bit."""

import numpy as np
import pytest
from case_reference import THRESHOLDS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import xlog1py, xlogy

from twintrack import _core
from twintrack.arrays.cell_rows import CellRows
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


def rows_of(values, which, marks, widths=(np.uint64,), step=1):
    """The voxels as rows: their number, votes by rater and by number, in columns as stored."""
    votes, raters = np.sum(marks, axis=0), len(marks)
    columns = [np.ones(which.size), *marks, *(votes == k for k in range(1, raters + 1))]
    stored = []
    for k, column in enumerate(columns):
        place = np.zeros(len(values) * abs(step), widths[k % len(widths)])[::step]
        place[:] = np.bincount(which, column, len(values))
        stored.append(place)
    return of_columns(stored)


def of_columns(columns):
    raters = len(columns) // 2
    score = np.zeros(len(columns[0]))  # is not looked at
    return CellRows(score, columns[0], columns[1 : 1 + raters], columns[1 + raters :])


def added(tally, values, rows):
    tally.add_rows(tuple(range(tally.raters)), values, rows)
    return tally


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
    st.lists(st.sampled_from([np.uint16, np.uint32, np.uint64]), min_size=1),
    st.sampled_from([1, 2, -1, -3]),
    st.integers(0, 2**32 - 1),
)
def test_rows_give_the_sums_of_their_voxels(dtype, raters, bins, widths, step, seed):
    """Also at what divides scores: thresholds, edges of bins, the last bits before them."""
    values, which, marks = voxels(dtype, seed, raters)
    rows = rows_of(values, which, marks, widths, step)
    counted = added(CaseTally(raters, bins), values, rows)
    assert same_sums(counted, CaseTally(raters, bins).update(values[which], list(marks)))


def test_more_voxels_than_a_product_of_64_bits_holds():
    """Some 2^59 voxels of scores that take 46 bits."""
    values, which, marks = voxels("float32", 3, 3)
    rows = rows_of(values, which, marks)
    more = of_columns([column << np.uint64(48) for column in rows.counts])
    many, doubled = added(CaseTally(3), values, more), added(CaseTally(3), values, rows)
    for _ in range(48):
        doubled = doubled + doubled
    assert same_sums(many, doubled)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda values, _: values.__setitem__(3, 1.5), r"score .*outside \[0, 1\] in row 3"),
        (lambda values, _: values.__setitem__(3, np.nan), r"score .*outside \[0, 1\] in row 3"),
        (lambda _, rows: rows.votes[0].__setitem__(2, rows.voxels[2] + 1), "counts .*in row 2"),
        (lambda _, rows: rows.exactly[0].__setitem__(2, rows.exactly[0][2] + 1), "counts .* row 2"),
        (lambda _, rows: rows.voxels.__setitem__(2, 0), "counts .*in row 2"),
    ],
)
def test_rows_that_cannot_be_are_refused_and_nothing_is_added(damage, message):
    values, *rest = voxels("float32", 5, 3)
    rows = rows_of(values, *rest)
    damage(values, rows)
    tally = CaseTally(3)
    with pytest.raises(ValueError, match=message):
        tally.add_rows((0, 1, 2), values, rows)
    assert tally.voxels == 0


def test_rows_of_other_raters_or_types_are_refused():
    values, *rest = voxels("float32", 5, 3)
    rows = rows_of(values, *rest)
    with pytest.raises(ValueError, match="counts has 7 columns; 2 raters need 5"):
        CaseTally(2).add_rows((0, 1), values, rows)
    with pytest.raises(ValueError, match="counts has a column that is not of unsigned integers"):
        CaseTally(3).add_rows((0, 1, 2), values, rows_of(values, *rest, [np.int64]))
    with pytest.raises(ValueError, match="counts has columns that do not have as many rows"):
        CaseTally(3).add_rows((0, 1, 2), values, rows._replace(voxels=rows.voxels[1:]))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4]))
def test_the_log_loss_is_that_of_the_voxels(seed, raters):
    values, which, marks = voxels("float32", seed, raters)
    p, mhr = values[which].astype(np.float64), np.mean(marks, axis=0)
    with np.errstate(divide="ignore"):
        want = -(xlogy(mhr, p) + xlog1py(1 - mhr, -p)).sum()
    found = CaseTally(raters).add_rows(tuple(range(raters)), values, rows_of(values, which, marks))
    assert found == pytest.approx(want, rel=1e-12)
