"""Numbers given as arguments: what is none, or out of range, is refused by the argument's name."""

from __future__ import annotations

import math
import operator
from typing import Any

from twintrack.errors import InputError


def whole_number(value: Any, name: str, least: int, most: int | None = None) -> int:
    """Return an integer of any library, from `least` to `most`.

    Raises
    ------
    TypeError
        `value` is no integer.
    ValueError
        It is out of range.
    """
    span = f"at least {least}" if most is None else f"from {least} to {most}"
    message = f"{name} is {value!r}; it must be a whole number, {span}"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(message) from None
    if number < least or (most is not None and number > most):
        raise InputError(message)
    return number


def number_between(value: Any, name: str, low: float, high: float = math.inf) -> float:
    """Return a real number of any library that is more than `low` and less than `high`.

    Raises
    ------
    TypeError
        `value` is no single number.
    ValueError
        It is out of range, infinite or NaN.
    """
    span = f"more than {low}" + (" and finite" if high == math.inf else f" and less than {high}")
    message = f"{name} is {value!r}; it must be a single number, {span}"
    if isinstance(value, (str, bytes)) or getattr(value, "ndim", 0) > 0:  # may pass float()
        raise TypeError(message)
    try:
        number = float(value)
    except (TypeError, OverflowError):
        raise TypeError(message) from None
    if not low < number < high:
        raise InputError(message)
    return number
