"""Tables of values of cases, and the groups of cases, as the statistics take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.host import real_numbers, to_numpy
from twintrack.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.int64]


def as_table(values: ArrayLike, name: str) -> Floats:
    """Return values of cases as numbers, NaN where there is none; refuse what is no table."""
    array = to_numpy(values, name)
    table = real_numbers(_without_missing(array, name) if array.dtype == object else array, name)
    if table.ndim == 0 or len(table) == 0:
        raise InputError(
            f"has shape {table.shape}; the first axis counts cases, of which one is needed",
            argument=name,
        )
    require_finite(table, name)
    return table


def _without_missing(array: NDArray[Any], name: str) -> Floats:
    """Return objects as numbers, NaN for None and for pandas.NA, which is not imported for that."""
    table = np.empty(array.shape)
    for place, value in np.ndenumerate(array):
        if value is None or type(value).__name__ == "NAType":
            table[place] = np.nan
        elif isinstance(value, (Real, np.bool_)):
            table[place] = float(value)
        else:
            raise TypeError(
                f"{name}{list(place)} is {value!r}; real numbers are needed, and NaN, None or "
                "pandas.NA where there is none"
            )
    return table


def require_finite(table: Floats, name: str) -> None:
    """Refuse infinite values, by their place."""
    infinite = np.isinf(table)
    if infinite.any():
        where = tuple(int(i) for i in np.argwhere(infinite)[0])
        raise InputError(
            f"{name}{list(where)} is {table[where]}; a mean over cases needs finite values"
        )


def paired(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return two tables of the same cases, and a - b."""
    first, second = as_table(a, "a"), as_table(b, "b")
    if len(first) != len(second):
        raise InputError(
            f"a has {len(first)} cases and b {len(second)}; a paired comparison needs "
            "the same cases"
        )
    with np.errstate(over="ignore"):
        difference = first - second
    require_finite(difference, "(a - b)")
    return first, second, difference


def alike(columns: Floats) -> Iterator[tuple[NDArray[np.bool_], Numbers]]:
    """Yield the cases with a value, and the columns in which it is these, at least one case each.

    Columns that lack the same cases are done together; as a rule there is one such group.
    """
    patterns, pattern_of = np.unique(~np.isnan(columns), axis=1, return_inverse=True)
    for number, used in enumerate(patterns.T):
        if used.any():
            yield used, np.flatnonzero(pattern_of.reshape(-1) == number)


def scaled(sample: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Scale each column by a power of two to magnitudes up to 1, which rounds nothing.

    So no sum or power of its values is too large or too small for a double. Also returns the
    exponents that undo it.
    """
    _, exponent = np.frexp(np.abs(sample).max(axis=0))
    return np.ldexp(sample, -exponent), exponent


def group_numbers(groups: Sequence[Any] | None, cases: int) -> Numbers:
    """Return a number for the group of each case."""
    if groups is None:
        return np.arange(cases)
    entries = list(groups)
    if isinstance(groups, (str, bytes)) or len(entries) != cases:
        raise InputError(
            f"has {len(entries)} entries for {cases} cases; one for each is needed",
            argument="groups",
        )
    numbers: dict[Any, int] = {}
    found = []
    for place, group in enumerate(entries):
        try:
            missing = group is None or type(group).__name__ == "NAType" or bool(group != group)
            found.append(numbers.setdefault((place, None) if missing else group, len(numbers)))
        except (TypeError, ValueError):
            raise TypeError(
                f"groups[{place}] is {group!r}; it must be a text or a number"
            ) from None
    return np.array(found)


def sums_of_groups(deviations: Floats, groups: Numbers) -> tuple[Numbers, Floats]:
    """Return the cases of each group, and the sum of their rows, as groups come first."""
    _, first, number, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    if len(sizes) == len(groups):
        return sizes, deviations
    order = np.argsort(first)
    sums = np.zeros((len(sizes), deviations.shape[1]))
    np.add.at(sums, np.argsort(order)[number.reshape(-1)], deviations)
    return sizes[order], sums
