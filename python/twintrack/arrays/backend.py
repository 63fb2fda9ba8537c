"""Which backend computes: the CPU for arrays in host memory, CUDA for arrays on a device.

The environment variable ``TWINTRACK_BACKEND`` forces one: with ``cpu`` or ``cuda``, functions that
have both refuse arrays that the other one would have computed on. Nothing is ever moved silently.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from twintrack.arrays.libraries import device_kind
from twintrack.errors import InputError

VARIABLE = "TWINTRACK_BACKEND"


def forced_backend() -> str | None:
    """Return "cpu" or "cuda" if ``TWINTRACK_BACKEND`` forces it, else None.

    Raises
    ------
    ValueError
        If the variable holds anything else.
    """
    value = os.environ.get(VARIABLE, "auto").strip().lower()
    if value in ("", "auto"):
        return None
    if value not in ("cpu", "cuda"):
        raise InputError("it must be cpu, cuda or auto", argument=VARIABLE, value=value)
    return value


def computes_on_device() -> bool:
    """Whether arrays on a CUDA device may be given to functions that have a kernel.

    Raises
    ------
    ValueError
        As `forced_backend`.
    """
    if forced_backend() == "cpu":
        return False
    try:
        cuda_module()
    except ImportError:
        return False
    return True


def cuda_module() -> Any:
    """Return the compiled CUDA module, whose types are in ``_cuda.pyi``.

    Raises
    ------
    ImportError
        If TwinTrack was built without it.
    """
    return import_module("twintrack._cuda")


def on_device(**arrays: Any) -> bool:
    """Whether the kernels of CUDA are to be used: any of the arrays lies on a device.

    The doors ask it, `open_case` and those of `twintrack.arrays.calls`; what they return knows.

    Parameters
    ----------
    **arrays
        A call's array arguments by name: arrays, sequences of arrays, or None.

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
            f"pass {host_copy(array, name)} or unset the variable"
        )
    try:
        cuda_module()
    except ImportError as error:
        raise TypeError(
            f"{name} is on a CUDA device but this TwinTrack has no CUDA module ({error}): "
            f"build it where nvcc is, or pass {host_copy(array, name)}"
        ) from error
    return True


def host_copy(array: Any, name: str) -> str:
    """Return what to write for a copy in host memory of an array on a device."""
    known = {"torch": f"{name}.cpu()", "cupy": f"{name}.get()"}
    return known.get(device_kind(array) or "", f"a copy of {name} in host memory")


def _named(arrays: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, array in arrays.items():
        if isinstance(array, (list, tuple)):
            yield from ((f"{name}[{i}]", entry) for i, entry in enumerate(array))
        else:
            yield name, array
