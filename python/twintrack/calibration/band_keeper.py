"""BandKeeper: the part of a calibrator that says how sure its map is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.case_gatherer import CaseGatherer
from twintrack.calibration.map_band import BandKind, MapBand, band_of_groups, band_scores
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.tally_fit import TallyFit
from twintrack.calibration.volume_interval import VolumeInterval
from twintrack.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self


class BandKeeper(CaseGatherer):
    """Makes the band of the map that `Calibrator` makes, and keeps one with it."""

    map_: CalibrationMap
    band_: MapBand | None
    floor_: float
    ceiling_: float

    def band(
        self,
        scores: ArrayLike | None = None,
        level: float = 0.95,
        kind: BandKind = "pointwise",
    ) -> MapBand:
        """Return the band of the map over groups of cases (patients), from the tallies alone.

        Each group is left out in turn (`band_of_groups`); nothing is drawn but the multipliers of a
        simultaneous band, from the calibrator's `seed`.

        Parameters
        ----------
        scores : (S,) floats in [0, 1], optional
            Where to evaluate; 1001 equally spaced scores by default.
        level : float
            Probability, between 0 and 1, that the map of all patients there are is in the band.
        kind : {"pointwise", "simultaneous"}
            Whether it is so at each score by itself, or at all scores in [0, 1] at once.

        Raises
        ------
        ValueError
            There are fewer than two groups with voxels, or some cases are there in sums of several
            groups alone, which cannot be left out one by one:
            `twintrack.runs.case_band.band_over_cases` reads them from a store.
        """
        with self._lock:
            fitted, fit, made_with = self.map_, self.tally_fit, self.made_with_
            groups = self._tallies().weighted(made_with["case_weight"]).each_group()
        total = ScoreTally.of_all([group.total for group in groups])
        seed, number = made_with["seed"], len(groups)
        return band_of_groups(
            fitted, fit, total, groups, number, scores, level=level, kind=kind, seed=seed
        )

    def keep_band(self, band: MapBand | None = None) -> Self:
        """Keep a band with the map as `band_`: it is saved with it, with its volume interval.

        Parameters
        ----------
        band : MapBand, optional
            Of this map, at scores that are close enough for straight lines between them
            (`band_scores`); by default the pointwise 95% band. It goes when the map does.

        Raises
        ------
        ValueError
            As `band`; or it is the band of another map.
        """
        if band is None:
            band = self.band(band_scores(self.map_))
        band = band.at_corners()
        with self._lock:
            if not np.array_equal(self.map_(band.score), band.value):
                raise InputError("it is of another map than this", argument="band")
            self.band_ = band
        return self

    def volume_interval(self, volume: ArrayLike, level: float = 0.95) -> VolumeInterval:
        """Return the interval of the volume that raters mark on average in a new case.

        By the kept band or, without one, from the tallies each time that it is asked for.

        Parameters
        ----------
        volume : array of any shape, not negative
            Predicted volumes in voxels: sums of calibrated scores over the voxels of a case that
            count (`region_`).
        level : float
            Probability that the volume of a case like those of the fit lies inside.

        Returns
        -------
        VolumeInterval
            ``low`` and ``high`` in voxels, float64 arrays of that shape.

        Raises
        ------
        ValueError
            As `band` and `VolumeSpread.interval`; or the cases of a patient are there in sum alone,
            or fewer than two patients have a case.
        """
        band = self.band_ or self.band([0.5])
        if band.volumes is None:
            raise InputError(
                "volumes are compared case by case, but those of some patients are there in sum "
                "alone: add each case by name"
            )
        return band.volumes.interval(volume, level)

    @property
    def tally_fit(self) -> TallyFit:
        """How the map was made, to make maps of some of the cases."""
        made_with = self.made_with_
        return TallyFit(
            made_with["target"],
            self.n_bins_asked,
            int(made_with["rater"]),
            self.floor_,
            self.ceiling_,
            made_with["kind"],
        )

    @property
    def n_bins_asked(self) -> int:
        """Number of bins of the map, as `ScoreTally.equal_mass_bins` takes it."""
        raise NotImplementedError
