"""The libraries of arrays: which one an array is of, and what only its own library can do.

None is imported unless an array of it is at hand: that takes seconds, and it may not be there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from twintrack.arrays.traced import refuse_proxy
from twintrack.errors import InputError

if TYPE_CHECKING:
    import torch

    #: An array of one library: what comes out is of the kind that went in.
    Array = TypeVar("Array", NDArray[Any], torch.Tensor)

# torch has hardly a function for wider unsigned integers.
_COMPARED_BY_TORCH = {"uint8", "int8", "int16", "int32", "int64"} | {
    *("float16", "bfloat16", "float32", "float64")
}


def library_of(array: Any) -> str | None:
    """Return "torch" or "cupy" for an array of theirs or of a subclass, None for anything else."""
    kind: Any = type(array)
    library = _library_of_type(kind)
    return library if library is not None and hasattr(array, "device") else None


@cache
def _library_of_type(kind: type) -> str | None:
    refuse_proxy(kind)
    names = (base.__module__.split(".")[0] for base in kind.__mro__)
    return next((name for name in names if name in ("torch", "cupy")), None)


def device_kind(array: Any) -> str | None:
    """Return "torch", "cupy" or "other" for an array on a device, None for any other object."""
    library = library_of(array)
    if library == "torch":
        return "torch" if array.device.type == "cuda" else None
    if hasattr(array, "__cuda_array_interface__"):
        return "cupy" if library == "cupy" else "other"
    return None


def plain_tensor(tensor: Any, name: str) -> Any:
    """Return a torch tensor without its gradient; TypeError if its memory is not its values."""
    import torch

    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} has layout {tensor.layout}; pass {name}.to_dense()")
    if tensor.is_neg():
        raise TypeError(f"{name} is a view with the sign changed; pass {name}.resolve_neg()")
    return tensor.detach()


def refuse_gradient(out: Any, name: str) -> None:
    """Raise ValueError for an output that torch differentiates: it sees nothing of our writing."""
    if getattr(out, "requires_grad", False):
        raise InputError(
            f"{name} requires a gradient, but what is written has none: pass {name}.detach()"
        )


def surely_a_mask(array: Any, dtype: str) -> bool:
    """Whether the library of a device array finds 0 and at most one greater value in it.

    False also where it cannot tell, as for NaN and negative values. The array is not empty.
    """
    kind = device_kind(array)
    if kind == "other" or (kind == "torch" and dtype not in _COMPARED_BY_TORCH):
        return False
    with _library(array, "") as (_, values):
        return not bool(((values != 0) & (values != values.max())).any())


def empty_like(array: Any, float32: bool = False) -> Any:
    """Return an uninitialised array of the same library, device, shape, dtype and memory order.

    The array is torch's or on a device. The dtype is float32 instead if that is asked for.
    """
    with _library(array, "pass out=, an array to write to") as (library, like):
        return library.empty_like(like, dtype=_float32(library) if float32 else None)


def zeros(array: Any, shape: Sequence[int]) -> Any:
    """Return a float32 array of zeros of the same library and device as `array`."""
    with _library(array, "pass out=, an array to write to") as (library, _):
        where = {} if device_kind(array) == "cupy" else {"device": array.device}
        return library.zeros(tuple(shape), dtype=_float32(library), **where)


def of_library(array: NDArray[Any], like: Any) -> Any:
    """Return an array as the library of `like` has it, in the same memory: a tensor for torch."""
    if library_of(like) != "torch":
        return array
    import torch

    return torch.from_numpy(array)


def device_copy(array: Any) -> Any:
    """Return a copy of an array on a device by its own library."""
    hint = "out overlaps score in part; pass one that does not"
    with _library(array, hint) as (library, values):
        if device_kind(array) == "other":
            return library.asarray(values, copy=True)
        return values.clone() if device_kind(array) == "torch" else values.copy()


@contextlib.contextmanager
def _library(array: Any, otherwise: str) -> Iterator[tuple[Any, Any]]:
    """Give the library of an array, ready to work where the array is, and the array's values.

    torch's OutOfMemoryError, a RuntimeError that says the size, is raised as a MemoryError.
    """
    kind = library_of(array)
    if kind == "torch":
        import torch

        try:
            yield torch, array.detach()
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise MemoryError(str(error)) from error
    elif kind == "cupy":
        import cupy

        with array.device:
            yield cupy, array
    elif hasattr(array, "__array_namespace__"):
        yield array.__array_namespace__(), array
    else:
        raise TypeError(f"{type(array).__qualname__} says no way to make arrays: {otherwise}")


def _float32(library: Any) -> Any:
    return getattr(library, "float32", "float32")
