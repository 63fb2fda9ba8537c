"""CalibrationMap: the piecewise-linear map that a calibrator fits and applies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack import _core
from twintrack.arrays.backend import cuda_module
from twintrack.arrays.bounds import warn_of, with_roundings
from twintrack.arrays.calls import DeviceCall, open_score
from twintrack.arrays.host import real_numbers
from twintrack.errors import InputError

if TYPE_CHECKING:
    import torch

    from twintrack import _cuda
    from twintrack.arrays.libraries import Array


def isotonic(values: ArrayLike, weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the weighted isotonic (non-decreasing) least-squares fit of a sequence.

    Minimises Σ w (m - y)² over m_1 ≤ … ≤ m_n by the pool-adjacent-violators algorithm (Barlow et
    al. 1972), in linear time.

    Parameters
    ----------
    values : (n,) finite floats; n may be 0
    weights : (n,) finite floats, not negative, not all 0; 1 by default
        A value of weight 0 has no say and takes the fit of the weighted value before it (after it
        at the start).

    Returns
    -------
    (n,) float64
    """
    y = np.ascontiguousarray(real_numbers(values, "values"))
    w = None if weights is None else np.ascontiguousarray(real_numbers(weights, "weights"))
    if y.ndim != 1 or (w is not None and w.shape != y.shape):
        shapes = f"{y.shape}" + ("" if w is None else f" and {w.shape}")
        raise InputError(
            f"values and weights must be 1-D and equally long; they have shape {shapes}"
        )
    return _core.isotonic(y, w)


class CalibrationMap:
    """Non-decreasing, piecewise-linear map of [0, 1] into itself.

    Linear between knots, constant outside the first and the last; two knots that are too close for
    a slope in float64 (less than 6e-309 apart) make a step above the lower one. Evaluated in
    float32 for scores of at most 32 bits (error at most 2^-23, then rounded to the score's type)
    and in float64 for float64; non-decreasing in floating point too, and the same bits on every
    machine.

    Parameters
    ----------
    x : (K,) strictly increasing, in [0, 1]
    y : (K,) non-decreasing, in [0, 1]

    Raises
    ------
    ValueError
        If the knots break these rules; names the first one that does.
    """

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        self._map = _core.CalibrationMap(
            real_numbers(x, "x").ravel().tolist(), real_numbers(y, "y").ravel().tolist()
        )
        self._cuda_map: _cuda.CalibrationMap | None = None  # made when it is first needed

    @property
    def x(self) -> NDArray[np.float64]:
        """Scores of the knots."""
        return self._map.x

    @property
    def y(self) -> NDArray[np.float64]:
        """Calibrated probabilities of the knots."""
        return self._map.y

    @overload
    def __call__(self, score: Array, out: Array | None = None) -> Array: ...
    @overload
    def __call__(
        self, score: Sequence[Any] | float | np.floating[Any], out: None = None
    ) -> NDArray[Any]: ...
    def __call__(self, score: Any, out: Any = None) -> Any:
        """Map every score.

        Parameters
        ----------
        score : float16, bfloat16, float32 or float64 array in [0, 1], any memory order and strides
            Host or CUDA memory (NumPy, torch, CuPy, ``__cuda_array_interface__``). On a device the
            work is queued on its library's current stream, and waited for, since an invalid score
            must be reported.
        out : array of the same shape and dtype, in the same memory, optional
            Where to write; may be `score` itself.

        Returns
        -------
        `out`, or a new array of the same library, shape, dtype and memory order.

        Raises
        ------
        ValueError
            For a score that is NaN or outside [0, 1], with its voxel; one that is outside by a
            rounding, 1e-6 at most, is set to the bound with a warning. `out` is then unspecified,
            unless it is `score`, which is left as it was. For an `out` that is read-only, requires
            a gradient or has elements that share memory (expanded, broadcast).
        TypeError
            For arrays in different memories or of a dtype that is none of those above.
        """
        mapped, count = with_roundings(lambda bounded: self._apply(bounded, out), score)
        warn_of(count)
        return mapped

    def _apply(self, score: Any, out: Any) -> Any:
        call = open_score(score, out)
        if isinstance(call, DeviceCall):
            source, target = call.inputs[0].compiled(), call.out.compiled()
            self.compiled(on_device=True).apply(source, target, call.device, call.stream)
        else:
            self._map.apply(call.inputs[0], call.out)
        return call.result

    def compiled(self, on_device: bool = False) -> Any:
        """Return the map as a compiled module has it, the core or that of CUDA; made once."""
        if not on_device:
            return self._map
        if self._cuda_map is None:
            self._cuda_map = cuda_module().CalibrationMap(self.x.tolist(), self.y.tolist())
        return self._cuda_map

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CalibrationMap):
            return NotImplemented
        return np.array_equal(self.x, other.x) and np.array_equal(self.y, other.y)

    def __repr__(self) -> str:
        return f"CalibrationMap of {len(self.x)} knots, {self.y[0]:.4g} to {self.y[-1]:.4g}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (CalibrationMap, (self.x, self.y))

    def torch_module(self) -> torch.nn.Module:
        """Return the map as a `torch.nn.Module`, for use and export together with a network.

        The module maps a tensor of any shape, memory order and floating dtype on any device, in
        float32: it is within 2^-22 of this map of the score as float32, then rounded to the score's
        dtype. It never decreases and stays in [0, 1]. Scores out of range take the value of the
        nearer end; NaN stays NaN (a module cannot stop to complain). Its gradient is the slope of
        the map, 0 out of range. It has no parameters and nothing in its state, and no cast of a
        model changes it.

        Its ``forward`` raises TypeError for a tensor of integers or booleans.
        """
        from twintrack.calibration.torch_module import TorchMap

        return TorchMap(self.x, self)
