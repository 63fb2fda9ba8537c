"""TallyFit: a calibrator's way from a tally to a map, for maps of some of the cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.equal_mass import EVERY_CELL, bins_of_cells
from twintrack.calibration.map_fit import IDENTITY, Target, fit_map
from twintrack.calibration.parametric import MapKind, fit_parametric
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.target_tally import target_tally


@dataclass(frozen=True)
class TallyFit:
    """How a map is made of a tally, with the parameters of a fitted `Calibrator`.

    Floor and ceiling are left out of it: where they are reached they are no finding about the
    patients.

    Attributes
    ----------
    target : {"mhr", "single", "hard", "majority", "none"}
    bins : int
        Number of equal-mass bins asked for, or chosen, as `ScoreTally.equal_mass_bins` takes it.
    rater : int
        Which rater "single" follows, 0-based.
    floor, ceiling : float
        Bounds of the calibrator's map.
    kind : {"isotonic", "platt", "beta", "temperature"}
    """

    target: Target
    bins: int
    rater: int
    floor: float = 0.0
    ceiling: float = 1.0
    kind: MapKind = "isotonic"

    def seen(self, tally: ScoreTally) -> ScoreTally:
        """Return the voxels and answers that count."""
        return target_tally(tally, self.target, self.rater)

    def __call__(self, tally: ScoreTally) -> CalibrationMap:
        """Return the map of some of the voxels that count."""
        if self.target == "none":
            return IDENTITY
        if self.kind != "isotonic":
            cells = tally.equal_mass_bins(EVERY_CELL)
            return fit_parametric(self.kind, cells, self.target, self.rater)[0]
        return fit_map(tally.equal_mass_bins(self.bins), self.target, self.rater)

    def yes(self, tally: ScoreTally) -> NDArray[np.float64]:
        """Return how many of the raters whom the map follows marked the voxels of each cell.

        Returns
        -------
        (K,) float64
            In the order of ``tally.cells``: votes divided by the number of these raters who looked,
            so from 0 to ``tally.counts``.
        """
        cells = tally.cells
        yes = np.zeros(len(cells))
        for raters, (own, sums) in tally.set_rows().items():
            votes = list(sums[:, 2 : 2 + len(raters)].T)  # column by column: rows are short
            if self.target == "single":
                votes = [votes[raters.index(self.rater)]]
            place = slice(None) if len(own) == len(cells) else np.searchsorted(cells, own)
            yes[place] += sum(votes) / np.float64(len(votes))
        return yes

    def volumes(self, tally: ScoreTally, fitted: CalibrationMap) -> tuple[float, float]:
        """Return the volume that a map within the bounds predicts, and the one that is marked.

        Parameters
        ----------
        tally
            The voxels of a case that count (`seen`).
        fitted
            A map of other cases.

        Returns
        -------
        predicted, marked : float
            In voxels: sums of the map's values, and of the response of the raters whom it follows.
        """
        cells, sums = tally.pooled_rows()
        if not len(cells):
            return 0.0, 0.0
        # Of one rater: the votes have no part in the mean scores, and take time.
        rows = cells, np.ascontiguousarray(sums[:, :3])
        means = bins_of_cells(rows, 1, EVERY_CELL).mean_score
        values = np.clip(np.interp(means, fitted.x, fitted.y), self.floor, self.ceiling)
        return float((sums[:, 0] * values).sum()), float(self.yes(tally).sum())
