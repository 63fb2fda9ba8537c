"""MapFigures: many maps measured on one case at once, from its tally."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.checks import as_numbers
from twintrack.metrics.case_tally import BINS
from twintrack.metrics.crps import crps_corrected_each
from twintrack.metrics.tally_evaluation import CountedScores, typed_scores
from twintrack.metrics.tdsc import SMOOTHING, THRESHOLDS


@dataclass(frozen=True, eq=False)
class MapFigures(ByValue):
    """Figures of M maps on a case.

    Attributes
    ----------
    tdsc, crps, predicted : (M,) float64
        As `evaluate_tally` has them by the corrected protocol, to rounding; volumes in voxels. CRPS
        is NaN where a rater did not look at all voxels.
    marked : float
        What the raters mark on average, in voxels.
    count, off : (B, 50) float64
        Of the first B maps, by equally wide bin of the calibrated score: voxels, and the sum of
        (m - MHR).
    """

    tdsc: NDArray[np.float64]
    crps: NDArray[np.float64]
    predicted: NDArray[np.float64]
    marked: float
    count: NDArray[np.float64]
    off: NDArray[np.float64]


def figures_of_maps(
    tally: CountedScores,
    maps: Sequence[Callable[[Any], Any] | None],
    binned: int = 0,
) -> MapFigures:
    """Measure maps on the voxels of a tally, of which each needs one look at its cells.

    Maps must not fall, as calibration maps do not: voxels beyond a threshold are then those of the
    last cells, and their numbers are looked up.

    Parameters
    ----------
    tally : ScoreTally
        Of all voxels of a case, for TDSC, CRPS and volumes.
    maps : (M,)
        None leaves the scores as they are.
    binned : int
        Number B of maps, the first ones, whose voxels are counted by bin, too.

    Raises
    ------
    ValueError
        The tally is of an earlier version, without counts of voxels by number of votes.
    """
    exceeding, both = np.zeros((2, len(maps), len(THRESHOLDS)))
    marked, predicted = np.zeros(len(THRESHOLDS)), np.zeros(len(maps))
    count, off = np.zeros((2, binned, BINS))
    volumes, looked = np.zeros((2, tally.raters))
    response = 0.0
    for raters, rows in tally.cell_rows().items():
        n, typed = len(raters), typed_scores(tally, rows.score)
        voxels = rows.voxels.astype(np.float64)
        own = np.array([votes.sum(dtype=np.uint64) for votes in rows.votes])
        volumes[list(raters)] += own
        looked[list(raters)] += voxels.sum()
        response += float(own.sum()) / n
        # By number of votes at least, from each row on: column 0 has all voxels.
        ending = np.zeros((len(voxels) + 1, n + 1), np.uint64)
        ending[:-1, 0] = rows.voxels
        ending[:-1, 1:] = np.cumsum(np.stack(rows.exactly[::-1], axis=1), axis=1)[:, ::-1]
        ending = np.cumsum(ending[::-1], axis=0)[::-1]
        needed = np.searchsorted(np.arange(n + 1) / np.float64(n), THRESHOLDS, side="right")
        marked += ending[0, needed]
        mean = rows.response
        for k, one in enumerate(maps):
            mapped = as_numbers(typed if one is None else one(typed)).astype(np.float64)
            first = np.searchsorted(mapped, THRESHOLDS, side="right")
            exceeding[k] += ending[first, 0]
            both[k] += ending[first, needed]
            predicted[k] += np.einsum("i,i", mapped, voxels)  # the same on any number of threads
            if k < binned:
                at = np.minimum((mapped * BINS).astype(np.intp), BINS - 1)
                count[k] += np.bincount(at, voxels, BINS)
                off[k] += np.bincount(at, mapped * voxels - mean, BINS)
    dice = np.where(exceeding + marked > 0, 2 * both / (exceeding + marked + SMOOTHING), 1.0)
    crps = np.full(len(maps), math.nan)
    seen = looked > 0
    if len(set(looked[seen].tolist())) == 1:
        crps = crps_corrected_each(predicted, volumes[seen])
    return MapFigures(dice.mean(axis=1), crps, predicted, response, count, off)
