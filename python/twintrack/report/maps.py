"""A calibration map as it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.map_band import MapBand
from twintrack.errors import InputError

_Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MapPlot:
    """A map from score to expected fraction of raters, with what is known about it.

    Attributes
    ----------
    name
        For the legend.
    score, value : (K,) float64
        Its knots, ascending in score.
    band : (score, low, high), each (S,) float64, or None
        Band over cases or patients (`MapBand`).
    bins : (mean score, voxels), each (B,), or None
        The bins that the map was fitted to, ascending in score.
    """

    name: str
    score: _Floats
    value: _Floats
    band: tuple[_Floats, _Floats, _Floats] | None = None
    bins: tuple[_Floats, NDArray[np.integer[Any]]] | None = None

    def __post_init__(self) -> None:
        parts = {"knots": (self.score, self.value), "band": self.band, "bins": self.bins}
        for part, arrays in parts.items():
            if arrays is None:
                continue
            shapes = [array.shape for array in arrays]
            if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0][0] == 0:
                raise InputError(
                    f"{part} of map {self.name!r}: shapes {shapes}; need equal lengths"
                )
            if not (np.diff(arrays[0]) >= 0).all():
                raise InputError(f"{part} of map {self.name!r}: scores are not ascending")

    @classmethod
    def of(
        cls, name: str, calibrator: Calibrator, band: MapBand | None = None, bins: bool = False
    ) -> MapPlot:
        """Return the plot of a fitted calibrator's map, with a band and its bins if wanted."""
        made = calibrator.bins_ if bins else None
        return cls(
            name,
            calibrator.X_thresholds_,
            calibrator.y_thresholds_,
            None if band is None else (band.score, band.low, band.high),
            None if made is None else (made.mean_score, made.count.astype(np.int64)),
        )

    def mass(self, parts: int = 50) -> tuple[_Floats, _Floats]:
        """Voxels in equal parts of [0, 1], and the edges of the parts.

        Bins are taken to meet halfway between their mean scores and to be filled evenly.
        """
        edges = np.linspace(0, 1, parts + 1)
        if self.bins is None:
            return np.zeros(parts), edges
        score, voxels = self.bins
        between = np.concatenate([[0.0], (score[1:] + score[:-1]) / 2, [1.0]])
        cumulative = np.concatenate([[0.0], np.cumsum(voxels, dtype=np.float64)])
        return np.diff(np.interp(edges, between, cumulative)), edges
