"""Band of a calibration map: how far the map may be from that of all patients there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.host import real_numbers
from twintrack.arrays.numbers import number_between, whole_number
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.group_tally import GroupTally
from twintrack.calibration.jackknife import CLIP, jackknife, log_odds
from twintrack.calibration.map_bounds import corners
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.tally_fit import TallyFit
from twintrack.calibration.volume_interval import VolumeSpread
from twintrack.errors import InputError

BandKind = Literal["pointwise", "simultaneous"]

_GRID = 1001  # scores in [0, 1] at which a band is made, besides those asked for and the knots
_KNOTS = 1000  # of more knots only so many
_DRAWS = 2000  # of a simultaneous band


@dataclass(frozen=True, eq=False)
class MapBand(ByValue):
    """Band of a map over groups of cases (patients).

    Both limits are non-decreasing, lie between floor and ceiling of the map (0 and 1 unless it has
    others) and hold the map between them.

    Attributes
    ----------
    score : (S,) float64
        Where the map was evaluated.
    value : (S,) float64
        The map fitted to all groups.
    low, high : (S,) float64
        Limits of the map of all patients there are.
    level : float
        With which probability it is between the limits: at each score by itself ("pointwise"), or
        at all scores at once ("simultaneous").
    kind : {"pointwise", "simultaneous"}
    groups : int
        Number of groups; a case without a group is one.
    effective_groups : float
        By their votes (`effective.effective_groups`): so many groups with equally many votes tell
        as much. From 1 to `groups`; 0 if there are no votes.
    volumes : VolumeSpread or None
        How far the volumes of left-out cases were from those predicted: `VolumeSpread.interval`
        gives the interval of a new one. None where the cases of a group are known in sum alone.
    """

    score: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    kind: BandKind
    groups: int
    effective_groups: float
    volumes: VolumeSpread | None = None

    @property
    def lower_map(self) -> CalibrationMap:
        """The lower limit as a map, linear between the scores of the band."""
        return self._map(self.low)

    @property
    def upper_map(self) -> CalibrationMap:
        """The upper limit as a map, linear between the scores of the band."""
        return self._map(self.high)

    def at_corners(self) -> MapBand:
        """Return the band at the scores, ascending, that `lower_map` and `upper_map` need."""
        _, place = np.unique(self.score, return_index=True)
        ordered = [
            values.ravel()[place] for values in (self.score, self.value, self.low, self.high)
        ]
        kept = corners(*ordered[1:])
        score, value, low, high = (values[kept] for values in ordered)
        return replace(self, score=score, value=value, low=low, high=high)

    def _map(self, limit: NDArray[np.float64]) -> CalibrationMap:
        x, place = np.unique(self.score, return_index=True)
        return CalibrationMap(x, limit.ravel()[place])


def band_scores(fitted: CalibrationMap) -> NDArray[np.float64]:
    """Return scores between which the limits of a map's band are close to straight lines.

    1001 equally spaced ones, the knots of the map (of more than 1000 knots some), and what is next
    to them: at a knot a limit may step.
    """
    knots = _some_knots(fitted)
    beside = [np.nextafter(knots, 0), knots, np.nextafter(knots, 1)]
    return np.unique(np.concatenate([np.linspace(0, 1, _GRID), *beside]))


def _some_knots(fitted: CalibrationMap) -> NDArray[np.float64]:
    return fitted.x[:: 1 + len(fitted.x) // _KNOTS]


def band_of_groups(
    fitted: CalibrationMap,
    fit: TallyFit,
    total: ScoreTally,
    groups: Iterable[GroupTally],
    number: int,
    scores: ArrayLike | None = None,
    *,
    level: float = 0.95,
    kind: BandKind = "pointwise",
    seed: int = 0,
) -> MapBand:
    r"""Return the band of a map from the tallies of groups, by leaving out each of them.

    On the log-odds scale, :math:`\theta = \log(m / (1 - m))` with m clipped at 1e-5, at each score:

    .. math::
        se^2 = \sum_c (1 - h_c) (\theta_{-c} - \theta)^2, \qquad
        \theta \pm t_{(1 + level) / 2}(n - 1) \cdot se, \qquad n = 1 / \sum_c h_c^2

    where :math:`\theta_{-c}` is of the map fitted without group c, and :math:`h_c` the group's
    share of the rarer of the two answers around this score: of the votes where most raters say no,
    of the voxels without one where most say yes, in the isotonic blocks of the knots on both sides.
    This is the delete-one jackknife with the correction of small samples for leverage (Bell and
    McCaffrey 2002): a plain one counts a group with a large share too much. n is Kish's effective
    number of groups around this score; as it comes close to 1, the band comes to hold all of
    [0, 1]. Where one of the blocks has no rater who says yes, or none who says no, the groups alone
    say nothing. The map is monotone, however: at every score the upper limit is the least of those
    of higher scores, the lower limit the greatest of those of lower scores.

    A simultaneous band takes, in place of :math:`(1 + level) / 2`, the probability of the normal
    distribution up to the quantile `level` of :math:`\max_s |\sum_c \xi_c \sqrt{1 - h_c}
    (\theta_{-c} - \theta)| / se`, with :math:`\xi_c` standard normal (a multiplier bootstrap of
    sup-t; Montiel Olea and Plagborg-Møller 2019).

    Parameters
    ----------
    fitted
        The map that the band is of.
    fit
        How it was made; each group is left out of a map made so.
    total
        The sum of all groups.
    groups
        The groups' tallies, gone through once; one is in memory at a time.
    number
        How many there are.
    scores, level, kind
        As in `Calibrator.band`.
    seed
        Of a simultaneous band.

    Raises
    ------
    ValueError
        There are fewer than two groups, or one alone has voxels; or scores, level or kind make no
        sense.
    """
    from scipy.special import expit, stdtrit  # SciPy takes its time to be imported

    if number < 2:
        raise InputError(
            f"a band over cases needs at least two cases, here {number}; name the cases in "
            "partial_fit (those of one patient count as one)"
        )
    level = number_between(level, "level", 0, 1)
    if kind not in get_args(BandKind):
        raise InputError(
            f"it must be one of {', '.join(get_args(BandKind))}", argument="kind", value=kind
        )
    seed = whole_number(seed, "seed", 0) if kind == "simultaneous" else 0
    at = np.linspace(0, 1, _GRID) if scores is None else real_numbers(scores, "scores")
    value = fitted(at)
    # Each score's limits are those of its neighbours too, so all bands are made at many scores.
    everywhere = np.unique(
        np.concatenate([np.linspace(0, 1, _GRID), _some_knots(fitted), at.ravel()])
    )
    draws = 0 if kind == "pointwise" else _DRAWS
    spread = jackknife(fit, total, groups, everywhere, draws, seed)
    of_groups = (level, kind, number, spread.effective_groups, spread.volumes)
    if fit.target == "none":  # the identity, whoever the patients are
        return MapBand(at, value, value, value, *of_groups)

    freedom = spread.local_groups - 1
    of_all = fitted(everywhere)
    known = spread.mixed & (freedom > 0) & (of_all > CLIP) & (of_all < 1 - CLIP)
    reach = spread.quantile(known, level) if draws else (1 + level) / 2
    with np.errstate(over="ignore"):
        width = stdtrit(np.where(known, freedom, 1), reach) * spread.error
    width = np.where(spread.error > 0, width, 0)  # not NaN where the quantile is infinite
    theta = log_odds(of_all)
    low, high = expit(theta - width), expit(theta + width)
    # What is beyond the clip is not told apart from 0 and 1.
    low = np.where(known & (low > CLIP), low, 0)
    high = np.where(known & (high < 1 - CLIP), high, 1)
    low = np.minimum(np.maximum.accumulate(low), of_all)
    high = np.maximum(np.minimum.accumulate(high[::-1])[::-1], of_all)
    low, high = (np.clip(limit, fit.floor, fit.ceiling) for limit in (low, high))
    place = np.searchsorted(everywhere, at)
    return MapBand(at, value, low[place], high[place], *of_groups)
