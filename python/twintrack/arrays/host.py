"""Arrays in host memory as NumPy's: whatever is given, and checked for what it is given as.

Nothing is copied: the core takes any memory order and strides. bfloat16, which NumPy lacks, travels
as a 2-byte void dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.backend import host_copy
from twintrack.arrays.checks import (
    as_numbers,
    dtype_name,
    mask_value,
    require_mask_dtype,
    require_output,
    require_scores,
)
from twintrack.arrays.libraries import device_kind, library_of, plain_tensor, refuse_gradient
from twintrack.arrays.traced import refuse_traced
from twintrack.errors import InputError


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
        If the array lives on a device, or is none: ragged lists, structured dtypes, sparse tensors.
    ValueError
        If it is a masked array with a masked element, or a list of arrays of which one is.
    """
    if device_kind(array) is not None:
        raise TypeError(
            f"{name} is on a CUDA device, for which this function has no kernel: "
            f"pass {host_copy(array, name)}"
        )
    if library_of(array) == "torch":
        return _of_torch(array, name)
    if _on_dlpack_device(array):
        raise TypeError(
            f"{name} is on a device and has DLPack alone: pass torch.from_dlpack({name}) or "
            f"cupy.from_dlpack({name}), which copy nothing"
        )
    refuse_masked(array, name)
    try:
        view: NDArray[Any] = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} is no array: {error}") from error
    if view.dtype.names is not None:
        raise TypeError(f"{name} has the structured dtype {view.dtype}; pass one of its fields")
    if not view.dtype.isnative:
        # Files of the other byte order: the one case in which a copy is made.
        view = view.astype(view.dtype.newbyteorder("="))
    return view


def output_array(out: Any, name: str = "out") -> NDArray[Any]:
    """Return a NumPy view of an array in host memory that is to be written to.

    Parameters
    ----------
    out
        NumPy array, torch CPU tensor, or anything with ``__array_interface__``.
    name
        What messages call it.

    Raises
    ------
    TypeError
        If it lives on a device, or is none of those: what is written would be lost.
    ValueError
        If its numbers are of the other byte order, it is read-only, elements share memory, or torch
        would have to know the gradient of what is written.
    """
    view = to_numpy(out, name)
    refuse_gradient(out, name)
    if library_of(out) != "torch":
        own = np.asarray(out) if hasattr(out, "__array_interface__") else None
        if own is None or isinstance(out, np.generic):  # of a NumPy scalar every view is a copy
            raise TypeError(f"{name} is a {type(out).__name__}; an array to write to is needed")
        if not own.dtype.isnative:
            raise InputError(
                f"{name} has dtype {own.dtype.str}; results are written in this machine's byte "
                "order"
            )
    require_output(name, view.shape, view.strides, view.itemsize, view.flags.writeable)
    return view


def real_numbers(values: ArrayLike | Any, name: str) -> NDArray[np.float64]:
    """Return real numbers as float64.

    Raises
    ------
    TypeError, ValueError
        For complex numbers, text and objects; and as `to_numpy`.
    """
    array = as_numbers(to_numpy(values, name))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {array.dtype}; real numbers are needed")
    with np.errstate(over="ignore"):  # of what float64 does not hold comes infinity
        return array.astype(np.float64, copy=False)


def refuse_masked(array: Any, name: str) -> None:
    """Raise ValueError for a NumPy masked array that masks anything: its mask would be lost.

    Also for one in a list.
    """
    if isinstance(array, (list, tuple)):
        for i, entry in enumerate(array):
            if isinstance(entry, (list, tuple, np.ma.MaskedArray)):
                refuse_masked(entry, f"{name}[{i}]")
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        mask = np.ma.getmaskarray(array)
        first = [int(at) for at in np.unravel_index(np.argmax(mask), mask.shape)]
        raise InputError(
            f"{name}{first or ''} is masked ({np.count_nonzero(mask):,} of {mask.size:,} elements "
            f"are), but what lies under a mask would count: pass {name}.filled(VALUE), or "
            f"{name}.data and, where one is taken, a region without these voxels"
        )


def score_array(score: ArrayLike | Any) -> NDArray[Any]:
    """Return scores as the core takes them: float16, bfloat16, float32 or float64."""
    array = to_numpy(score, "score")
    require_scores(dtype_name(array.dtype), "score")
    return array


def rater_arrays(raters: ArrayLike | Sequence[ArrayLike] | Any) -> list[NDArray[Any]]:
    """Return one array per rater, from an (N, *shape) array or a sequence of N arrays."""
    if isinstance(raters, (list, tuple)):
        arrays = [to_numpy(rater, f"raters[{i}]") for i, rater in enumerate(raters)]
    else:
        stacked = to_numpy(raters, "raters")
        if stacked.ndim == 0:
            raise TypeError(
                f"raters is a single {type(raters).__name__}; it must be an array (N, *shape) or a "
                "list of N arrays"
            )
        # With the ellipsis an array, too, where a score has no axes.
        arrays = [stacked[k, ...] for k in range(len(stacked))]
    if not arrays:
        raise InputError("raters is empty: at least one rater mask is needed")
    return arrays


def region_array(region: ArrayLike | Any | None) -> NDArray[Any] | None:
    """Return the mask of a region, as it is; None means that every voxel counts.

    Raises
    ------
    TypeError, ValueError
        Unless it is False and True, or 0 and one other value (`mask_value`).
    """
    if region is None:
        return None
    array = to_numpy(region, "region")
    require_mask_dtype(dtype_name(array.dtype), "region")
    mask_value(array, lambda voxel: f"region{list(voxel)}")
    return array


def _of_torch(tensor: Any, name: str) -> NDArray[Any]:
    refuse_traced(tensor, name)
    if tensor.device.type != "cpu":
        raise TypeError(
            f"{name} is on {tensor.device}, where TwinTrack does not compute: pass {name}.cpu()"
        )
    tensor = plain_tensor(tensor, name)
    if str(tensor.dtype) == "torch.bfloat16":
        import torch

        bits: NDArray[Any] = tensor.view(torch.int16).numpy()
        return bits.view("V2")
    try:
        host: NDArray[Any] = tensor.numpy()
    except (TypeError, RuntimeError) as error:  # of a dtype or kind that NumPy lacks
        raise TypeError(f"{name} is a tensor that NumPy cannot read: {error}") from error
    return host


def _on_dlpack_device(array: Any) -> bool:
    # Host memory is type 1; CUDA's pinned host memory 3.
    return (
        hasattr(array, "__dlpack_device__")
        and not isinstance(array, np.ndarray)
        and int(array.__dlpack_device__()[0]) not in (1, 3)
    )
