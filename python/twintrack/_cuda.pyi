# Types of the CUDA module, one section per binding source; `make lint` compares them with it where
# it has been built. Streams are CUDA's handles as integers.

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

class _Bound(type): ...  # stands for the metaclass of the classes that pybind11 binds

# --- bind_arrays.cpp ------------------------------------------------------------------------------

class Array(metaclass=_Bound):
    def __init__(
        self,
        pointer: int,
        dtype: str,
        shape: Sequence[int],
        strides: Sequence[int],
        name: str,
    ) -> None: ...

# --- bind_devices.cpp -----------------------------------------------------------------------------

ARCHITECTURES: str

def runtime_version() -> int: ...
def driver_version() -> int: ...
def devices() -> list[str]: ...
def device_of(pointer: int) -> int: ...
def fetch(pointer: int, size: int, device: int, stream: int) -> NDArray[np.uint8]: ...
def wait_for(stream: int, other: int, device: int) -> None: ...

# --- bind_score_tally.cpp -------------------------------------------------------------------------

class ScoreTally(metaclass=_Bound):
    def __init__(self, raters: int, device: int, stream: int) -> None: ...
    @property
    def raters(self) -> int: ...
    @property
    def device(self) -> int: ...
    def update(
        self, score: Array, raters: Sequence[Array], region: Array | None, stream: int
    ) -> None: ...
    def take_rows(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]: ...

# --- bind_calibration_map.cpp ---------------------------------------------------------------------

class CalibrationMap(metaclass=_Bound):
    def __init__(self, x: Sequence[float], y: Sequence[float]) -> None: ...
    def apply(self, score: Array, out: Array, device: int, stream: int) -> None: ...

# --- bind_case_tally.cpp --------------------------------------------------------------------------

def case_sums(
    score: Array,
    raters: Sequence[Array],
    region: Array | None,
    bins: int,
    find_marked: bool,
    device: int,
    stream: int,
) -> tuple[NDArray[np.uint64], list[tuple[int, int]]]: ...

# --- bind_fused_export.cpp ------------------------------------------------------------------------

def ensemble_score(
    members: Sequence[Array],
    rule: tuple[Sequence[int], bool, bool, bool],
    map: CalibrationMap | None,  # noqa: A002
    out: Array,
    device: int,
    stream: int,
) -> None: ...
def export_score(
    members: Sequence[Array],
    grids: Sequence[tuple[Sequence[int], Sequence[bool], bool, bool]],
    rule: tuple[Sequence[int], bool, bool, bool],
    map: CalibrationMap | None,  # noqa: A002
    out: Array,
    device: int,
    stream: int,
) -> None: ...

# --- bind_contact_angle.cpp -----------------------------------------------------------------------

def contact_angles(
    score: Array,
    raters: Sequence[Array],
    vessels: Array,
    labels: Sequence[int],
    thresholds: Sequence[float],
    device: int,
    stream: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]: ...
