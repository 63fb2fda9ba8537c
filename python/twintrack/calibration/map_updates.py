"""Updates of a map by new cases: an affine change of its log-odds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.departures import Answers
from twintrack.calibration.map_bounds import bounded
from twintrack.calibration.parametric import LEAST_SCORE, platt_map

_Floats: TypeAlias = NDArray[np.float64]

_STEP = 0.01  # of log-odds, that are not told apart when an affine change is fitted


class AffineUpdates:
    r"""Affine changes of a map's log-odds, by the answers of some patients.

    .. math::
        \mathrm{logit}\, m' = a\, \mathrm{logit}\, m + b, \qquad a \ge 0

    by maximum likelihood of all answers (Platt's map, of the calibrated score). An exact 0 or 1 has
    no finite log-odds, and stays.

    Parameters
    ----------
    fitted : CalibrationMap
        The map that is changed.
    groups
        The answers of each patient.
    floor, ceiling : float
        Bounds of the map, which the changed ones keep.
    """

    def __init__(
        self,
        fitted: CalibrationMap,
        groups: Sequence[Answers],
        floor: float = 0.0,
        ceiling: float = 1.0,
    ) -> None:
        from scipy.special import expit, logit  # SciPy takes its time to be imported

        self._fitted, self._floor, self._ceiling = fitted, floor, ceiling
        end = float(logit(1 - LEAST_SCORE))
        steps = 2 + round(2 * end / _STEP)
        self._sums = np.zeros((len(groups), 2, steps))
        moments = np.zeros(steps)
        for sums, group in zip(self._sums, groups, strict=True):
            m = group.mapped(fitted)
            inside = (m > 0) & (m < 1)
            log_odds = logit(np.clip(m[inside], LEAST_SCORE, 1 - LEAST_SCORE))
            at = np.rint((log_odds + end) / _STEP).astype(np.intp)
            sums[0] = np.bincount(at, group.count[inside], steps)
            sums[1] = np.bincount(at, group.yes[inside], steps)
            moments += np.bincount(at, group.count[inside] * log_odds, steps)
        count = self._sums[:, 0].sum(axis=0)
        self._value = expit(moments / np.where(count > 0, count, 1))
        self._total = self._sums.sum(axis=0)

    def fit(self, without: int | None = None) -> tuple[CalibrationMap, dict[str, float]]:
        """Return the changed map and a and b, by all patients or all but one.

        The map is not changed if these marked nothing, or everything.
        """
        count, yes = self._total
        if without is not None:
            own = self._sums[without]
            count, yes = count - own[0], np.clip(yes - own[1], 0, count - own[0])
        if not 0 < yes.sum() < count.sum():
            return self._fitted, {"a": 1.0, "b": 0.0}
        used = count > 0
        change, found = platt_map(self._value[used], yes[used], count[used])
        change = CalibrationMap([0.0, *change.x, 1.0], [0.0, *change.y, 1.0])  # these stay
        changed = composed(self._fitted, change)
        kept = bounded(changed, self._floor, self._ceiling)
        return kept, {"a": found["a"], "b": found["c"]}


def composed(inner: CalibrationMap, outer: CalibrationMap) -> CalibrationMap:
    """Return the map ``outer(inner(score))``, which is piecewise linear as they are."""
    x, y = inner.x, inner.y
    value = outer.x[(outer.x > y[0]) & (outer.x < y[-1])]
    above = np.searchsorted(y, value)  # y below it is less, so that there is one score
    share = (value - y[above - 1]) / (y[above] - y[above - 1])
    at = x[above - 1] + share * (x[above] - x[above - 1])
    knots = np.unique(np.concatenate([x, at]))
    values = np.interp(np.interp(knots, x, y), outer.x, outer.y)
    return CalibrationMap(knots, np.maximum.accumulate(values))
