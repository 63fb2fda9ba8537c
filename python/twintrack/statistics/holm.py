"""Holm's correction of several tests that are looked at together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from twintrack.statistics.cases import Floats


def holm(p: ArrayLike) -> Floats:
    """Adjust p values of tests that are looked at together.

    If one calls a difference real where the adjusted p is below 0.05, the chance that any such call
    is wrong is at most 5%, however the tests depend on each other (S. Holm, "A simple sequentially
    rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979).

    Parameters
    ----------
    p : (K,)
        In [0, 1]; NaN is no test.

    Returns
    -------
    (K,) float64
        At least `p` and at most 1; NaN where there is no test.
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")  # NaN comes last
    tests = int((~np.isnan(values)).sum())
    adjusted = np.full(values.shape, np.nan)
    ascending = values[order[:tests]] * np.arange(tests, 0, -1)
    adjusted[order[:tests]] = np.minimum(np.maximum.accumulate(ascending), 1)
    return adjusted
