"""How many cases a fit rests on, where few of them carry most of the votes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def effective_groups(weights: ArrayLike, within: ArrayLike = 1.0) -> float:
    """Return (Σw)² / Σw², the number of equally heavy groups that say as much (Kish 1965).

    Parameters
    ----------
    weights : (G,) floats, not negative
        Of each group (a patient, a case): its votes divided by its raters.
    within : (G,) floats of at least 1, optional
        The effective groups in each weight, where a weight is the sum of several.

    Returns
    -------
    float
        From 1 to the number of groups; 0 if all weights are 0.
    """
    w = np.asarray(weights, np.float64)
    # Summed exactly, so that the order of the groups does not matter.
    squares = math.fsum(w * w / np.asarray(within, np.float64))
    return math.fsum(w) ** 2 / squares if squares > 0 else 0.0
