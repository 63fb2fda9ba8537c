"""Which backend computes: the CPU for arrays in host memory, CUDA for arrays on a device.

The environment variable ``TWINTRACK_BACKEND`` forces one: with ``cpu`` or ``cuda``, functions that
have both refuse arrays that the other one would have computed on. Nothing is ever moved silently.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

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
