"""The size of a difference, against how much cases differ from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from twintrack.statistics.cases import Floats, alike, paired, scaled


def effect_size(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the mean of a − b divided by the standard deviation of a, and of b, over cases.

    Cohen's d with the root of the mean of both variances (d_av of G. Cumming, "Understanding the
    new statistics", 2012): J. Cohen ("Statistical power analysis for the behavioral sciences",
    1988) calls 0.2 small, 0.5 medium and 0.8 large. It does not grow with the number of cases, as
    certainty does. The standard deviation of a − b (d_z) would make the smallest difference large
    where a and b go together from case to case, as two maps of one score do.

    Parameters
    ----------
    a, b
        As in `paired_bootstrap`: shape (cases, …), NaN where undefined.

    Returns
    -------
    float64 array
        In the shape of one case's values. NaN with fewer than two cases, and where all cases have
        the same value to within rounding.

    Raises
    ------
    ValueError, TypeError
        As in `paired_bootstrap`.
    """
    first, second, difference = paired(a, b)
    both = np.stack(np.broadcast_arrays(first, second)).reshape(2, len(difference), -1)
    columns = difference.reshape(len(difference), -1)
    effect = np.full(columns.shape[1], np.nan)
    for used, members in alike(columns):
        cases = np.count_nonzero(used)
        if cases < 2:
            continue
        values, _ = scaled(np.concatenate(both[:, used][:, :, members]))
        of_both = values.reshape(2, cases, -1)
        deviation = np.sqrt(of_both.var(axis=1, ddof=1).mean(axis=0))
        mean = (of_both[0] - of_both[1]).mean(axis=0)
        # Sums of equal values are off by up to so much.
        varies = deviation > cases * np.finfo(np.float64).eps
        effect[members] = np.where(varies, mean / np.where(varies, deviation, 1), np.nan)
    return effect.reshape(difference.shape[1:])
