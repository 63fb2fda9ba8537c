"""The sign-flip test: whether paired differences lie to one side of 0 by more than chance.

If nothing sets two methods apart, the difference of a patient could as well have had the other
sign. So the mean difference is compared with what it would be under all choices of signs, and p is
the share of choices for which it is at least as far from 0. Whatever the distribution of the
differences, p < 0.05 is then met by chance in at most 5% of comparisons, with any number of
patients (R. A. Fisher, "The design of experiments", 1935, § 21).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import whole_number
from twintrack.statistics.cases import (
    Floats,
    Numbers,
    alike,
    group_numbers,
    paired,
    scaled,
    sums_of_groups,
)

EXACT = 28
"""Up to so many groups all choices of signs are counted, beyond some are drawn."""

# Signs drawn at a time, however many groups and draws there are.
_DRAWN_AT_ONCE = 1 << 20
_ROUNDING = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class SignFlipResult(ByValue):
    """Sign-flip test of the mean difference a - b.

    The arrays have the shape of one case's values; a scalar array for values of shape (cases,).

    Attributes
    ----------
    p : float64 array
        In (0, 1], two-sided; NaN where no case has a value.
    cases, groups : int64 array
        Cases with a value in both, and the groups that these are of. With n groups p is at least
        2 / 2^n: below 6 of them it cannot be less than 0.05.
    draws : int
    seed : int
    """

    p: Floats
    cases: Numbers
    groups: Numbers
    draws: int
    seed: int


def sign_flip_test(
    a: ArrayLike,
    b: ArrayLike,
    draws: int = 10_000,
    seed: int = 0,
    groups: Sequence[Any] | None = None,
) -> SignFlipResult:
    """Test the mean of a − b over the same cases by flipping signs.

    Parameters
    ----------
    a, b
        As in `paired_bootstrap`: shape (cases, …), NaN where undefined.
    draws
        Choices of signs to draw where a column has more than 28 groups: p is then
        (1 + those at least as far) / (1 + draws). Up to 28 groups p is exact.
    seed
        Of NumPy's ``default_rng``. Columns with the same number of groups share their draws.
    groups
        As in `bootstrap`: the differences of a group change their signs together.

    Returns
    -------
    SignFlipResult
        The same bits on any machine: the sums of groups are made whole multiples of a unit, and
        sums of these are exact. What is equal to within all roundings, those of a and b among them,
        counts as equally far, so that no rounding makes p smaller.

    Raises
    ------
    ValueError, TypeError
        As in `paired_bootstrap`.
    """
    first, second, difference = paired(a, b)
    draws, seed = whole_number(draws, "draws", 1), whole_number(seed, "seed", 0)
    numbers = group_numbers(groups, len(difference))
    columns = difference.reshape(len(difference), -1)
    largest = np.fmax(np.abs(first), np.abs(second)).reshape(columns.shape)
    p = np.full(columns.shape[1], np.nan)
    of_groups = np.zeros(columns.shape[1], np.int64)
    for used, members in alike(columns):
        at = np.ix_(used, members)
        # Signs of groups are flipped, and all cases count the same: the mean is Σ sums / cases.
        values, exponent = scaled(columns[at])
        sizes, sums = sums_of_groups(values, numbers[used])
        of_groups[members] = len(sizes)
        whole, unit = _whole_numbers(sums)
        # a, b and their difference are rounded; so are the sums, and what was made whole.
        with np.errstate(over="ignore"):  # too far from the differences to tell any apart
            rounded = np.ldexp(largest[at], -exponent) + sizes.max() * np.abs(values)
        slack = 2 * _ROUNDING * rounded.sum(axis=0) / unit + len(sizes)
        least = np.abs(whole.sum(axis=0)) - np.ceil(slack)
        found = _exact if len(sizes) <= EXACT else _drawn
        p[members] = np.where(least <= 0, 1.0, found(whole, least, draws, seed))
    shape = difference.shape[1:]
    cases = (~np.isnan(columns)).sum(axis=0, dtype=np.int64)
    return SignFlipResult(
        p.reshape(shape), cases.reshape(shape), of_groups.reshape(shape), draws, seed
    )


def _whole_numbers(sums: Floats) -> tuple[Floats, Floats]:
    """Return multiples of a unit as integers, and the unit: any sum of them is exact."""
    bits = 52 - math.ceil(math.log2(len(sums)))
    unit = np.ldexp(1.0, np.frexp(np.abs(sums).max(axis=0))[1] - bits)
    return np.rint(sums / unit), unit


def _exact(whole: Floats, least: Floats, _draws: int, _seed: int) -> Floats:
    """Count all choices of signs whose sum is at least so far from 0.

    The sums of one half of the groups are sorted, and those of the other looked up among them: for
    n groups 2^(n/2) steps instead of 2^n.
    """
    half = len(whole) // 2
    shares = np.empty(whole.shape[1])
    for column in range(whole.shape[1]):
        one = _all_sums(whole[:half, column])
        other = np.sort(_all_sums(whole[half:, column]))
        above = len(other) - np.searchsorted(other, least[column] - one)
        # As many are as far below 0, where all signs are the others.
        shares[column] = 2 * int(above.sum()) / 2 ** len(whole)
    return shares


def _all_sums(values: Floats) -> Floats:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _drawn(whole: Floats, least: Floats, draws: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    as_far = np.zeros(whole.shape[1], np.int64)
    step = max(1, _DRAWN_AT_ONCE // len(whole))
    for start in range(0, draws, step):
        signs = rng.integers(2, size=(min(step, draws - start), len(whole)), dtype=np.int64)
        as_far += (np.abs((2.0 * signs - 1) @ whole) >= least).sum(axis=0)
    return np.asarray((1 + as_far) / (1 + draws))
