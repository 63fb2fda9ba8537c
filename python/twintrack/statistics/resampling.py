"""Bootstrap over cases: means with confidence intervals, and paired differences between methods.

Cases are the independent units, voxels of one case are not, so whole cases are drawn. Cases of one
patient are not independent either: where groups of cases are given, whole groups are drawn (the
cluster bootstrap). A draw is a row of integers (how often each unit occurs in it) and the resampled
sums of all columns are one matrix product with those rows: every metric and every method sees the
same drawn cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import number_between, whole_number
from twintrack.errors import InputError
from twintrack.statistics.cases import (
    Floats,
    Numbers,
    alike,
    as_table,
    group_numbers,
    paired,
    scaled,
    sums_of_groups,
)

IntervalMethod = Literal["percentile", "bca"]

# Integers drawn at a time, however many cases and resamples there are: some 30 MB with all copies.
_DRAWN_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class BootstrapResult(ByValue):
    """Bootstrap of the mean over cases.

    The arrays have the shape of one case's values; a scalar array for values of shape (cases,).

    Attributes
    ----------
    mean : float64 array
        Mean of the resampled means, the value that the paper's tables show.
    low, high : float64 array
        Ends of the confidence interval. NaN where fewer than two groups have a value: one says
        nothing about the spread between them.
    observed : float64 array
        Mean of the cases themselves, without resampling.
    cases : int64 array
        Cases with a value, the others (NaN) being left out.
    groups : int64 array
        Groups that these cases are of: what is drawn. As many as cases where none were given.
    resamples : int
    level : float
    method : {"percentile", "bca"}
    seed : int
    """

    mean: Floats
    low: Floats
    high: Floats
    observed: Floats
    cases: NDArray[np.int64]
    groups: NDArray[np.int64]
    resamples: int
    level: float
    method: IntervalMethod
    seed: int


@dataclass(frozen=True, eq=False)
class PairedBootstrapResult(BootstrapResult):
    """Bootstrap of the mean difference a − b over the same cases."""

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Whether the interval excludes 0. False where there is no interval.

        The paper's rule. With few groups alone it is not enough: where there is no difference it
        is met in 50% of comparisons of 2 cases, 16% of 5, 10% of 10 (`sign_flip_test`).
        """
        return np.asarray((self.low > 0) | (self.high < 0))


def bootstrap(
    values: ArrayLike,
    resamples: int = 5000,
    seed: int = 0,
    level: float = 0.95,
    method: IntervalMethod = "percentile",
    groups: Sequence[Any] | None = None,
) -> BootstrapResult:
    """Bootstrap the mean over cases.

    Parameters
    ----------
    values
        Shape (cases,) or (cases, …), for instance (cases, methods, metrics); a table of pandas,
        too. NaN, None or pandas.NA says that a metric is undefined for a case: the case is left out
        of that column, exactly as if it had not been given, and `cases` reports how many were used.
    resamples
        Draws of as many cases as there are, with replacement.
    seed
        Of NumPy's ``default_rng``. Columns with the same number of cases share their draws, in one
        call and between calls.
    level
        Coverage aimed at, in (0, 1). For one that needs more resamples than there are the interval
        ends at the lowest and the highest resampled mean.
    method
        "percentile": quantiles of the resampled means, linear between them; what the paper reports.
        "bca": the quantiles corrected for bias and skewness (B. Efron, "Better bootstrap confidence
        intervals", JASA 82, 1987), better for skewed metrics such as CRPS. Both are too narrow for
        few cases: with ten normal cases a 95% interval covers about 90%.
    groups
        One entry per case: the patient, say, of whom there are several cases; None or NaN is a
        group of its own. As many groups as there are are drawn, each with all of its cases, and a
        resampled mean is that of the drawn cases, which all count the same. BCa's acceleration is
        then that of the groups' influence on the mean. With a group for every case nothing
        changes.

    Raises
    ------
    ValueError
        No cases, an infinite value, or a parameter out of its range.
    TypeError
        Values that are not real numbers, or a count that is not an integer.
    """
    table = as_table(values, "values")
    return BootstrapResult(*_bootstrapped(table, resamples, seed, level, method, groups))


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    resamples: int = 5000,
    seed: int = 0,
    level: float = 0.95,
    method: IntervalMethod = "percentile",
    groups: Sequence[Any] | None = None,
) -> PairedBootstrapResult:
    """Bootstrap the mean of a − b, both on the same drawn cases.

    Parameters
    ----------
    a, b
        Shape (cases, …), row i of both being the same case; further axes are broadcast, so that
        (cases, methods, metrics) can be compared with (cases, 1, metrics). A case that is
        undefined in either is left out of that column.
    resamples, seed, level, method, groups
        As in `bootstrap`.

    Raises
    ------
    ValueError, TypeError
        As in `bootstrap`, and when the numbers of cases differ or a − b is too large for a double.
    """
    _, _, difference = paired(a, b)
    return PairedBootstrapResult(*_bootstrapped(difference, resamples, seed, level, method, groups))


def _bootstrapped(
    table: Floats,
    resamples: int,
    seed: int,
    level: float,
    method: IntervalMethod,
    groups: Sequence[Any] | None,
) -> tuple[Any, ...]:
    """Return the fields of a `BootstrapResult`."""
    if method not in get_args(IntervalMethod):
        raise InputError(
            f"choose from {', '.join(get_args(IntervalMethod))}", argument="method", value=method
        )
    resamples, seed = whole_number(resamples, "resamples", 1), whole_number(seed, "seed", 0)
    level = number_between(level, "level", 0, 1)
    intervals = _intervals(table, group_numbers(groups, len(table)), resamples, seed, level, method)
    return (*intervals, resamples, level, method, seed)


def _intervals(
    table: Floats,
    groups: Numbers,
    resamples: int,
    seed: int,
    level: float,
    method: IntervalMethod,
) -> tuple[Floats, Floats, Floats, Floats, Numbers, Numbers]:
    """Mean, low, high, observed, cases and groups of every column, in the shape of one case."""
    columns = table.reshape(len(table), -1)
    mean, low, high, observed = np.full((4, columns.shape[1]), np.nan)
    drawn_from = np.zeros(columns.shape[1], np.int64)
    for used, members in alike(columns):
        sample, exponent = scaled(columns[np.ix_(used, members)])
        # Sums of differences from a value of the data itself: exact zeros where all cases agree.
        pivot = np.median(sample, axis=0)
        deviations = sample - pivot
        observed[members] = _unscaled(pivot + deviations.mean(axis=0), exponent)
        sizes, sums = sums_of_groups(deviations, groups[used])
        drawn_from[members] = len(sizes)
        if len(sizes) == 1:
            mean[members] = observed[members]
            continue
        means = resampled_means(sums, resamples, seed, sizes)
        mean[members] = _unscaled(pivot + means.mean(axis=1), exponent)
        means.sort(axis=1)
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        at = np.broadcast_to(tails, (len(members), 2))
        if method == "bca":
            at = _bca_quantiles(sums, sizes, deviations.mean(axis=0), means, tails)
        low[members], high[members] = _unscaled(pivot + _quantiles(means, at).T, exponent)
    cases = (~np.isnan(columns)).sum(axis=0, dtype=np.int64)
    found = (part.reshape(table.shape[1:]) for part in (mean, low, high, observed))
    return (*found, cases.reshape(table.shape[1:]), drawn_from.reshape(table.shape[1:]))


def _unscaled(values: Floats, exponent: NDArray[np.int32]) -> Floats:
    # Rounding may reach 1, which no value does, and which may stand for more than a double holds.
    below = np.nextafter(1, 0)
    return np.ldexp(np.clip(values, -below, below), exponent)


def resampled_means(
    sums: Floats, resamples: int, seed: int, sizes: Numbers | None = None
) -> Floats:
    """Means over drawn groups of cases: shape (columns, resamples).

    `sums`, (groups, columns), are those of the cases in each group, of which there are `sizes`, one
    by default. The draws depend on the seed and the number of groups alone; memory beyond the
    result does not grow with either.
    """
    cases, columns = sums.shape
    drawn_cases = np.full(resamples, float(cases))
    rng = np.random.default_rng(seed)
    means = np.empty((columns, resamples))
    step = max(1, _DRAWN_AT_ONCE // cases)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(cases, size=(rows, cases))
        drawn += np.arange(0, rows * cases, cases)[:, np.newaxis]
        times = np.bincount(drawn.ravel(), minlength=rows * cases).reshape(rows, cases)
        means[:, start : start + rows] = sums.T @ times.T.astype(np.float64)
        if sizes is not None:
            drawn_cases[start : start + rows] = times @ sizes
    means /= drawn_cases
    return means


def _quantiles(ordered: Floats, at: Floats) -> Floats:
    """Quantiles `at`, (columns, q), of ascending rows, linear between the order statistics."""
    position = at * (ordered.shape[1] - 1)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, ordered.shape[1] - 1)
    start = np.take_along_axis(ordered, below, axis=1)
    # Written as a step from `start`, so that equal neighbours give exactly their value.
    step: Floats = np.take_along_axis(ordered, above, axis=1) - start
    return np.asarray(start + (position - below) * step)


def _bca_quantiles(
    sums: Floats, sizes: Numbers, observed: Floats, ordered: Floats, tails: Floats
) -> Floats:
    """Which quantiles of the resampled means end a BCa interval: shape (columns, tails).

    Efron 1987, with the acceleration from the empirical influence of each group on the mean, which
    is proportional to its sum − its size · mean: for groups of one case to xᵢ − mean, as the
    deviations of the jackknife values. So it needs no second resampling.
    """
    resamples = ordered.shape[1]
    centred = sums - sizes[:, np.newaxis] * observed
    # Resampled means equal to the observed one count half: they are many when values are tied.
    at = observed[:, np.newaxis]
    share = ((ordered < at).sum(axis=1) + (ordered <= at).sum(axis=1)) / (2 * resamples)
    # With all draws on one side the correction would be infinite.
    from scipy.special import ndtr, ndtri  # a tenth of a second that only BCa needs

    bias = ndtri(np.clip(share, 0.5 / resamples, 1 - 0.5 / resamples))[:, np.newaxis]
    spread = (centred**2).sum(axis=0) ** 1.5
    acceleration = np.divide(
        (centred**3).sum(axis=0), 6 * spread, out=np.zeros_like(spread), where=spread > 0
    )[:, np.newaxis]
    shifted = bias + ndtri(np.minimum(tails, np.nextafter(1, 0)))  # the next level to 1 rounds to 1
    slope = 1 - acceleration * shifted
    # Where it is 0 the correction is infinite: from there on the interval ends with the resamples.
    ends = np.divide(shifted, slope, out=np.copysign(np.inf, shifted), where=slope > 0)
    return np.asarray(ndtr(bias + ends))
