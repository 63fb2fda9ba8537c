"""What a synthetic cohort is asked to be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from twintrack.errors import InputError

# A whole adult fits into this field of view (mm, x y z).
_FIELD_OF_VIEW = (384.0, 384.0, 320.0)
_COARSEST_DEFAULT_SPACING = 2.5

_SCORE_DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that decides what a synthetic cohort looks like.

    Attributes
    ----------
    shape
        Voxels along x, y, z; each at least 1.
    spacing
        Voxel size in mm along x, y, z. ``None`` fits a field of view of 384 × 384 × 320 mm (a whole
        adult) into `shape` but takes no voxel coarser than 2.5 mm, at which small vessels would
        break up: small shapes then show a crop around the pancreas and the tumour. All five vessels
        are in the picture when it covers at least 90 mm along every axis.
    raters
        Number N of raters, at least 1.
    tumour_radius
        Radius in mm of the sphere that has the tumour's volume, before vessels are carved from it.
        Cases differ by a factor exp(0.25 · `variation` · z), z standard normal, clipped at ±2.
    disagreement
        Standard deviation in mm by which a rater's surface departs from the true one, independently
        for every rater, smooth in space. 0 makes raters differ by their bias only.
    rater_bias
        Habit of each rater in mm: positive draws the tumour larger, in every case of the cohort.
        One value per rater, or a number b for habits evenly spaced from −b (rater 1) to b (rater
        N).
    smoothness
        Distance in mm over which departures of a surface change: larger gives broad bulges, smaller
        ragged outlines. Taken as a voxel where it is less.
    empty_raters
        Raters (0-based) who mark nothing in any case.
    score_bias
        Millimetres by which the network over-segments (negative: under-segments) the raters' mean
        surface.
    score_sharpness
        Steepness of the score across the surface. At 1 (with `score_bias` 0) the score is close to
        the mean human response; above 1 it is over-confident, below 1 under-confident.
    score_noise
        Standard deviation in mm by which the network's surface departs from the true one.
    roi_margin
        Margin in mm of the region of interest, a box around pancreas and tumour. Outside it the
        score is exactly 0, as nnU-Net pads what it did not predict.
    vessels
        Whether cases come with a vessel label map. The CT and its anatomy show them in any case.
    noise
        Standard deviation of the CT's noise in HU.
    variation
        Scale, from 0 to 2, of the differences between patients: position, tumour size and shape,
        course of the vessels, enhancement. At 0 all cases show the same patient with a spherical
        tumour in the head of the pancreas; bowel, noise, raters and network still differ.
    orientation
        Direction in which each voxel axis runs: R or L, then A or P, then S or I, for example
        ``"LPS"`` (as most CT series are stored) or ``"RAS"``. ``"random"`` draws one per case.
    oblique
        Greatest angle in degrees by which the patient is turned against the scanner about each
        axis; only the affine shows it. Below 45.
    score_dtype
        dtype of the score: float16, float32 or float64.
    seed
        Seed of the cohort, at least 0.

    Raises
    ------
    TypeError, ValueError
        A field has the wrong type or is out of range; the message names the field and the value.

    Notes ----- Every ingredient of a case draws from its own random stream, seeded by (seed, index,
    ingredient): a rater does not change when raters are added, nor the CT when the score is set
    otherwise.
    """

    shape: tuple[int, int, int] = (512, 512, 160)
    spacing: tuple[float, float, float] | None = None
    raters: int = 5
    tumour_radius: float = 14.0
    disagreement: float = 2.0
    rater_bias: float | tuple[float, ...] = 1.0
    smoothness: float = 8.0
    empty_raters: tuple[int, ...] = ()
    score_bias: float = 2.0
    score_sharpness: float = 3.0
    score_noise: float = 1.0
    roi_margin: float = 15.0
    vessels: bool = True
    noise: float = 12.0
    variation: float = 1.0
    orientation: str = "LPS"
    oblique: float = 0.0
    score_dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("raters", 1), ("seed", 0)):
            self._store(name, _whole(getattr(self, name), name, least))
        for name in ("tumour_radius", "smoothness", "score_sharpness"):
            self._store(name, _real(getattr(self, name), name, above=0))
        for name in ("disagreement", "score_noise", "roi_margin", "noise"):
            self._store(name, _real(getattr(self, name), name, least=0))
        self._store("score_bias", _real(self.score_bias, "score_bias"))
        self._store("variation", _real(self.variation, "variation", least=0, most=2))
        self._store("oblique", _real(self.oblique, "oblique", least=0, most=45))
        self._store("shape", _three(self.shape, "shape", "voxel counts", _whole, least=1))
        if self.spacing is not None:
            self._store("spacing", _three(self.spacing, "spacing", "lengths in mm", _real, above=0))
        if isinstance(self.rater_bias, Iterable):
            biases = tuple(_real(bias, "rater_bias") for bias in self.rater_bias)
            if len(biases) != self.raters:
                raise InputError(
                    f"rater_bias must be one number (mm), or one for each of {self.raters} raters, "
                    f"got {len(biases)} numbers"
                )
            self._store("rater_bias", biases)
        else:
            self._store("rater_bias", _real(self.rater_bias, "rater_bias"))
        if not isinstance(self.empty_raters, Iterable):
            raise TypeError(f"empty_raters must be a tuple of raters, got {self.empty_raters!r}")
        self._store(
            "empty_raters",
            tuple(_whole(k, "empty_raters", 0, self.raters - 1) for k in self.empty_raters),
        )
        if not isinstance(self.vessels, bool):
            raise TypeError(f"vessels must be True or False, got {self.vessels!r}")
        if self.orientation != "random" and not (
            isinstance(self.orientation, str)
            and len(self.orientation) == 3
            and all(map(str.__contains__, ("RL", "AP", "SI"), self.orientation))
        ):
            raise InputError(
                "orientation must be 'random' or three letters (R or L, A or P, S or I) such as "
                f"'LPS', got {self.orientation!r}"
            )
        if self.score_dtype not in _SCORE_DTYPES:
            raise InputError(
                f"score_dtype must be one of {', '.join(_SCORE_DTYPES)}, got {self.score_dtype!r}"
            )

    def _store(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel size in mm along x, y, z: `spacing`, or what it stands for when it is None."""
        if self.spacing is not None:
            return self.spacing
        x, y, z = (
            min(extent / n, _COARSEST_DEFAULT_SPACING)
            for extent, n in zip(_FIELD_OF_VIEW, self.shape, strict=True)
        )
        return (x, y, z)

    @property
    def rater_biases(self) -> tuple[float, ...]:
        """Habit of each rater in mm."""
        if isinstance(self.rater_bias, tuple):
            return self.rater_bias
        if self.raters == 1:
            return (0.0,)
        return tuple(np.linspace(-self.rater_bias, self.rater_bias, self.raters).tolist())


def _whole(value: object, name: str, least: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be whole, got {value!r}")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be {bounds}, got {value}")
    return int(value)


def _real(
    value: object,
    name: str,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and above < value and least <= value <= most):
        bounds = [f"above {above:g}"] * (above > -math.inf)
        bounds += [f"at least {least:g}"] * (least > -math.inf)
        bounds += [f"at most {most:g}"] * (most < math.inf)
        raise InputError(f"{name} must be {' and '.join(bounds) or 'finite'}, got {value}")
    return float(value)


def _three(value: object, name: str, what: str, check: Any, **limits: float) -> tuple[Any, ...]:
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise TypeError(f"{name} must be three {what} (x, y, z), got {value!r}")
    values = tuple(check(entry, name, **limits) for entry in value)
    if len(values) != 3:
        raise InputError(f"{name} must be three {what} (x, y, z), got {value!r}")
    return values
