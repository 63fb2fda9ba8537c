"""The libraries of arrays: which one an array is of, and what only its own library can do.

None is imported unless an array of it is at hand: that takes seconds, and it may not be there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from twintrack.errors import InputError

# torch has hardly a function for wider unsigned integers.
_COMPARED_BY_TORCH = {"uint8", "int8", "int16", "int32", "int64"} | {
    *("float16", "bfloat16", "float32", "float64")
}


def library_of(array: Any) -> str | None:
    """Return "torch" or "cupy" for an array of theirs or of a subclass, None for anything else."""
    for base in type(array).__mro__:
        library = base.__module__.split(".")[0]
        if library in ("torch", "cupy") and hasattr(array, "device"):
            return library
    return None


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
    if kind == "torch" and dtype in _COMPARED_BY_TORCH:
        values = array.detach()
        with _memory_errors():
            return not bool(((values != 0) & (values != values.max())).any())
    if kind == "cupy":
        with array.device:
            return not bool(((array != 0) & (array != array.max())).any())
    return False


def device_empty_like(array: Any, float32: bool = False) -> Any:
    """Return an uninitialised array of the same library, device, shape, dtype and memory order.

    Its dtype is float32 instead if that is asked for.
    """
    kind = device_kind(array)
    if kind == "torch":
        import torch

        like = array.detach()
        with _memory_errors():
            return torch.empty_like(like, dtype=torch.float32 if float32 else None)
    if kind == "cupy":
        import cupy

        with array.device:
            return cupy.empty_like(array, dtype="float32" if float32 else None)
    library = _namespace(array, "pass out=, an array to write to")
    return (
        library.empty_like(array, dtype=library.float32) if float32 else library.empty_like(array)
    )


def device_zeros(array: Any, shape: Sequence[int]) -> Any:
    """Return a float32 array of zeros of the same library and device as `array`."""
    kind = device_kind(array)
    if kind == "torch":
        import torch

        with _memory_errors():
            return torch.zeros(tuple(shape), dtype=torch.float32, device=array.device)
    if kind == "cupy":
        import cupy

        with array.device:
            return cupy.zeros(tuple(shape), "float32")
    library = _namespace(array, "pass out=, an array to write to")
    return library.zeros(tuple(shape), dtype=library.float32, device=array.device)


def device_copy(array: Any) -> Any:
    """Return a copy of an array by its own library."""
    kind = device_kind(array)
    if kind == "torch":
        with _memory_errors():
            return array.detach().clone()
    if kind == "cupy":
        with array.device:
            return array.copy()
    hint = "out overlaps score in part; pass one that does not"
    return _namespace(array, hint).asarray(array, copy=True)


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise torch's OutOfMemoryError, a RuntimeError that says the size, as a MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise MemoryError(str(error)) from error


def _namespace(array: Any, otherwise: str) -> Any:
    if not hasattr(array, "__array_namespace__"):
        raise TypeError(f"{type(array).__qualname__} says no way to make arrays: {otherwise}")
    return array.__array_namespace__()
