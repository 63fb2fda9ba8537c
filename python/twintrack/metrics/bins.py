"""Equally wide bins of a score or confidence, and what lies in them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.by_value import ByValue


@dataclass(eq=False)
class Bins(ByValue):
    """Voxels by bin of a score or confidence.

    Attributes
    ----------
    count : (B,) uint64
        Voxels.
    total : (B,) float64
        Sum of their scores or confidences.
    votes : (B, N) uint64
        How many of them each rater marked or, for a confidence, agreed with.
    """

    count: NDArray[np.uint64]
    total: NDArray[np.float64]
    votes: NDArray[np.uint64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean score or confidence of each bin, NaN in empty ones."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / self.count)

    @property
    def rates(self) -> NDArray[np.float64]:
        """Share of each bin's voxels that each rater marked: (B, N), NaN in empty bins."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.votes / self.count[:, np.newaxis])

    @property
    def mhr(self) -> NDArray[np.float64]:
        """Mean human response of each bin, NaN in empty ones."""
        with np.errstate(invalid="ignore"):
            pairs = self.count * np.float64(self.votes.shape[1])
            return np.asarray(self.votes.sum(axis=1) / pairs)

    def closed(self) -> Bins:
        """Return the bins with the last, which holds only the value 1, joined to the one before."""
        parts = (getattr(self, field.name) for field in fields(self))
        return Bins(*(np.concatenate([a[:-2], a[-2:-1] + a[-1:]]) for a in parts))
