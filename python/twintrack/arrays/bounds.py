"""Scores that are outside [0, 1] by a rounding: they are set to the bound and counted.

Means and sums of probabilities pass 1 by the last bit, and overlapping windows give -1e-9. What is
farther outside is an error wherever scores are used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.checks import as_numbers
from twintrack.arrays.host import to_numpy
from twintrack.arrays.libraries import device_kind, library_of
from twintrack.errors import InputError

SLACK = 1e-6
"""Largest distance from [0, 1] that counts as a rounding."""

T = TypeVar("T")

_ONE = {2: {"e": 0x3C00, "V": 0x3F80}, 4: {"f": 0x3F800000}, 8: {"d": 0x3FF0000000000000}}


def with_roundings(work: Callable[..., T], score: Any, *others: Any) -> tuple[T, int]:
    """Return ``work(score, *others)``, and how many scores were set to the bound for it.

    The work is done again with a copy of the score if it refuses one that is outside by a rounding.
    """
    try:
        return work(score, *others), 0
    except InputError as error:
        able = device_kind(score) != "other"  # of which nothing is known but its memory
        if error.argument != "score" or not _is_rounding(error.value) or not able:
            raise
        bounded, count = _bounded(score)
        return work(bounded, *others), count


def told(count: int) -> str:
    """Return what to tell of scores that were set to the bound."""
    are = "score is" if count == 1 else "scores are"
    return f"{count:,} {are} outside [0, 1] by at most {SLACK:g} and set to the bound"


def warn_of(count: int) -> None:
    """Warn of scores that were set to the bound, if there are any."""
    if count:
        warnings.warn(told(count), UserWarning, stacklevel=3)


def set_roundings(score: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return scores without roundings outside [0, 1], and how many there were.

    Parameters
    ----------
    score
        float16, float32, float64, or bfloat16 as a 2-byte void dtype.

    Returns
    -------
    score
        The same array where there are none, else a copy. What is farther outside stays.
    count
        How many were set to the bound.
    """
    kind = "V" if score.dtype.kind == "V" else score.dtype.char
    one = _ONE.get(score.itemsize, {}).get(kind)
    if one is None or score.size == 0 or not score.dtype.isnative:
        return score, 0
    bits = score.view(f"u{score.itemsize}")
    if int(bits.max()) <= one:  # no sign, and no more than 1: the bits of such floats are in order
        return score, 0
    values = as_numbers(score)
    below, above = (values < 0) & (values >= -SLACK), (values > 1) & (values <= 1 + SLACK)
    count = int(np.count_nonzero(below)) + int(np.count_nonzero(above))
    if count == 0:
        return score, 0
    bounded = score.copy(order="K")
    changed = bounded.view(f"u{score.itemsize}")
    changed[below], changed[above] = 0, one
    return bounded, count


def _is_rounding(value: Any) -> bool:
    return isinstance(value, float) and -SLACK <= value <= 1 + SLACK


def _bounded(score: Any) -> tuple[Any, int]:
    if device_kind(score) is None and library_of(score) != "torch":
        return set_roundings(to_numpy(score, "score"))
    values = score.detach() if hasattr(score, "detach") else score
    below = (values < 0) & (values >= -SLACK)
    above = (values > 1) & (values <= 1 + SLACK)
    bounded = values.clone() if hasattr(values, "clone") else values.copy()
    bounded[below], bounded[above] = 0, 1
    return bounded, int(below.sum()) + int(above.sum())
