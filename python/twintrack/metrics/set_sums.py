"""SetSums: the sums of a `CaseTally` over the voxels that one set of raters looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twintrack import _core

PARTS = ("votes", "score_bins", "confidence_bins", "squares", "rater_scores")
"""Names of the core's sums, in their order."""


class SetSums:
    """Reads the integer sums of the core.

    Parameters
    ----------
    tally : _core.CaseTally
    """

    def __init__(self, tally: _core.CaseTally) -> None:
        self.tally = tally

    @classmethod
    def of(cls, raters: int, bins: int, sums: NDArray[np.uint64] | None = None) -> SetSums:
        """Return these sums, or none, of a number of raters."""
        if sums is None:
            return cls(_core.CaseTally(raters, bins))
        made = _core.CaseTally.__new__(_core.CaseTally)
        made.__setstate__((raters, bins, sums))
        return cls(made)

    def copy(self) -> SetSums:
        """Return a copy."""
        return SetSums.of(*self.tally.__getstate__())

    @property
    def sums(self) -> NDArray[np.uint64]:
        """All sums in a row."""
        return self.tally.__getstate__()[2]

    @property
    def votes(self) -> NDArray[np.uint64]:
        """Voxels by number of thresholds exceeded and number of votes: (7, N + 1)."""
        return self.tally.votes

    @property
    def score_bins(self) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint64]]:
        """Voxels, sum of scores and marks (B, N), by bin of the score."""
        rows = self.tally.score_bins
        return rows[:, 0], _fixed(rows[:, 1], rows[:, 2]), rows[:, 3:]

    @property
    def confidence_bins(self) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint64]]:
        """Voxels, sum of confidences and agreements (B, N), by bin of the confidence."""
        background, tumour = self.tally.confidence_bins
        return (
            background[:, 0] + tumour[:, 0],
            _fixed(background[:, 1], background[:, 2]) + _fixed(tumour[:, 1], tumour[:, 2]),
            (background[:, :1] - background[:, 3:]) + tumour[:, 3:],
        )

    @property
    def rater_voxels(self) -> NDArray[np.uint64]:
        """Voxels that each rater marked: (N,)."""
        return np.asarray(self.score_bins[2].sum(axis=0))

    @property
    def squared_scores(self) -> float:
        """Sum of the squared scores."""
        whole, fraction = self.tally.squares
        return float(_fixed(whole, fraction))

    @property
    def rater_scores(self) -> NDArray[np.float64]:
        """Sum of the scores of the voxels that each rater marked: (N,)."""
        rows = self.tally.rater_scores
        return _fixed(rows[:, 0], rows[:, 1])


def _fixed(whole: NDArray[np.uint64], fraction: NDArray[np.uint64]) -> NDArray[np.float64]:
    one: int = _core.FIXED_SUM_ONE
    return np.asarray(whole, np.float64) + np.asarray(fraction, np.float64) / one
