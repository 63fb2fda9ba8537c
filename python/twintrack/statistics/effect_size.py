"""The size of a difference, against how much differences vary from case to case."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from twintrack.statistics.cases import Floats, alike, paired, scaled


def effect_size(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the mean of a − b divided by the standard deviation of a − b over cases.

    Cohen's d of paired samples, d_z (J. Cohen, "Statistical power analysis for the behavioral
    sciences", 1988), who calls 0.2 small, 0.5 medium and 0.8 large. It does not grow with the
    number of cases, as certainty does.

    Parameters
    ----------
    a, b
        As in `paired_bootstrap`: shape (cases, …), NaN where undefined.

    Returns
    -------
    float64 array
        In the shape of one case's values. NaN with fewer than two cases, and where all differences
        are the same to within rounding.

    Raises
    ------
    ValueError, TypeError
        As in `paired_bootstrap`.
    """
    first, second, difference = paired(a, b)
    columns = difference.reshape(len(difference), -1)
    largest = np.fmax(np.abs(first), np.abs(second)).reshape(columns.shape)
    effect = np.full(columns.shape[1], np.nan)
    for used, members in alike(columns):
        if np.count_nonzero(used) < 2:
            continue
        at = np.ix_(used, members)
        values, exponent = scaled(columns[at])
        mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
        with np.errstate(over="ignore"):
            rounding = np.finfo(np.float64).eps * np.ldexp(largest[at].max(axis=0), -exponent)
        varies = deviation > 2 * rounding
        effect[members] = np.where(varies, mean / np.where(varies, deviation, 1), np.nan)
    return effect.reshape(difference.shape[1:])
