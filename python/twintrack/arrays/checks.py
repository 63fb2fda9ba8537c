"""What is asked of arrays in any memory: which are masks, and which can be written to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError

# What the kernels read; a 2-byte void dtype is bfloat16.
_MASK_DTYPES = {
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "bfloat16", "float32", "float64"),
}
_AT_A_TIME = 1 << 16  # elements: with all copies they stay in the cache


def as_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Return bfloat16, which NumPy lacks and which is a 2-byte void dtype here, as float32."""
    if array.dtype != np.dtype("V2"):
        return array
    return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def dtype_name(dtype: np.dtype[Any] | str) -> str:
    """Return the name of a dtype, "bfloat16" for a 2-byte void dtype."""
    return str(dtype).replace("|V2", "bfloat16")


def mask_value(
    mask: NDArray[Any], where: Callable[[tuple[int, ...]], str], before: Any = None
) -> Any:
    """Check that a mask holds 0 and at most one other value, such as True, 1 or 255.

    Parameters
    ----------
    mask
        Boolean, integer or floating-point array of any memory order and strides. A boolean one is
        not read.
    where
        What messages call a voxel.
    before
        Value that was found in earlier parts of the same mask.

    Returns
    -------
    value
        The other value, to be given with the next part; None if there is none so far.

    Raises
    ------
    ValueError
        Names the first voxel, in C order, that has a further value or is NaN.
    """
    if mask.dtype == np.bool_:
        return before
    value = before
    # In the order of the memory, whichever that is: whether all agree does not depend on it.
    with np.nditer(
        mask, ["external_loop", "buffered", "zerosize_ok"], order="K", buffersize=_AT_A_TIME
    ) as parts:
        for raw in parts:
            part = as_numbers(np.asarray(raw))
            marked = np.count_nonzero(part)  # NaN is, and is equal to no value
            if marked and value is None:
                value = part[np.argmax(part != 0)]
            if marked and np.count_nonzero(part == value) != marked:
                raise _unlike(mask, where, before)
    return value


def _unlike(mask: NDArray[Any], where: Callable[[tuple[int, ...]], str], before: Any) -> ValueError:
    values = as_numbers(np.ravel(mask))
    marked = values != 0
    if before is None:
        before = values[np.argmax(marked)]
    first = int(np.argmax(marked & (values != before)))
    voxel = tuple(int(i) for i in np.unravel_index(first, mask.shape))
    found = values[first]
    earlier = "" if math.isnan(found) else f" but a voxel before it is {before}"
    return InputError(
        f"{where(voxel)} is {found}{earlier}; a region is 0 where voxels do not count and one "
        "other value where they do: turn several labels into such a mask first"
    )


def require_scores(dtype: str, name: str, what: str = "scores are probabilities:") -> None:
    """Raise TypeError unless a dtype, by NumPy's name or "bfloat16", can be that of scores."""
    if dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(f"{name} has dtype {dtype}; {what} float16, bfloat16, float32 or float64")


def require_mask_dtype(dtype: str, name: str) -> None:
    """Raise TypeError unless a dtype, by NumPy's name or "bfloat16", can be that of a mask."""
    if dtype not in _MASK_DTYPES:
        raise TypeError(
            f"{name} has dtype {dtype}; a region is a mask of booleans, integers or floats "
            "(float64 at most), 0 where a voxel does not count"
        )


def require_output(
    name: str, shape: Sequence[int], strides: Sequence[int], itemsize: int, writable: bool
) -> None:
    """Raise ValueError unless every element of an array can be written to, each on its own.

    `strides` are in bytes. Arrays whose axes interleave without sharing an element, which only
    strides set by hand do, are refused too: to tell them takes a search.
    """
    if not writable:
        raise InputError(f"{name} is read-only; pass an array that may be written to")
    axes = sorted((abs(step), n) for n, step in zip(shape, strides, strict=True) if n > 1)
    reach = itemsize  # bytes from the lowest element of the axes so far to the end of the highest
    for step, n in axes:
        if step < reach and 0 not in shape:
            raise InputError(
                f"{name} has elements that share memory, of which all would hold what is written "
                f"last (shape {tuple(shape)}, strides {tuple(strides)} in bytes): pass an array "
                "that was not expanded or broadcast"
            )
        reach += (n - 1) * step
