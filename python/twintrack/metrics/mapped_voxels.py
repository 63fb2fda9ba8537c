"""MappedVoxels: the voxels of a tally by calibrated score, with what raters answered there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.checks import as_numbers
from twintrack.metrics.tally_evaluation import CountedScores, typed_scores

_Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MappedVoxels(ByValue):
    """Voxels by calibrated score, each with the mean response of the raters who looked (MHR).

    Attributes
    ----------
    value : (K,) float64
        Calibrated scores that occur, ascending.
    count : (K,) float64
        Voxels with that score.
    response, squares : (K,) float64
        Sums over these voxels of MHR, and of MHR².
    """

    value: NDArray[np.float64]
    count: NDArray[np.float64]
    response: NDArray[np.float64]
    squares: NDArray[np.float64]

    @property
    def voxels(self) -> float:
        """Number of voxels."""
        return float(self.count.sum())


def mapped_voxels(
    tally: CountedScores,
    map: Callable[[Any], Any] | None = None,  # noqa: A002 - what it is
) -> MappedVoxels:
    """Return the voxels of a tally by the value that a map gives them.

    Parameters
    ----------
    tally : ScoreTally
    map : CalibrationMap or Calibrator, optional
        None leaves the scores as they are.

    Raises
    ------
    ValueError
        The tally is of an earlier version, without counts of voxels by number of votes.
    """
    parts = []
    for raters, rows in tally.cell_rows().items():
        typed = typed_scores(tally, rows.score)
        mapped = typed if map is None else getattr(map, "map_", map)(typed)
        n = len(raters)
        k = np.arange(1, n + 1, dtype=np.float64)
        exactly = np.stack(rows.exactly, axis=1).astype(np.float64)
        count, response = rows.voxels.astype(np.float64), exactly @ k / n
        value = as_numbers(mapped).astype(np.float64)
        part = np.stack([value, count, response, exactly @ k**2 / n**2])
        parts.append(part[:, count > 0])
    return _joined(parts)


def all_of(groups: Sequence[MappedVoxels]) -> MappedVoxels:
    """Return the voxels of several groups together."""
    return _joined([np.stack([*vars(group).values()]) for group in groups])


def _joined(parts: Sequence[_Floats]) -> MappedVoxels:
    value, *sums = np.concatenate([np.zeros((4, 0)), *parts], axis=1)
    occurring, place = np.unique(value, return_inverse=True)
    added = (np.bincount(place, own, len(occurring)).astype(np.float64) for own in sums)
    return MappedVoxels(occurring, *added)
