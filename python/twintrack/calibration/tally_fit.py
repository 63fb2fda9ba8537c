"""TallyFit: a calibrator's way from a tally to a map, for maps of some of the cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.map_fit import IDENTITY, Target, fit_map
from twintrack.calibration.score_tally import ScoreTally


@dataclass(frozen=True)
class TallyFit:
    """How a map is made of a tally, with the parameters of a fitted `Calibrator`.

    Attributes
    ----------
    target : {"mhr", "single", "hard", "none"}
    bins : int
        Number of equal-mass bins asked for, or chosen.
    rater : int
        Which rater "single" follows, 0-based.
    """

    target: Target
    bins: int
    rater: int

    def __call__(self, tally: ScoreTally) -> CalibrationMap:
        """Return the map of a tally that holds voxels."""
        if self.target == "none":
            return IDENTITY
        return fit_map(tally.equal_mass_bins(self.bins), self.target, self.rater)

    def yes(self, tally: ScoreTally) -> NDArray[np.float64]:
        """Return how many of the raters whom the map follows marked the voxels of each cell.

        Returns
        -------
        (K,) float64
            In the order of ``tally.cells``: votes divided by the number of these raters, so from 0
            to ``tally.counts``.
        """
        votes = list(tally.votes.T)  # added column by column: rows are short
        if self.target == "single":
            votes = [votes[self.rater]]
        return np.asarray(sum(votes) / np.float64(len(votes)))
