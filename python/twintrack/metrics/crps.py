"""CRPS of the tumour volume against the distribution of the raters' volumes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack import _core
from twintrack.arrays.host import real_numbers
from twintrack.errors import InputError

POINTS = 100  # of the reference distribution function


def crps_official(predicted: float, rater_volumes: ArrayLike) -> float:
    """Return the continuous ranked probability score as the official evaluator integrates it.

    ∫ (F(y) - H(y - V))² dy over μ ± 3σ by SciPy's `quad` at its default 50 subdivisions, where V is
    the predicted volume, H(0) = ½, and F interpolates linearly through 100 equally spaced points of
    the normal distribution function of the raters' volumes (population σ) from its 1% to its 99%
    quantile, 0 and 1 beyond them. 0 if all raters agree (σ = 0).

    Parameters
    ----------
    predicted : float
    rater_volumes : (N,) floats
        Both in the same unit, which is that of the result.

    Raises
    ------
    ValueError, TypeError
        For volumes that are no finite numbers; `predicted` may be infinite.
    """
    from scipy import LowLevelCallable
    from scipy.integrate import quad

    mean, deviation = _moments(predicted, rater_volumes)
    if deviation == 0:
        return 0.0
    gap = LowLevelCallable(*_core.volume_gap(*_reference(mean, deviation), predicted))
    # It seldom converges: that is why the exact integral below differs by up to 0.8%. The full
    # output says so in an item instead of a warning, whose filters all threads share.
    return float(quad(gap, mean - 3 * deviation, mean + 3 * deviation, full_output=1)[0])


def crps_exact_integral(predicted: float, rater_volumes: ArrayLike) -> float:
    """Return the same integral over μ ± 3σ in closed form."""
    mean, deviation = _moments(predicted, rater_volumes)
    if deviation == 0:
        return 0.0
    return _integral(
        predicted, *_reference(mean, deviation), mean - 3 * deviation, mean + 3 * deviation
    )


def crps_corrected(predicted: float, rater_volumes: ArrayLike) -> float:
    """Return the integral over the whole line in closed form; |V - μ| if all raters agree.

    Unlike over μ ± 3σ, a prediction further off is always worse.
    """
    mean, deviation = _moments(predicted, rater_volumes)
    if deviation == 0:
        return abs(predicted - mean)
    at, share = _reference(mean, deviation)
    return _integral(predicted, at, share, min(at[0], predicted), max(at[-1], predicted))


def crps_corrected_each(
    predicted: NDArray[np.float64], rater_volumes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return `crps_corrected` of many predictions for one case, all at once.

    Parameters
    ----------
    predicted : (M,) float64, finite
    rater_volumes : (N,) float64
        As in `crps_corrected`, which this is to rounding.
    """
    mean, deviation = _moments(0.0, rater_volumes)
    if deviation == 0:
        return np.abs(predicted - mean)
    at, share = _reference(mean, deviation)

    def pieces(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        # Three times the mean of the square of what is linear from one to the other.
        return np.asarray(left * left + left * right + right * right)

    # The squares of F up to each point, and of 1 - F from there on.
    up_to = np.concatenate([[0.0], np.cumsum(np.diff(at) * pieces(share[:-1], share[1:]) / 3)])
    beyond = np.diff(at) * pieces(1 - share[:-1], 1 - share[1:]) / 3
    from_on = np.concatenate([np.cumsum(beyond[::-1])[::-1], [0.0]])
    inside = np.clip(predicted, at[0], at[-1])
    j = np.minimum(np.searchsorted(at, inside, side="right"), len(at) - 1) - 1
    here = np.interp(inside, at, share)
    left = (inside - at[j]) * pieces(share[j], here) / 3
    right = (at[j + 1] - inside) * pieces(1 - here, 1 - share[j + 1]) / 3
    return np.asarray(up_to[j] + left + right + from_on[j + 1] + np.abs(predicted - inside))


def _moments(predicted: float, rater_volumes: ArrayLike) -> tuple[float, float]:
    volumes = real_numbers(rater_volumes, "rater_volumes")
    if volumes.ndim != 1 or volumes.size == 0:
        raise InputError(
            f"rater_volumes has shape {volumes.shape}; it must be a list of one volume or more"
        )
    if math.isnan(predicted):  # infinite is the official sum of many float16 scores
        raise InputError("predicted is nan; it must be a volume")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(volumes.mean()), float(volumes.std())
    if not math.isfinite(deviation):
        raise InputError(f"rater_volumes are {volumes}; their spread is not a finite number")
    return mean, deviation


def _reference(mean: float, deviation: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.special import ndtr, ndtri

    low, high = mean + deviation * ndtri(0.01), mean + deviation * ndtri(0.99)
    at = np.linspace(low, high, POINTS)
    return at, ndtr((at - mean) / deviation)


def _integral(
    predicted: float,
    at: NDArray[np.float64],
    share: NDArray[np.float64],
    low: float,
    high: float,
) -> float:
    """∫ (F - H)² over [low, high]: F is linear between the points `at`, H steps at `predicted`."""
    ends = np.unique(np.clip(np.concatenate([at, [low, high, predicted]]), low, high))
    left, right = ends[:-1], ends[1:]
    # F at both ends of each piece, seen from inside: it jumps at the first and last point.
    inside = (left >= at[0]) & (right <= at[-1])
    beyond = (left >= at[-1]).astype(np.float64)
    step = (left >= predicted).astype(np.float64)
    a = np.where(inside, np.interp(left, at, share), beyond) - step
    b = np.where(inside, np.interp(right, at, share), beyond) - step
    return float(np.sum((right - left) * (a * a + a * b + b * b)) / 3)
