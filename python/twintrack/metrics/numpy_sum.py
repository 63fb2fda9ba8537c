"""The sum of scores as NumPy has it: the official evaluator's predicted volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.arrays.case import DeviceCase, OpenCase

# NumPy adds float16 in float32, pairwise, and rounds the total to float16. Pairwise sums of up to
# 2^40 terms, none negative, are off by less than 60 roundings: 4e-6 of the total.
_PAIRWISE_ERROR = 1e-5


def numpy_sum(case: OpenCase, exact: float, scored: NDArray[np.uint8] | None = None) -> float:
    """Return `numpy.sum` of a case's score, rounded as the score's own dtype rounds it.

    Parameters
    ----------
    case
        bfloat16, which NumPy cannot add, is added exactly. On a CUDA device, the score is copied to
        the host if its roundings matter: always for float32.
    exact : float
        The sum of the scores. It decides the answer wherever NumPy's rounding errors cannot: for
        float64, where they are below 1e-13, and nearly always for float16, which NumPy would take
        0.1 s for on a CT.
    scored : (B,) uint8, optional
        Of a contiguous score: whether each 1024 voxels, in the order of memory, may hold anything
        but 0. The others need not be read again.

    Returns
    -------
    float
        Infinity where a float16 sum overflows (65520 and more).
    """
    score, dtype = case.score, str(case.score.dtype)
    if dtype not in ("float16", "float32"):
        return exact
    contiguous = score.flags.forc if isinstance(score, np.ndarray) else score.contiguous
    with np.errstate(over="ignore"):
        if dtype == "float16" and contiguous:
            low, high = np.float16(
                np.array([exact * (1 - _PAIRWISE_ERROR), exact * (1 + _PAIRWISE_ERROR)])
            )
            if low == high:
                return float(low)
        host = case.score.fetched(case.stream) if isinstance(case, DeviceCase) else case.score
        if dtype == "float32" and contiguous and host.flags.aligned:
            return _core.numpy_sum(host, scored)
        return float(np.sum(host))
