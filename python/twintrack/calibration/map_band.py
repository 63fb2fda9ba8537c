"""Band of a calibration map over resampled cases, from tallies alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.numbers import number_between, whole_number
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.map_fit import Target, fit_map
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError


@dataclass(frozen=True)
class MapBand:
    """Pointwise band of a map.

    Attributes
    ----------
    score : (S,) float64
        Where the maps were evaluated.
    value : (S,) float64
        The map fitted to all cases.
    low, high : (S,) float64
        Quantiles of the resampled maps.
    level : float
        Share of the resampled maps between `low` and `high` at each score.
    resamples : int
    """

    score: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    resamples: int


def bootstrap_band(
    tallies: Sequence[ScoreTally],
    fitted: CalibrationMap,
    scores: NDArray[np.float64],
    bins: int,
    target: Target,
    rater: int,
    resamples: int,
    level: float,
    seed: int,
) -> MapBand:
    """Fit the map to `resamples` draws of the cases with replacement.

    Cases are the independent units: voxels of one case are not. Every draw is the integer sum of
    the drawn cases' tallies, so a resampled map is exactly what a fit to those cases would give.
    """
    cases = len(tallies)
    if cases < 2:
        raise InputError(
            "a band over cases needs at least two cases; name the cases in partial_fit"
        )
    resamples, level = whole_number(resamples, "resamples", 2), number_between(level, "level", 0, 1)
    seed = whole_number(seed, "seed", 0)
    at = np.ascontiguousarray(scores, np.float64)
    maps = np.empty((resamples, at.size))
    rng = np.random.default_rng(seed)
    # The union of the cells, and where each case's rows go in it: sums are then plain array sums.
    cells = np.unique(np.concatenate([tally.cells for tally in tallies]))
    places = [np.searchsorted(cells, tally.cells) for tally in tallies]
    for resample in range(resamples):
        times = np.bincount(rng.integers(cases, size=cases), minlength=cases)
        sums = np.zeros((len(cells), tallies[0].raters + 2), np.uint64)
        for case in np.flatnonzero(times).tolist():
            sums[places[case]] += np.uint64(times[case]) * tallies[case].rows()[1]
        drawn = ScoreTally.from_rows(cells, sums)
        maps[resample] = (
            at if drawn.voxels == 0 else fit_map(drawn.equal_mass_bins(bins), target, rater)(at)
        )
    tail = (1 - level) / 2
    low, high = np.quantile(maps, [tail, 1 - tail], axis=0)
    return MapBand(at, fitted(at), low, high, level, resamples)
