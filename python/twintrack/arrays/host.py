"""Arrays in, arrays of the same kind out: NumPy, torch and CuPy.

Everything that crosses into the compiled core passes through here. Nothing is copied: the core
takes any memory order and strides. bfloat16, which NumPy lacks, travels as a 2-byte void dtype.

Functions that have a CUDA kernel ask `on_device` whether it is for them to compute; what the
kernels take is made in `twintrack.arrays.device`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.backend import VARIABLE, cuda_module, forced_backend
from twintrack.arrays.checks import as_numbers, mask_value, require_mask_dtype, require_output
from twintrack.arrays.libraries import (
    device_empty_like,
    device_kind,
    library_of,
    plain_tensor,
    refuse_gradient,
)
from twintrack.errors import InputError


def on_device(**arrays: Any) -> bool:
    """Whether a function that has a CUDA kernel is to use it: any of its arrays lies on a device.

    Parameters
    ----------
    **arrays
        The function's array arguments by name: arrays, sequences of arrays, or None.

    Raises
    ------
    TypeError
        If the arrays are of the kind that ``TWINTRACK_BACKEND`` excludes, or lie on a device and
        this TwinTrack was built without CUDA.
    """
    found = next(((n, a) for n, a in _named(arrays) if device_kind(a) is not None), None)
    forced = forced_backend()
    if found is None:
        if forced == "cuda":
            raise TypeError(
                f"{next(iter(arrays))} is in host memory but {VARIABLE} is cuda: move it to a CUDA "
                "device or unset the variable"
            )
        return False
    name, array = found
    if forced == "cpu":
        raise TypeError(
            f"{name} is on a CUDA device but {VARIABLE} is cpu: "
            f"pass {_host_copy(array, name)} or unset the variable"
        )
    try:
        cuda_module()
    except ImportError as error:
        raise TypeError(
            f"{name} is on a CUDA device but this TwinTrack has no CUDA module ({error}): "
            f"build it where nvcc is, or pass {_host_copy(array, name)}"
        ) from error
    return True


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
            f"pass {_host_copy(array, name)}"
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
    require_mask_dtype("bfloat16" if array.dtype == "V2" else array.dtype.name, "region")
    mask_value(array, lambda voxel: f"region{list(voxel)}")
    return array


def empty_like(array: Any) -> Any:
    """Return an uninitialised array of the same library, shape, dtype and memory order."""
    if device_kind(array) is not None:
        return device_empty_like(array)
    if library_of(array) == "torch":
        import torch

        return torch.empty_like(array)
    return np.empty_like(to_numpy(array, "score"))


def _of_torch(tensor: Any, name: str) -> NDArray[Any]:
    if tensor.device.type == "meta":
        raise TypeError(f"{name} is on the device meta, where arrays have no values")
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


def _named(arrays: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, array in arrays.items():
        if isinstance(array, (list, tuple)):
            yield from ((f"{name}[{i}]", entry) for i, entry in enumerate(array))
        else:
            yield name, array


def _host_copy(array: Any, name: str) -> str:
    if device_kind(array) == "torch":
        return f"{name}.cpu()"
    return f"{name}.get()" if device_kind(array) == "cupy" else f"a copy of {name} in host memory"
