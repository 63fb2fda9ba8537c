"""Platt, beta and temperature scaling, fitted to the cells of a tally.

Three maps with few parameters, for comparison with the isotonic one. They are fitted by maximum
likelihood of all raters' answers, the cells weighted by their voxels, and written as piecewise
linear maps, so that all kernels, files and exports apply them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.equal_mass import EqualMassBins
from twintrack.calibration.map_fit import Target
from twintrack.errors import InputError

MapKind = Literal["isotonic", "platt", "beta", "temperature"]
KINDS: tuple[MapKind, ...] = get_args(MapKind)

LEAST_SCORE = 2.0**-24
"""Scores are brought into [2^-24, 1 - 2^-24] before logarithms are taken: float32's step at 1."""

KNOT_ERROR = 1e-5
"""How far a map of knots may be from its formula, as a share of the distance to 0 or 1."""

_STEPS = 200  # of Newton's method; 5 to 20 are taken
_MOST_KNOTS = 1 << 15

_Floats: TypeAlias = NDArray[np.float64]


def fit_parametric(
    kind: MapKind, cells: EqualMassBins, target: Target, rater: int
) -> tuple[CalibrationMap, tuple[dict[str, float], ...]]:
    r"""Fit a map with few parameters.

    .. math::
        \text{temperature: } \sigma(t / T), \quad
        \text{Platt: } \sigma(a t + c), \quad
        \text{beta: } \sigma(a \log s - b \log(1 - s) + c) \text{ with } a, b \ge 0

    where :math:`t = \log(s / (1 - s))` (Guo et al. 2017; Platt 1999, on log-odds; Kull, Silva Filho
    and Flach 2017).

    Parameters
    ----------
    kind : {"platt", "beta", "temperature"}
    cells : EqualMassBins
        A bin for every cell that occurs.
    target, rater
        Whose answers: as of `Calibrator`. The target "hard" averages the maps of all raters.

    Returns
    -------
    map, parameters
        The map, and the parameters ``a``, ``b``, ``c`` or ``temperature`` of it, or of each rater.

    Raises
    ------
    ValueError
        There is no voxel that a rater marked, or none that one did not.
    """
    s = np.clip(cells.mean_score, LEAST_SCORE, 1 - LEAST_SCORE)
    answers: list[tuple[NDArray[Any], NDArray[Any]]] = [(cells.response, cells.count)]
    if target in ("single", "hard"):
        looked = cells.count[:, None] if cells.looked is None else cells.looked
        looked = np.broadcast_to(looked, cells.votes.shape)
        raters = [rater] if target == "single" else np.flatnonzero(looked.any(axis=0)).tolist()
        answers = [(cells.votes[:, k], looked[:, k]) for k in raters]
    fits = [_fit(kind, s, *(np.asarray(a, np.float64) for a in one)) for one in answers]

    def value(score: _Floats) -> _Floats:
        features = _features(kind, np.clip(score, LEAST_SCORE, 1 - LEAST_SCORE))
        return np.asarray(
            np.mean([_logistic(_times(features, weights)) for weights in fits], axis=0)
        )

    return _map_of(value), tuple(_named(kind, weights) for weights in fits)


def platt_map(s: _Floats, yes: _Floats, count: _Floats) -> tuple[CalibrationMap, dict[str, float]]:
    """Return the Platt map of scores, of which raters marked `yes` of `count` voxels; all (K,)."""
    weights = _fit("platt", np.clip(s, LEAST_SCORE, 1 - LEAST_SCORE), yes, count)
    return log_odds_map(weights), _named("platt", weights)


def log_odds_map(weights: ArrayLike) -> CalibrationMap:
    """Return the map σ(a t + c) with t the log-odds of a score; weights are (a, c)."""

    def value(score: _Floats) -> _Floats:
        return _logistic(_features("platt", score) @ np.asarray(weights, np.float64))

    return _map_of(value)


def _features(kind: MapKind, s: _Floats) -> _Floats:
    yes, no = np.log(s), -np.log1p(-s)
    if kind == "temperature":
        return (yes + no)[:, None]
    if kind == "platt":
        return np.stack([yes + no, np.ones_like(s)], axis=1)
    return np.stack([yes, no, np.ones_like(s)], axis=1)


def _named(kind: MapKind, weights: _Floats) -> dict[str, float]:
    if kind == "temperature":
        return {"temperature": 1 / float(weights[0]) if weights[0] else float("inf")}
    names = ("a", "c") if kind == "platt" else ("a", "b", "c")
    return dict(zip(names, weights.tolist(), strict=True))


def _fit(kind: MapKind, s: _Floats, yes: _Floats, count: _Floats) -> _Floats:
    """Return the weights of greatest likelihood; those of slopes are not below 0."""
    if not 0 < yes.sum() < count.sum():
        raise InputError(
            f"{'no voxel was marked' if yes.sum() == 0 else 'all voxels were marked'}: a map of "
            "this kind needs both answers",
            argument="kind",
            value=kind,
        )
    used = count > 0
    features, rate, weight = _features(kind, s[used]), yes[used] / count[used], count[used]
    slopes = {"temperature": 1, "platt": 1, "beta": 2}[kind]
    free = np.ones(features.shape[1], np.bool_)
    while True:
        found = np.zeros(len(free))
        found[free] = _newton(features[:, free], rate, weight / weight.sum())
        wrong = np.flatnonzero(found[:slopes] < 0)
        if len(wrong) == 0:
            return found
        # As Kull et al.: the worse of the slopes is 0, and the others are fitted again.
        free[wrong[np.argmin(found[wrong])]] = False
        if not free.any():
            return np.zeros(len(free))


def _newton(features: _Floats, rate: _Floats, weight: _Floats) -> _Floats:
    """Return the maximum of the likelihood, by Newton's method with halved steps."""
    found = np.zeros(features.shape[1])

    def loss(at: _Floats) -> float:
        linear = _times(features, at)
        # log(1 + e^x) - y x, for all sizes of x.
        each = np.maximum(linear, 0) + np.log1p(np.exp(-np.abs(linear))) - rate * linear
        return float(np.einsum("i,i", weight, each))

    least = loss(found)
    for _ in range(_STEPS):
        p = _logistic(_times(features, found))
        gradient = np.einsum("ij,i->j", features, weight * (p - rate))
        curvature = np.einsum("ij,ik->jk", features * (weight * p * (1 - p))[:, None], features)
        step, *_ = np.linalg.lstsq(curvature, gradient, rcond=None)
        size = 1.0
        while size > 1e-10 and loss(found - size * step) > least:
            size /= 2
        moved = found - size * step
        now = loss(moved)
        if not now < least:
            return found
        found, least = moved, now
    return found


def _times(features: _Floats, weights: _Floats) -> _Floats:
    # Not with @: BLAS adds up in another order on another number of threads.
    return np.asarray(np.einsum("ij,j->i", features, weights))


def _logistic(x: _Floats) -> _Floats:
    from scipy.special import expit  # SciPy takes its time to be imported

    return np.asarray(expit(x))


def _map_of(value: Callable[[_Floats], _Floats]) -> CalibrationMap:
    """Return the piecewise linear map through so many knots that it is as close as it is to be."""
    from scipy.special import expit, logit

    end = float(logit(1 - LEAST_SCORE))
    knots = 512
    while True:
        s = expit(np.linspace(-end, end, knots))
        middle = (s[1:] + s[:-1]) / 2
        y, wanted = value(s), value(middle)
        off = np.abs((y[1:] + y[:-1]) / 2 - wanted)
        if knots >= _MOST_KNOTS or (off <= KNOT_ERROR * np.minimum(wanted, 1 - wanted)).all():
            break
        knots *= 2
    y = np.maximum.accumulate(np.clip(y, 0, 1))
    rising = np.r_[True, s[1:] > s[:-1]]
    return CalibrationMap(s[rising], y[rising])
