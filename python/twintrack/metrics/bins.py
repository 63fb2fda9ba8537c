"""Equally wide bins of a score or confidence, and what lies in them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

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
    looked : (B, N) uint64, optional
        How many of them each rater looked at; None if every rater looked at all.
    looked_total : (B, N) float64, optional
        Sum of the scores or confidences of those.
    responses : (B,) float64, optional
        Sum over voxels of votes / raters who looked.
    """

    count: NDArray[np.uint64]
    total: NDArray[np.float64]
    votes: NDArray[np.uint64]
    looked: NDArray[np.uint64] | None = None
    looked_total: NDArray[np.float64] | None = None
    responses: NDArray[np.float64] | None = None

    @property
    def count_of(self) -> NDArray[np.uint64]:
        """Voxels of each bin that each rater looked at: (B, N)."""
        return self._of_raters(self.count) if self.looked is None else self.looked

    @property
    def total_of(self) -> NDArray[np.float64]:
        """Sum of the scores or confidences of these: (B, N)."""
        return self._of_raters(self.total) if self.looked_total is None else self.looked_total

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean score or confidence of each bin, NaN in empty ones."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / self.count)

    @property
    def rates(self) -> NDArray[np.float64]:
        """Share of the voxels that a rater looked at that he marked: (B, N), NaN without any."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.votes / self.count_of)

    @property
    def response(self) -> NDArray[np.float64]:
        """Sum of the mean human response over the voxels of each bin: (B,)."""
        return self.votes.mean(axis=1) if self.responses is None else self.responses

    @property
    def mhr(self) -> NDArray[np.float64]:
        """Mean human response of each bin, NaN in empty ones."""
        with np.errstate(invalid="ignore"):
            if self.responses is not None:
                return np.asarray(self.responses / self.count)
            pairs = self.count * np.float64(self.votes.shape[1])
            return np.asarray(self.votes.sum(axis=1) / pairs)

    def closed(self) -> Bins:
        """Return the bins with the last, which holds only the value 1, joined to the one before."""

        def joined(name: str) -> Any:
            column = getattr(self, name)
            if column is None:
                return None
            return np.concatenate([column[:-2], column[-2:-1] + column[-1:]])

        return Bins(*(joined(field.name) for field in fields(self)))

    def _of_raters(self, column: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(column[:, np.newaxis], self.votes.shape[1], axis=1)
