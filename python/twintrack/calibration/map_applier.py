"""MapApplier: the part of a calibrator that applies its map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from numpy.typing import NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.map_cases import map_cases

if TYPE_CHECKING:
    import torch

    from twintrack.arrays.libraries import Array


class MapApplier:
    """Applies the map that `Calibrator` makes."""

    map_: CalibrationMap

    @overload
    def transform(self, score: Array, out: Array | None = None) -> Array: ...
    @overload
    def transform(self, score: Sequence[float], out: None = None) -> NDArray[Any]: ...
    @overload
    def transform(
        self, score: Sequence[Array], out: Sequence[Array] | None = None
    ) -> list[Array]: ...
    @overload
    def transform(self, score: Sequence[Sequence[Any]], out: None = None) -> list[NDArray[Any]]: ...
    def transform(self, score: Any, out: Any = None) -> Any:
        """Calibrate scores: of an array, or of a list with one array per case, as `fit` takes them.

        Parameters
        ----------
        score : array of any shape, or a list of such arrays
            As `CalibrationMap.__call__` takes them. An array may be a stack of cases, which are
            mapped alike. One list of numbers is one array.
        out : array, or a list of as many arrays, optional
            Where to write, of the score's shape and dtype; may be `score` itself.

        Returns
        -------
        `out` or a new array like the score; for a list a list of these.

        Raises
        ------
        ValueError, TypeError
            As `CalibrationMap.__call__`; in a list with the number of the case, and before anything
            is written to `out` (for which its scores are read twice). Also if an array of `out`
            shares memory with another case's.
        """
        return map_cases(self.map_, score, out)

    predict = transform

    def torch_module(self) -> torch.nn.Module:
        """Return the map as a torch module; see `CalibrationMap.torch_module`."""
        return self.map_.torch_module()
