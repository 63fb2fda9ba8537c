"""Departures: how far the answers in new cases are from what a map says, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.effective import effective_groups
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.calibration.map_band import MapBand
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.tally_fit import TallyFit
from twintrack.errors import InputError

_Floats: TypeAlias = NDArray[np.float64]

_LEAST_FREEDOM = 0.1  # degrees of freedom with which next to nothing is significant
_LEAST_P = 1e-12
_POWER = 0.8
_ROUNDING = 1e-12  # of a map's values


@dataclass(frozen=True, eq=False)
class Answers(ByValue):
    """Voxels of a patient by their score, and how many of them the raters marked.

    Attributes
    ----------
    score, count, yes : (K,) float64
        Mean score of a cell, its voxels, and the sum of the response of the raters whom the map
        follows.
    """

    score: _Floats
    count: _Floats
    yes: _Floats

    @classmethod
    def of(cls, fit: TallyFit, tally: ScoreTally) -> Answers:
        """Return those of a tally; what the map does not follow is left out."""
        seen = fit.seen(tally)
        if not seen.voxels:
            return cls(*np.zeros((3, 0)))
        mean = seen.equal_mass_bins(EVERY_CELL).mean_score
        return cls(mean, seen.counts.astype(np.float64), fit.yes(seen))

    def mapped(self, by: CalibrationMap) -> _Floats:
        """Return what a map makes of the scores."""
        return np.interp(self.score, by.x, by.y)


@dataclass(frozen=True)
class Departure(ByValue):
    """A departure from the map, with the errors of both sets of cases.

    Attributes
    ----------
    estimate : float
    error, freedom : float
        Its standard error by what the new patients differ by, and degrees of freedom: their
        effective number less one.
    map_error, map_freedom : float
        Likewise by what the patients differ by that the map was fitted on; 0 where that is not
        known.
    """

    estimate: float
    error: float
    freedom: float
    map_error: float = 0.0
    map_freedom: float = _LEAST_FREEDOM

    @property
    def p_value(self) -> float:
        """Two-sided p of there being none in the patients of both sets (`reach`)."""
        low, high = math.log(_LEAST_P), 0.0
        if self.reach(_LEAST_P) <= abs(self.estimate):
            return _LEAST_P if self.estimate else 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (
                (middle, high)
                if self.reach(math.exp(middle)) > abs(self.estimate)
                else (low, middle)
            )
        return math.exp(high)

    def reach(self, p: float) -> float:
        r"""Return the least estimate that is significant at `p`.

        .. math::
            \sqrt{t_{1 - p/2}(\nu_1)^2 e_1^2 + t_{1 - p/2}(\nu_2)^2 e_2^2}

        for two errors with degrees of freedom of their own (Banerjee 1960), which holds `p` for
        normal errors whatever the two are; Welch's does not where the smaller set is the more
        variable one.
        """
        return math.hypot(
            _quantile(self.freedom, 1 - p / 2) * self.error,
            _quantile(self.map_freedom, 1 - p / 2) * self.map_error,
        )

    def detectable(self, p: float) -> float:
        """Return the departure that is significant at `p` with a probability of 80%."""
        more = (
            _quantile(self.freedom, _POWER) * self.error,
            _quantile(self.map_freedom, _POWER) * self.map_error,
        )
        return self.reach(p) + math.hypot(*more)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval of this very map's departure in all patients like the new ones.

        What the calibration set leaves open has no part in it: the map is what it is.
        """
        reach = _quantile(self.freedom, (1 + level) / 2) * self.error
        return self.estimate - reach, self.estimate + reach


class MapErrors(NamedTuple):
    """What the calibration set leaves open of the two departures: standard errors, and freedom."""

    volume: float
    tilt: float
    freedom: float


class Departures:
    r"""The two departures of new cases from a map.

    With n voxels of a cell of score s, y the sum of their responses and m the map:

    - volume: :math:`\log(\sum n m / \sum y)`, above 0 where the map predicts too much;
    - tilt: :math:`\sum (y - n m) (m - k) / \sum n m |m - k|`, above 0 where raters mark more than
      the map says at its high values, and less at its low ones, as of a map that is too flat. It is
      the relative error of the two parts, in opposite directions, if it is the same in both. With
      :math:`k = \sum n m^2 (1 - m) / \sum n m (1 - m)` a small shift of all log-odds, as of
      another prevalence, is no tilt.

    Both are 0 on average over patients for whom the map is right. Standard errors are those of the
    delete-one jackknife over patients with its correction for leverage (Bell and McCaffrey 2002):
    :math:`\sum_c (1 - h_c) (\theta_{-c} - \theta)^2`, with :math:`h_c` the patient's share of the
    marked volume, or of the information on the slope; degrees of freedom
    :math:`1 / \sum_c h_c^2 - 1`.

    Parameters
    ----------
    fitted : CalibrationMap
    groups
        The answers of each new patient.
    total
        Those of all of them.

    Raises
    ------
    ValueError
        Fewer than two of the patients have a voxel that a rater marked, or the map predicts none.
    """

    def __init__(self, fitted: CalibrationMap, groups: Sequence[Answers], total: Answers) -> None:
        marked = np.array([group.yes.sum() for group in groups])
        if np.count_nonzero(marked) < 2:
            raise InputError(
                f"raters marked voxels of {np.count_nonzero(marked)} of the {len(groups)} new "
                "patients; an audit compares patients, so it needs two at least, better ten"
            )
        self._total, self._m = total, total.mapped(fitted)
        mapped = [group.mapped(fitted) for group in groups]
        predicted = np.array([group.count @ m for group, m in zip(groups, mapped, strict=True)])
        self._volume = math.fsum(predicted)
        if self._volume == 0:
            raise InputError("the map predicts no volume at all in the new cases")
        self.effective_groups = effective_groups(marked)
        self._own_volume = _log_ratio(predicted, marked)

        weight = total.count * self._m * (1 - self._m)
        self._turn = float(weight @ self._m / weight.sum()) if weight.any() else 0.5
        self._arm = self._arms(self._m)
        self._scale = float(total.count * self._m @ np.abs(self._arm))
        pull, information = np.zeros((2, len(groups)))
        for c, (group, m) in enumerate(zip(groups, mapped, strict=True)):
            arm = self._arms(m)
            pull[c] = (group.yes - group.count * m) @ arm
            information[c] = group.count * m * (1 - m) @ arm**2
        self._own_tilt = _sum(pull, information, self._scale)

    def _arms(self, m: _Floats) -> _Floats:
        arm = m - self._turn
        return np.where(np.abs(arm) > _ROUNDING, arm, 0)

    def changes(self, other: CalibrationMap) -> tuple[float, float]:
        """Return by how much the departures from another map are larger than those from this."""
        change = self._total.mapped(other) - self._m
        volume = float(self._total.count @ change) / self._volume
        tilt = -float(self._total.count * self._arm @ change)
        return math.log1p(max(volume, -1 + 1e-9)), tilt / self._scale if self._scale else 0.0

    def jackknifed(self, without: Iterable[tuple[CalibrationMap, float]]) -> MapErrors:
        """Return the errors of the map by those that are fitted without one patient each.

        Parameters
        ----------
        without
            Map, and what the patient's raters marked in voxels, of each patient of the fit.
        """
        found = [(*self.changes(fitted), marked) for fitted, marked in without]
        volume, tilt, marked = np.array(found).T
        share = marked / math.fsum(marked)
        squares = [math.fsum((1 - share) * change**2) for change in (volume, tilt)]
        freedom = effective_groups(marked) - 1
        return MapErrors(math.sqrt(squares[0]), math.sqrt(squares[1]), freedom)

    def within(self, band: MapBand) -> MapErrors:
        """Return errors that the map has at most, by its band: as if all scores err together."""
        freedom = max(band.effective_groups - 1, _LEAST_FREEDOM)
        reach = _quantile(freedom, (1 + band.level) / 2)
        m, count = self._m, self._total.count
        low, high = (self._total.mapped(limit) for limit in (band.lower_map, band.upper_map))
        low, high = np.minimum(low, m), np.maximum(high, m)
        # If the map predicts too much, it may be too high: down to its lower limit.
        below = self._own_volume.estimate > 0
        other = float(count @ (low if below else high))
        volume = abs(math.log(max(other, 1e-9) / self._volume))
        rises = (self._arm > 0) == (self._own_tilt.estimate > 0)
        pull = count * np.abs(self._arm) @ np.where(rises, high - m, m - low)
        tilt = float(pull) / self._scale if self._scale else 0.0
        return MapErrors(volume / reach, tilt / reach, freedom)

    def measured(self, errors: MapErrors | None) -> tuple[Departure, Departure]:
        """Return volume and tilt with the errors of the map; None if these are not known."""
        both = (self._own_volume, self._own_tilt)
        if errors is None:
            return both
        return tuple(  # type: ignore[return-value]
            Departure(own.estimate, own.error, own.freedom, error, errors.freedom)
            for own, error in zip(both, errors[:2], strict=True)
        )


def _log_ratio(predicted: _Floats, marked: _Floats) -> Departure:
    p, v = math.fsum(predicted), math.fsum(marked)
    theta, share = math.log(p / v), marked / v
    change = np.log(np.maximum(p - predicted, 1e-9) / (v - marked)) - theta
    squares = math.fsum((1 - share) * change**2)
    return Departure(theta, math.sqrt(squares), effective_groups(marked) - 1)


def _sum(pull: _Floats, information: _Floats, scale: float) -> Departure:
    whole = math.fsum(information)
    if whole == 0 or scale == 0:
        return Departure(0.0, 0.0, _LEAST_FREEDOM)
    share = information / whole
    off = pull - share * math.fsum(pull)
    squares = math.fsum(off**2 / np.maximum(1 - share, 1e-9))
    freedom = effective_groups(information) - 1
    return Departure(math.fsum(pull) / scale, math.sqrt(squares) / scale, freedom)


def _quantile(freedom: float, probability: float) -> float:
    from scipy.special import stdtrit  # SciPy takes its time to be imported

    return float(stdtrit(max(freedom, _LEAST_FREEDOM), probability))
