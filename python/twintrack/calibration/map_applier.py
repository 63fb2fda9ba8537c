"""MapApplier: the part of a calibrator that applies its map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

from numpy.typing import ArrayLike, NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.map_cases import map_cases
from twintrack.calibration.thresholds import Threshold, mask_threshold

if TYPE_CHECKING:
    import torch

    from twintrack.arrays.libraries import Array


class MapApplier:
    """Applies the map that `Calibrator` makes."""

    map_: CalibrationMap
    fit: Callable[..., Any]

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

    def fit_transform(
        self,
        score: ArrayLike | Sequence[ArrayLike],
        raters: ArrayLike | Sequence[Any],
        region: ArrayLike | Sequence[ArrayLike | None] | None = None,
        *,
        stacked: bool | None = None,
        groups: Sequence[Any] | None = None,
        case_weight: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> Any:
        """Fit and return the calibrated scores; arguments as in `fit`."""
        fitted = self.fit(
            score,
            raters,
            region,
            stacked=stacked,
            groups=groups,
            case_weight=case_weight,
            ignore_label=ignore_label,
        )
        return fitted.transform(score)

    def threshold(self, asked: Threshold = "majority") -> float:
        """Return where a mask of calibrated scores begins: it is 1 where they are above.

        Parameters
        ----------
        asked : {"majority", "dice"} or float
            A rule, whose threshold is one of `thresholds_`; or the threshold itself, from 0 to 1.

        Raises
        ------
        ValueError
            It is none of these, or the map does not have it; says what to do.
        """
        _ = self.map_  # what is not fitted has none, and says so
        return mask_threshold(self, asked)

    def torch_module(self) -> torch.nn.Module:
        """Return the map as a torch module; see `CalibrationMap.torch_module`."""
        return self.map_.torch_module()
