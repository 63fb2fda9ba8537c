"""How figures are shown: a column is rounded alike, to three digits of its largest value."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MISSING = "–"
_SIGNIFICANT_DIGITS = 3


def decimals(values: NDArray[np.float64]) -> int:
    """Decimals that show three significant digits of the largest value of a column."""
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    if largest == 0:
        return _SIGNIFICANT_DIGITS - 1
    # Through the rounded number, since 9.996 is shown as 10.0.
    exponent = int(f"{largest:.{_SIGNIFICANT_DIGITS - 1}e}".partition("e")[2])
    return max(0, _SIGNIFICANT_DIGITS - 1 - exponent)


def rounded(value: float, digits: int, sign: str = "-") -> str:
    """Return a value as it is shown, with so many decimals; `sign` "+" is for differences."""
    if math.isnan(value):
        return MISSING
    text = f"{value:{sign}.{digits}f}"
    if float(text):
        return text
    # A difference too small to be shown keeps its side of 0; other values have no -0.00.
    return text if sign == "+" and value else f"{0:.{digits}f}"


def rounded_column(values: NDArray[np.float64]) -> list[list[str]]:
    """Round (cases, methods) values of one metric alike."""
    digits = decimals(values)
    return [[rounded(value, digits) for value in row] for row in values]


def bracket(low: float, high: float, digits: int, sign: str = "-") -> str:
    """Return an interval as it is shown; empty where there is none."""
    if math.isnan(low):
        return ""
    return f"[{rounded(low, digits, sign)}, {rounded(high, digits, sign)}]"


def shown_alike(one: float, other: float, difference: float, digits: int) -> bool:
    """Whether figures with so many decimals do not show that two values differ."""
    return rounded(one, digits) == rounded(other, digits) or float(f"{difference:.{digits}f}") == 0
