"""The bootstrap: its formulas against SciPy's, its invariants, and little or broken data."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from twintrack.statistics import bootstrap, paired_bootstrap, resampled_means, resampling


def skewed(seed, *shape):
    return np.random.default_rng(seed).gamma(0.7, 5.0, size=shape)


FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)
TABLES = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=FINITE
)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_interval_is_scipys_on_the_same_resamples(method):
    # Wrong quantiles, or a wrong bias or acceleration of BCa.
    sample = skewed(1, 23)
    means = resampled_means(sample[:, np.newaxis], 400, seed=3)[0]
    theirs = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=0, confidence_level=0.9, method=method,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=means),
    )  # fmt: skip
    ours = bootstrap(sample, resamples=400, seed=3, level=0.9, method=method)
    np.testing.assert_allclose([ours.low, ours.high], list(theirs.confidence_interval), rtol=1e-12)
    assert ours.mean == pytest.approx(means.mean(), rel=1e-12)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_interval_is_near_scipys_own_draws(method):
    # Draws that are not uniform over the cases.
    sample = skewed(2, 40)
    theirs = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(0)
    )
    ours = bootstrap(sample, resamples=20_000, method=method)
    error = theirs.standard_error
    # The ends of 20 000 draws have a Monte Carlo error of about 0.02 standard errors.
    np.testing.assert_allclose(
        [ours.low, ours.high], list(theirs.confidence_interval), rtol=0, atol=0.1 * error
    )


def test_every_case_is_drawn_equally_often():
    # An off-by-one in the drawn index would leave out the first or last case.
    shares = resampled_means(np.eye(7), 4000, seed=0).mean(axis=1)
    np.testing.assert_allclose(shares, 1 / 7, atol=0.01)
    assert shares.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("method", "least"), [("percentile", 0.92), ("bca", 0.92)])
def test_interval_covers_the_true_mean(method, least):
    samples = np.random.default_rng(4).normal(2, 3, size=(60, 800))
    result = bootstrap(samples, resamples=600, method=method)
    covered = np.mean((result.low < 2) & (result.high > 2))
    assert least < covered < 0.975


def test_bca_leans_towards_the_long_tail():
    # A sign error in the acceleration would lean the other way.
    sample = skewed(5, 30)
    percentile, bca = bootstrap(sample), bootstrap(sample, method="bca")
    assert bca.low > percentile.low
    assert bca.high > percentile.high


@settings(max_examples=30)
@given(TABLES, st.integers(0, 3))
def test_same_seed_same_result_and_mean_inside_interval(table, seed):
    first, again = (bootstrap(table, resamples=50, seed=seed) for _ in range(2))
    for name in ("mean", "low", "high", "observed", "cases"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert getattr(first, name).shape == table.shape[1:]
    if len(table) > 1:
        rounding = 1e-12 * np.abs(table).max()
        assert (first.low <= first.mean + rounding).all()
        assert (first.mean <= first.high + rounding).all()
        assert (first.low >= table.min(axis=0) - rounding).all()
        assert (first.high <= table.max(axis=0) + rounding).all()


@settings(max_examples=30)
@given(TABLES, st.floats(-1e3, 1e3), st.sampled_from([0.5, 2.0, -4.0]))
def test_result_shifts_and_scales_with_the_values(table, shift, scale):
    ours = bootstrap(table, resamples=60)
    moved = bootstrap(scale * table + shift, resamples=60)
    low, high = (ours.low, ours.high) if scale > 0 else (ours.high, ours.low)
    tolerance = 1e-9 * (1 + np.abs(table).max() * abs(scale) + abs(shift))
    np.testing.assert_allclose(moved.mean, scale * ours.mean + shift, rtol=0, atol=tolerance)
    np.testing.assert_allclose(moved.low, scale * low + shift, rtol=0, atol=tolerance)
    np.testing.assert_allclose(moved.high, scale * high + shift, rtol=0, atol=tolerance)


@settings(max_examples=30)
@given(TABLES)
def test_a_method_does_not_differ_from_itself(table):
    result = paired_bootstrap(table, table, resamples=40)
    assert (result.mean == 0).all()
    assert not result.significant.any()


def test_columns_share_their_draws():
    # Pairing across calls: the table of means and of differences must rest on the same cases.
    a, b = skewed(6, 2, 31)
    together = bootstrap(np.stack([a, b, a - b], axis=1), resamples=500, seed=9)
    for column, sample in enumerate((a, b, a - b)):
        alone = bootstrap(sample, resamples=500, seed=9)
        assert alone.low == pytest.approx(together.low[column], rel=1e-12)
    paired = paired_bootstrap(a, b, resamples=500, seed=9)
    assert paired.low == pytest.approx(together.low[2], rel=1e-12)
    assert together.mean[0] - together.mean[1] == pytest.approx(together.mean[2], rel=1e-9)


def test_paired_interval_is_narrower_than_the_unpaired_ones():
    # Without pairing the spread between cases would drown a small constant difference.
    rng = np.random.default_rng(7)
    a = rng.normal(0, 10, 40)
    b = a - 0.5 + rng.normal(0, 0.1, 40)
    assert bootstrap(a).low < bootstrap(b).high
    result = paired_bootstrap(a, b)
    assert result.significant
    assert 0.4 < result.low < 0.5 < result.high < 0.6
    assert not paired_bootstrap(a, a + rng.normal(0, 1, 40) - 0.01).significant


def test_reference_is_broadcast_over_methods():
    values = skewed(8, 12, 3, 2)
    result = paired_bootstrap(values, values[:, [2]], resamples=200)
    assert result.mean.shape == (3, 2)
    assert (result.mean[2] == 0).all()
    alone = paired_bootstrap(values[:, 0, 1], values[:, 2, 1], resamples=200)
    assert alone.high == pytest.approx(result.high[0, 1], rel=1e-12)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_undefined_cases_are_as_if_not_given(method):
    values = skewed(9, 20, 3)
    values[[2, 11], 1] = np.nan
    values[:, 2] = np.nan
    result = bootstrap(values, resamples=300, method=method)
    assert result.cases.tolist() == [20, 18, 0]
    kept = np.delete(values[:, 1], [2, 11])
    assert result.low[1] == bootstrap(kept, resamples=300, method=method).low
    assert result.low[0] == pytest.approx(
        bootstrap(values[:, 0], 300, method=method).low, rel=1e-12
    )
    assert np.isnan([result.mean[2], result.low[2], result.high[2], result.observed[2]]).all()


def test_a_case_missing_on_one_side_leaves_the_pair():
    a, b = skewed(10, 2, 15)
    a[3], b[8] = np.nan, np.nan
    result = paired_bootstrap(a, b, resamples=100)
    keep = [i for i in range(15) if i not in (3, 8)]
    assert result.cases == 13
    assert result.high == paired_bootstrap(a[keep], b[keep], resamples=100).high


def test_one_case_has_a_mean_but_no_interval():
    # An interval of width 0 would make every difference of a single case significant.
    result = paired_bootstrap([3.0], [1.0])
    assert result.mean == result.observed == 2
    assert np.isnan([result.low, result.high]).all()
    assert not result.significant


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_equal_values_give_exactly_themselves(method):
    # 0.1 is not representable: sums of it, divided again, may differ in the last digit.
    result = bootstrap(np.full(11, 0.1), method=method)
    assert [result.mean, result.low, result.high, result.observed] == [0.1] * 4
    assert paired_bootstrap(np.full(5, 1.5), np.full(5, 1.25), method=method).significant


def test_bca_of_nearly_equal_values_stays_inside_the_data():
    # One odd case: most resampled means tie with neither side; the correction must not overflow.
    sample = np.zeros(12)
    sample[4] = 1
    result = bootstrap(sample, resamples=200, method="bca")
    assert 0 <= result.low <= result.observed <= result.high <= 1


METHODS = st.sampled_from(["percentile", "bca"])


@settings(max_examples=60)
@given(TABLES, st.integers(-1000, 1000), METHODS)
def test_result_scales_exactly_with_powers_of_two(table, power, method):
    # From 1e-300 to 1e300: squares and cubes, sums of cases, differences from the median.
    table = np.where(np.abs(table) < 1, 0, table)  # so that nothing becomes subnormal
    scaled = np.ldexp(table, power - 20)
    ours, theirs = (bootstrap(values, 40, method=method) for values in (table, scaled))
    for name in ("mean", "low", "high", "observed"):
        exact = np.ldexp(getattr(ours, name), power - 20)
        # The mean of values that cancel may be subnormal.
        np.testing.assert_allclose(getattr(theirs, name), exact, rtol=0, atol=5e-324)


MAGNITUDES = st.floats(-300, 300).map(lambda power: 10.0**power)
EXTREMES = st.one_of(st.just(0.0), MAGNITUDES, MAGNITUDES.map(lambda value: -value))
LARGEST = float(np.finfo(np.float64).max)


@settings(max_examples=100)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(2, 12)), elements=EXTREMES),
    METHODS,
    st.sampled_from([1e-16, 0.5, 0.95, 1 - 1e-9, 1 - 1e-15, 1 - 2**-53]),
    st.sampled_from([1, 2, 300]),
)
def test_any_magnitudes_and_levels_have_an_interval_inside_the_data(
    table, method, level, resamples
):
    for values in (table, np.full_like(table, table[0]), table[:2]):
        result = bootstrap(values, resamples, level=level, method=method)
        rounding = 1e-12 * np.abs(values).max()
        assert values.min() - rounding <= result.low <= result.high <= values.max() + rounding


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_largest_doubles_are_numbers(method):
    result = bootstrap([LARGEST, LARGEST, np.nextafter(LARGEST, 0)], 50, method=method)
    assert np.nextafter(LARGEST, 0) <= result.low <= result.mean <= result.high <= LARGEST
    assert bootstrap([-LARGEST, LARGEST], method=method).high == LARGEST
    # The median and the difference to it, both rounded up, add up to more than the largest double.
    quarter = np.ldexp(-(0.25 + 2**-54), 1024)
    assert bootstrap([quarter, quarter, LARGEST], level=1 - 1e-9, method=method).high == LARGEST
    assert bootstrap([5e-324, 5e-324, 0], method=method).high == 5e-324
    with pytest.raises(ValueError, match=r"\(a - b\)\[1\] is inf"):
        paired_bootstrap([0, LARGEST], [0, -LARGEST], method=method)


def test_a_higher_level_has_a_wider_interval():
    # BCa's formula has a pole: past it the upper end would come back from below.
    sample = np.zeros(40)
    sample[3] = 1
    for values in (sample, -sample, skewed(3, 20)):
        levels = [0.5, 0.9, 0.99, 0.9999, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12, 1 - 1e-15, 1 - 2**-53]
        results = [bootstrap(values, 400, level=level, method="bca") for level in levels]
        lows, highs = ([float(getattr(r, name)) for r in results] for name in ("low", "high"))
        assert lows == sorted(lows, reverse=True)
        assert highs == sorted(highs)
    means = resampled_means(sample[:, np.newaxis], 400, seed=0)
    whole = bootstrap(sample, 400, level=1 - 2**-53)
    assert [whole.low, whole.high] == [means.min(), means.max()]


@pytest.mark.parametrize("resamples", [1, 2, 5])
def test_bca_of_draws_that_are_all_on_one_side_is_defined(resamples):
    # The bias would be infinite, and the ends of the interval nowhere.
    sample = skewed(12, 9)
    for seed in range(20):
        result = bootstrap(sample, resamples=resamples, seed=seed, method="bca")
        assert sample.min() <= result.low <= result.high <= sample.max()


def test_chunks_of_draws_do_not_change_them(monkeypatch):
    # Memory is bounded by drawing in pieces; the draws must not know.
    sample = skewed(11, 50, 2)
    whole = resampled_means(sample, 333, seed=5)
    monkeypatch.setattr(resampling, "_DRAWN_AT_ONCE", 7 * 50)
    np.testing.assert_allclose(resampled_means(sample, 333, seed=5), whole, rtol=1e-12)


def test_integers_and_booleans_are_numbers():
    assert bootstrap([True, False, True, True]).observed == 0.75
    assert bootstrap(np.arange(5, dtype=np.uint8)).observed == 2


class NAType:
    """As pandas.NA: no number, not equal to anything, of no truth."""

    def __float__(self):
        raise TypeError("no number")

    def __eq__(self, other):
        return self

    __hash__ = None

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize("missing", [None, NAType(), np.nan])
def test_every_way_to_say_that_a_figure_is_undefined(missing):
    """Tables of pandas with nullable columns are arrays of objects."""
    table = [[0.1, 0.5], [0.2, missing], [np.float32(0.25), 1]]
    expected = bootstrap([[0.1, 0.5], [0.2, np.nan], [0.25, 1.0]])
    for array in (table, np.array(table, object)):
        assert bootstrap(array) == expected
    np.testing.assert_array_equal(expected.cases, [3, 2])
    column = [row[1] for row in table]
    paired = paired_bootstrap(column, [0, 0, missing])
    assert (paired.cases, paired.observed) == (1, 0.5)
    assert bootstrap(np.array([missing, True, np.False_], object)).observed == 0.5


def test_tables_of_pandas_are_taken_as_they_are():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"ece": [0.1, 0.2, 0.3], "tdsc": [0.5, None, 0.7]})
    expected = bootstrap(table.to_numpy(float))
    assert bootstrap(table.convert_dtypes()) == expected
    assert bootstrap(table.astype(object).where(table.notna(), None)) == expected
    assert bootstrap(table.convert_dtypes()["tdsc"]) == bootstrap([0.5, np.nan, 0.7])


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([], ValueError, "counts cases, of which one is needed"),
        (1.0, ValueError, "counts cases, of which one is needed"),
        ([[1.0, 2.0], [1.0, np.inf]], ValueError, r"values\[1, 1\] is inf"),
        (["a", "b"], TypeError, "real numbers"),
        ([1j], TypeError, "real numbers"),
        ([1.0, None, "0.3"], TypeError, r"values\[2\] is '0.3'; real numbers are needed, and NaN"),
        ([[None, 1j]], TypeError, r"values\[0, 1\] is 1j"),
        ([None, np.inf], ValueError, r"values\[1\] is inf"),
    ],
)
def test_bad_values_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        bootstrap(values)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"resamples": 0}, "resamples is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"level": 95}, "level is 95"),
        ({"level": 0.0}, "level is 0"),
        ({"method": "BCa"}, "method is 'BCa'"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        bootstrap([1.0, 2.0], **setting)


def test_unequal_numbers_of_cases_are_refused():
    with pytest.raises(ValueError, match="a has 3 cases and b 2"):
        paired_bootstrap([1, 2, 3], [1, 2])
    with pytest.raises(TypeError):
        bootstrap([1.0, 2.0], resamples=10.5)


# --- groups of cases ------------------------------------------------------------------------------


def drawn_groups(values, groups, resamples, seed):
    """Means over drawn groups, group by group and draw by draw, as a textbook has it."""
    names = list(dict.fromkeys(groups))
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = [names[k] for k in rng.integers(len(names), size=len(names))]
        means.append(
            np.mean([v for g in drawn for v, h in zip(values, groups, strict=True) if g == h])
        )
    return np.array(means)


GROUPS = [*"abacabdddeffffg"]


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_groups_are_drawn_whole(level):
    values = skewed(3, len(GROUPS))
    means = drawn_groups(values, GROUPS, 300, seed=5)
    found = bootstrap(values, 300, 5, level, groups=GROUPS)
    tails = [(1 - level) / 2, (1 + level) / 2]
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, tails), rtol=1e-12)
    assert found.mean == pytest.approx(means.mean(), rel=1e-12)
    assert found.observed == pytest.approx(values.mean(), rel=1e-12)  # all cases count the same
    assert (found.cases, found.groups) == (15, 7)
    paired = paired_bootstrap(values, values - 1 + skewed(4, 15), 300, 5, level, groups=GROUPS)
    expected = drawn_groups(1 - skewed(4, 15), GROUPS, 300, seed=5)
    np.testing.assert_allclose([paired.low, paired.high], np.quantile(expected, tails), rtol=1e-10)


def test_bca_of_groups_has_the_acceleration_of_their_influence():
    values = skewed(6, len(GROUPS))
    found = bootstrap(values, 500, 1, method="bca", groups=GROUPS)
    means = drawn_groups(values, GROUPS, 500, seed=1)
    names = list(dict.fromkeys(GROUPS))
    influence = np.array(
        [
            sum(v - values.mean() for v, g in zip(values, GROUPS, strict=True) if g == n)
            for n in names
        ]
    )
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    tied = np.isclose(means, values.mean(), rtol=1e-12)  # each group once: these count half
    below = (means < values.mean()) & ~tied
    bias = scipy.stats.norm.ppf((below + 0.5 * tied).mean())
    shifted = bias + scipy.stats.norm.ppf([0.025, 0.975])
    at = scipy.stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, at), rtol=1e-9)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_group_for_every_case_gives_the_very_numbers_without(method):
    values = skewed(7, 12, 3)
    values[4, 1] = np.nan
    names = [f"patient {(5 * k) % 12}" for k in range(12)]
    for groups in (names, range(12), np.arange(12)[::-1], [None] * 12, [np.nan] * 12):
        assert bootstrap(values, 200, method=method, groups=groups) == bootstrap(
            values, 200, method=method
        )


def test_groups_without_a_value_are_as_if_they_had_not_been_given():
    values = skewed(8, 6)
    groups = [*"abacbc"]
    values[0] = np.nan  # then b comes first
    kept = bootstrap(values[1:], 200, groups=groups[1:])
    assert bootstrap(values, 200, groups=groups) == kept
    values[[3, 5]] = np.nan
    assert bootstrap(values, 200, groups=groups).groups == 2
    values[2] = np.nan
    alone = bootstrap(values, 200, groups=groups)
    assert (alone.cases, alone.groups) == (2, 1)
    assert alone.mean == alone.observed
    assert np.isnan([alone.low, alone.high]).all()  # one patient says nothing about others


def test_cases_of_one_patient_that_agree_are_one_observation():
    """The reason for all this: copies of a case must not make an interval narrower."""
    values = skewed(9, 10)
    copies, groups = np.repeat(values, 7), np.repeat(np.arange(10), 7)
    ours, single = bootstrap(copies, 400, groups=groups), bootstrap(values, 400)
    np.testing.assert_allclose([ours.low, ours.high], [single.low, single.high], rtol=1e-12)
    assert bootstrap(copies, 400).high - bootstrap(copies, 400).low < 0.6 * (ours.high - ours.low)


def test_bad_groups_are_refused():
    with pytest.raises(ValueError, match="groups has 2 entries for 3 cases"):
        bootstrap([1.0, 2.0, 3.0], groups=["a", "b"])
    with pytest.raises(ValueError, match="groups has 3 entries for 3 cases"):
        bootstrap([1.0, 2.0, 3.0], groups="abc")
    with pytest.raises(TypeError, match=r"groups\[0\] is \['a'\]; it must be a text or a number"):
        bootstrap([1.0, 2.0, 3.0], groups=[["a"], "b", "c"])
