"""Interval of the volume that raters mark in a new case, given the volume that a map predicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.host import real_numbers
from twintrack.arrays.numbers import number_between
from twintrack.calibration.effective import effective_groups
from twintrack.errors import InputError

_SMALL = 0.1  # of the median predicted volume: below, volumes differ by voxels rather than factors


@dataclass(frozen=True, eq=False)
class VolumeInterval(ByValue):
    """Limits of the volume that raters mark on average.

    Attributes
    ----------
    low, high : float64 arrays
        In the unit and shape of the prediction. `high` may be infinite.
    level : float
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float


@dataclass(frozen=True)
class VolumeSpread(ByValue):
    r"""How far the volumes that raters mark were from what maps of the other patients predict.

    For each calibration case, with V its volume (the sum of its mean responses), P the one
    predicted by the map fitted without its patient and k the `offset`:
    :math:`r = \log((V + k) / (P + k))`.

    Attributes
    ----------
    offset : float
        k in voxels: a tenth of the median P, at least 1. Larger volumes differ by factors, smaller
        ones, and cases without a tumour, by voxels.
    centre, spread : float
        Mean and standard deviation of r over the cases.
    effective_groups : float
        Effective number of patients, by their numbers of cases (Kish).
    cases, groups : int
        Cases with voxels in the fit, and their patients.
    """

    offset: float
    centre: float
    spread: float
    effective_groups: float
    cases: int
    groups: int

    @classmethod
    def of_groups(cls, groups: Iterable[Sequence[tuple[float, float]]]) -> VolumeSpread | None:
        """Return the spread of the cases' predicted and marked volumes, in voxels, by group.

        None if fewer than two groups have a case.
        """
        found = [volumes for volumes in groups if volumes]
        if len(found) < 2:
            return None
        predicted, marked = np.array([pair for volumes in found for pair in volumes]).T
        number = effective_groups([len(volumes) for volumes in found])
        offset = max(1.0, _SMALL * float(np.median(predicted)))
        errors = np.log((marked + offset) / (predicted + offset))
        # Summed exactly, so that the order of the cases does not matter.
        centre = math.fsum(errors) / len(errors)
        variance = math.fsum((errors - centre) ** 2) / len(errors)
        spread = math.sqrt(variance * number / (number - 1))
        return cls(offset, centre, spread, number, len(errors), len(found))

    def interval(
        self, volume: ArrayLike, level: float = 0.95, voxel_volume: float = 1.0
    ) -> VolumeInterval:
        r"""Return the interval of the volume that raters mark on average in a new case.

        With n the effective number of groups:

        .. math::
            \log(V + k) = \log(P + k) + \mathrm{centre}
                \pm t_{(1 + level) / 2}(n - 1) \cdot \mathrm{spread} \cdot \sqrt{1 + 1 / n}

        It holds what cases differ by and what few patients leave open of the map, as measured on
        patients whom the map has not seen.

        Parameters
        ----------
        volume : array of any shape, not negative
            Predicted volumes P: sums of calibrated scores.
        level : float
            Probability, between 0 and 1, with which V of a case like those of the fit lies inside.
        voxel_volume : float
            Of one voxel, in the unit of `volume`; 1 for voxels.

        Raises
        ------
        ValueError
            For a volume that is negative, infinite or NaN, or another level.
        """
        from scipy.special import stdtrit  # SciPy takes its time to be imported

        level = number_between(level, "level", 0, 1)
        predicted = real_numbers(volume, "volume") / voxel_volume
        if not np.all(np.isfinite(predicted) & (predicted >= 0)):
            raise InputError("it must be finite and 0 or more", argument="volume", value=volume)
        n = self.effective_groups
        reach = 0.0
        if self.spread > 0:
            reach = float(stdtrit(n - 1, (1 + level) / 2)) * self.spread * math.sqrt(1 + 1 / n)
        with np.errstate(over="ignore"):
            low, high = (
                np.maximum((predicted + self.offset) * np.exp(shift) - self.offset, 0)
                for shift in (self.centre - reach, self.centre + reach)
            )
        return VolumeInterval(low * voxel_volume, high * voxel_volume, level)
