"""Band of a calibration map over resampled cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.host import real_numbers
from twintrack.arrays.numbers import number_between, whole_number
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.map_fit import IDENTITY, Target, fit_map
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError


@dataclass(frozen=True, eq=False)
class MapBand(ByValue):
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


MapsOfDraws: TypeAlias = Callable[[NDArray[np.int64]], Iterator[CalibrationMap]]
"""From how often each case occurs in each draw, (draws, cases), to the draws' maps."""


def resampled_band(
    fitted: CalibrationMap,
    cases: int,
    maps: MapsOfDraws,
    scores: ArrayLike | None,
    resamples: int,
    level: float,
    seed: int,
) -> MapBand:
    """Fit the map to `resamples` draws of the cases with replacement.

    Cases are the independent units: voxels of one case are not. `Calibrator.bootstrap_band`
    describes the parameters; the same seed draws the same cases, whoever makes the maps.
    """
    if cases < 2:
        raise InputError(
            f"a band over cases needs at least two cases, here {cases}; name the cases in "
            "partial_fit"
        )
    resamples, level = whole_number(resamples, "resamples", 2), number_between(level, "level", 0, 1)
    rng = np.random.default_rng(whole_number(seed, "seed", 0))
    at = np.linspace(0, 1, 1001) if scores is None else real_numbers(scores, "scores")
    times = np.empty((resamples, cases), np.int64)
    for draw in times:
        draw[:] = np.bincount(rng.integers(cases, size=cases), minlength=cases)
    drawn = np.stack([made(at) for made in maps(times)])
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return MapBand(at, fitted(at), low, high, level, resamples)


def maps_of_tallies(
    tallies: Sequence[ScoreTally], bins: int, target: Target, rater: int
) -> MapsOfDraws:
    """Make the maps of draws from cases' tallies, each exactly what a fit to its cases would give.

    For every draw the tallies are added up cell by cell: exact for some hundreds of cases, slow for
    thousands, for which `twintrack.runs.case_band` groups the cells first.
    """

    def maps(times: NDArray[np.int64]) -> Iterator[CalibrationMap]:
        # The union of the cells, and where each case's rows go in it: sums are plain array sums.
        cells = np.unique(np.concatenate([tally.cells for tally in tallies]))
        places = [np.searchsorted(cells, tally.cells) for tally in tallies]
        for draw in times:
            sums = np.zeros((len(cells), tallies[0].raters + 2), np.uint64)
            for case in np.flatnonzero(draw).tolist():
                sums[places[case]] += np.uint64(draw[case]) * tallies[case].rows()[1]
            drawn = ScoreTally.from_rows(cells, sums)
            empty = drawn.voxels == 0
            yield IDENTITY if empty else fit_map(drawn.equal_mass_bins(bins), target, rater)

    return maps
