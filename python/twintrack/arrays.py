"""Arrays in, arrays of the same kind out: NumPy, torch and CuPy.

Everything that crosses into the compiled core passes through here. Nothing is copied: the core
takes any memory order and strides. bfloat16, which NumPy lacks, travels as a 2-byte void dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["empty_like", "rater_arrays", "region_array", "score_array", "to_numpy"]


def to_numpy(array: Any, name: str) -> NDArray[Any]:
    """Return a NumPy view of an array in host memory.

    Parameters
    ----------
    array
        NumPy array, torch CPU tensor, or anything `numpy.asarray` takes.
    name
        What messages call it.

    Raises
    ------
    TypeError
        If the array lives on a device.
    """
    if _is_torch(array):
        if array.device.type != "cpu":
            raise TypeError(
                f"{name} is on {array.device}; this build computes on the CPU: pass {name}.cpu()"
            )
        tensor = array.detach()
        if str(tensor.dtype) == "torch.bfloat16":
            import torch

            bits: NDArray[Any] = tensor.view(torch.int16).numpy()
            return bits.view("V2")
        host: NDArray[Any] = tensor.numpy()
        return host
    if hasattr(array, "__cuda_array_interface__"):
        raise TypeError(f"{name} is on a GPU; this build computes on the CPU: copy it to the host")
    view: NDArray[Any] = np.asarray(array)
    if not view.dtype.isnative:
        # Files of the other byte order: the one case in which a copy is made.
        view = view.astype(view.dtype.newbyteorder("="))
    return view


def score_array(score: ArrayLike | Any) -> NDArray[Any]:
    """Return scores as the core takes them: float16, bfloat16, float32 or float64."""
    array = to_numpy(score, "score")
    if array.dtype.kind != "f" and array.dtype != np.dtype("V2") and array.dtype.name != "bfloat16":
        raise TypeError(
            f"score has dtype {array.dtype}; scores are probabilities: "
            "float16, bfloat16, float32 or float64"
        )
    return array


def rater_arrays(raters: ArrayLike | Sequence[ArrayLike] | Any) -> list[NDArray[Any]]:
    """Return one array per rater, from an (N, *shape) array or a sequence of N arrays."""
    if isinstance(raters, (list, tuple)):
        arrays = [to_numpy(rater, f"raters[{i}]") for i, rater in enumerate(raters)]
    else:
        stacked = to_numpy(raters, "raters")
        arrays = list(stacked) if stacked.ndim > 0 else []
    if not arrays:
        raise ValueError("raters is empty: at least one rater mask is needed")
    return arrays


def region_array(region: ArrayLike | Any | None) -> NDArray[Any] | None:
    """Return the region mask as boolean or integer array; None means that every voxel counts."""
    if region is None:
        return None
    array = to_numpy(region, "region")
    if array.dtype.kind not in "biu":
        raise TypeError(f"region has dtype {array.dtype}; it must be a boolean mask")
    return array


def empty_like(array: ArrayLike | Any) -> Any:
    """Return an uninitialised array of the same library, shape, dtype and memory order."""
    if _is_torch(array):
        import torch

        return torch.empty_like(array)
    return np.empty_like(to_numpy(array, "score"))


def _is_torch(array: Any) -> bool:
    # Without importing torch, which takes seconds and may not be there.
    return type(array).__module__.split(".")[0] == "torch" and hasattr(array, "device")
