"""The sign-flip test: against all signs in turn and SciPy's, ties, groups, and rounding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import twintrack as tt
from twintrack.statistics import sign_flip
from twintrack.statistics.sign_flip import EXACT, sign_flip_test


def test_of(differences, **settings):
    return sign_flip_test(differences, np.zeros(np.shape(differences)), **settings)


test_of.__test__ = False


def by_all_signs(sums):
    """Share of choices of signs, in turn, for which integer sums are at least as far from 0."""
    far = [
        abs(sum(sign * value for sign, value in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    return np.mean(np.array(far) >= abs(sum(sums)))


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_p_is_the_share_of_all_choices_of_signs(values):
    assert test_of([float(value) for value in values]).p == by_all_signs(values)


@pytest.mark.parametrize("size", [6, 9, 12])
def test_p_is_scipys(size):
    for seed in range(5):
        a, b = np.random.default_rng(seed).gamma(1.5, size=(2, size)) + np.array([[0.8], [0.0]])
        theirs = scipy.stats.permutation_test(
            (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
            vectorized=True, n_resamples=np.inf,
        )  # fmt: skip
        assert tt.sign_flip_test(a, b).p == pytest.approx(theirs.pvalue, rel=1e-12)


def test_exact_and_drawn_agree(monkeypatch):
    values = np.random.default_rng(3).normal(0.4, 1, size=(EXACT, 4))
    exact = test_of(values).p
    monkeypatch.setattr(sign_flip, "EXACT", EXACT - 1)
    drawn = test_of(values, draws=40_000).p
    assert not np.array_equal(exact, drawn)
    np.testing.assert_allclose(drawn, exact, atol=5 * np.sqrt(0.25 / 40_000))


def test_many_are_drawn_and_the_observed_counts():
    values = np.ones(EXACT + 1)
    assert test_of(values, draws=999).p == 1 / 1000
    found = test_of(np.random.default_rng(0).normal(0.3, 1, 50), draws=999)
    assert found.p * 1000 == pytest.approx(round(float(found.p) * 1000))


def test_the_same_seed_gives_the_same_p_in_any_pieces(monkeypatch):
    values = np.random.default_rng(1).normal(0.2, 1, size=(60, 3))
    first = test_of(values, seed=5)
    assert first == test_of(values, seed=5)
    assert first.p.tolist() != test_of(values, seed=6).p.tolist()
    alone = test_of(values[:, 1], seed=5)
    assert alone.p == first.p[1]  # columns share their draws
    monkeypatch.setattr(sign_flip, "_DRAWN_AT_ONCE", 7 * 60)
    assert test_of(values, seed=5) == first


def test_few_values_cannot_have_a_small_p():
    for size in range(1, 9):
        assert test_of(np.arange(1.0, size + 1)).p == 2 / 2**size
    assert test_of(np.arange(1.0, 6)).p > 0.05 > test_of(np.arange(1.0, 7)).p


def test_a_column_has_its_own_number_of_values():
    values = np.random.default_rng(2).normal(3, 1, size=(40, 2))
    values[3:, 1] = np.nan
    found = test_of(values)
    assert found.groups.tolist() == found.cases.tolist() == [40, 3]
    assert found.p[0] < 0.001
    assert found.p[1] == 0.25
    nothing = test_of(np.full(5, np.nan))
    assert np.isnan(nothing.p)
    assert nothing.groups == 0


@pytest.mark.parametrize("size", [10, EXACT + 10])
def test_equal_methods_have_p_1(size):
    values = np.random.default_rng(4).random(size)
    assert sign_flip_test(values, values).p == 1
    flat = np.resize([1.0, -1.0], size)  # a mean of 0 is as near as can be
    assert test_of(flat).p == 1


def test_cases_without_a_difference_do_not_help():
    # 37 zeros and 3 differences are 3 differences.
    values = np.zeros(40)
    values[:3] = 1, 2, 4
    assert test_of(values, draws=20_000).p == pytest.approx(0.25, abs=0.02)
    assert test_of(values[:20]).p == 0.25


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e200, 5e-324 * 2**60])
def test_ties_stay_ties_however_they_are_rounded(scale):
    # In tenths all of these tie; in binary 0.1 + 0.2 is not 0.3.
    tenths = [1, 2, 3, 1, 2, 3, 4, 4]
    values = np.array([k / 10 for k in tenths])
    assert sum(values[:3]) - 2 * values[2] != 0  # the rounding that could flip a tie
    assert test_of(values * scale).p == by_all_signs(tenths)
    hidden = np.arange(8) / 7 + 0.3
    assert sign_flip_test(hidden + values, hidden).p == by_all_signs(tenths)


def test_differences_within_rounding_are_none():
    base = np.full(30, 1e6)
    assert sign_flip_test(np.nextafter(base, np.inf), base).p == 1
    assert sign_flip_test([1e300] * 8, [np.nextafter(1e300, 0)] * 8).p == 1
    assert sign_flip_test(base + 1e-3 * np.arange(30), base).p < 0.001


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 12)), elements=st.floats(-1e6, 1e6)),
    st.sampled_from([-1.0, 0.25, 2.0**40]),
)
def test_p_has_no_unit_and_no_side(values, scale):
    assert test_of(values * scale).p == test_of(values).p
    assert test_of(values[::-1]).p == test_of(values).p


def test_groups_flip_together():
    values = np.array([3, 1, -2, 5, 4, 4, -1, 2, 6.0])
    groups = [*"abacbddea"]
    sums = [sum(v for v, g in zip(values, groups, strict=True) if g == name) for name in "abcde"]
    found = test_of(values, groups=groups)
    assert found.p == by_all_signs([int(total) for total in sums])
    assert (found.cases, found.groups) == (9, 5)
    assert found.p > test_of(values).p
    own = test_of(values, groups=range(9))
    assert own == test_of(values)


def test_a_group_counts_where_it_has_a_value():
    values = np.array([[1.0, 1], [2, np.nan], [3, 3], [4, np.nan]])
    found = test_of(values, groups=[*"aabb"])
    assert found.groups.tolist() == [2, 2]
    values[2, 1] = np.nan
    assert test_of(values, groups=[*"aabb"]).groups.tolist() == [2, 1]


def test_p_below_5_in_100_is_met_by_chance_in_5_of_100():
    rng = np.random.default_rng(8)
    for size in (6, 10, 40):
        p = test_of(rng.standard_t(2, size=(size, 4000)), draws=2000).p
        assert np.mean(p < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
        assert np.mean(p < 0.5) > 0.4


def test_reference_is_broadcast_over_methods():
    values = np.random.default_rng(5).random((9, 3, 2))
    found = sign_flip_test(values, values[:, [2]])
    assert found.p.shape == (3, 2)
    assert (found.p[2] == 1).all()
    assert found.p[0, 1] == sign_flip_test(values[:, 0, 1], values[:, 2, 1]).p


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="a has 3 cases and b 2"):
        sign_flip_test([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="draws is 0"):
        sign_flip_test([1.0], [2.0], draws=0)
    with pytest.raises(ValueError, match=r"a\[1\] is inf"):
        sign_flip_test([1, np.inf], [1, 2])
    with pytest.raises(ValueError, match="groups has 1 entries for 2 cases"):
        sign_flip_test([1, 2], [1, 2], groups=["a"])
