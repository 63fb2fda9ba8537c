# Types of the compiled module, one section per binding source; `make lint` compares them with it.

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import CapsuleType

class _Bound(type): ...  # stands for the metaclass of the classes that pybind11 binds

# --- module.cpp -----------------------------------------------------------------------------------

def instruction_set() -> str: ...
def max_threads() -> int: ...
def set_thread_limit(threads: int) -> int: ...

# --- bind_score_tally.cpp -------------------------------------------------------------------------

GRID_CELLS: int

class ScoreTally(metaclass=_Bound):
    def __init__(self, raters: int) -> None: ...
    @property
    def raters(self) -> int: ...
    def update(
        self,
        score: NDArray[Any],
        raters: Sequence[NDArray[Any]],
        region: NDArray[Any] | None = None,
    ) -> None: ...
    def rows(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]: ...
    def add_rows(self, cells: NDArray[np.uint32], sums: NDArray[np.uint64]) -> None: ...
    def __iadd__(self, other: ScoreTally) -> ScoreTally: ...

# --- bind_case_tally.cpp --------------------------------------------------------------------------

DICE_THRESHOLDS: list[float]
FIXED_SUM_ONE: int

def uniform_bin_edges(bins: int) -> NDArray[np.float32]: ...

class CaseTally(metaclass=_Bound):
    def __init__(self, raters: int, bins: int) -> None: ...
    @property
    def raters(self) -> int: ...
    @property
    def bins(self) -> int: ...
    def update(
        self,
        score: NDArray[Any],
        raters: Sequence[NDArray[Any]],
        region: NDArray[Any] | None = None,
    ) -> None: ...
    def update_and_overview(
        self, score: NDArray[Any], raters: Sequence[NDArray[Any]]
    ) -> tuple[list[tuple[int, int]], NDArray[np.uint8]]: ...
    def add_counted(
        self, score: NDArray[Any], element: str, counts: Sequence[NDArray[Any]]
    ) -> float: ...
    @property
    def votes(self) -> NDArray[np.uint64]: ...
    @property
    def score_bins(self) -> NDArray[np.uint64]: ...
    @property
    def confidence_bins(self) -> NDArray[np.uint64]: ...
    @property
    def squares(self) -> NDArray[np.uint64]: ...
    @property
    def rater_scores(self) -> NDArray[np.uint64]: ...
    def __iadd__(self, other: CaseTally) -> CaseTally: ...
    def __getstate__(self) -> tuple[int, int, NDArray[np.uint64]]: ...
    def __setstate__(self, state: tuple[int, int, NDArray[np.uint64]]) -> None: ...

# --- bind_equal_mass.cpp --------------------------------------------------------------------------

def equal_mass_bins(
    cells: NDArray[np.uint32], sums: NDArray[np.uint64], raters: int, bins: int
) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint64]]: ...
def cell_scores(
    cells: int | NDArray[np.uint32], count: NDArray[Any], residual: NDArray[Any]
) -> NDArray[np.float64]: ...

# --- bind_cut_refinement.cpp ----------------------------------------------------------------------

class CutRefinement(metaclass=_Bound):
    def __init__(
        self, cells: NDArray[np.uint32], sums: NDArray[np.uint64], raters: int, bins: int
    ) -> None: ...
    @property
    def done(self) -> bool: ...
    def update(
        self,
        score: NDArray[Any],
        raters: Sequence[NDArray[Any]],
        region: NDArray[Any] | None = None,
    ) -> None: ...
    def advance(self) -> None: ...
    def rows(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]: ...

# --- bind_isotonic.cpp ----------------------------------------------------------------------------

def isotonic(
    values: NDArray[np.float64], weights: NDArray[np.float64] | None
) -> NDArray[np.float64]: ...

# --- bind_map_fit.cpp -----------------------------------------------------------------------------

def fitted_knots(
    count: NDArray[np.uint64],
    mean_score: NDArray[np.float64],
    votes: NDArray[np.uint64],
    target: str,
    rater: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

# --- bind_numpy_sum.cpp ---------------------------------------------------------------------------

def numpy_sum(score: NDArray[np.float32], nonzero: NDArray[np.uint8] | None = None) -> float: ...

# --- bind_volume_gap.cpp --------------------------------------------------------------------------

def volume_gap(
    at: NDArray[np.float64], share: NDArray[np.float64], predicted: float
) -> tuple[CapsuleType, CapsuleType]: ...

# --- bind_calibration_map.cpp ---------------------------------------------------------------------

class CalibrationMap(metaclass=_Bound):
    def __init__(self, x: Sequence[float], y: Sequence[float]) -> None: ...
    @property
    def x(self) -> NDArray[np.float64]: ...
    @property
    def y(self) -> NDArray[np.float64]: ...
    def apply(self, score: NDArray[Any], out: NDArray[Any]) -> None: ...

# --- bind_ensemble.cpp ----------------------------------------------------------------------------

class MergeRule(metaclass=_Bound):
    def __init__(
        self, tumour: Sequence[int], logits: bool, regions: bool, mean_of_logits: bool
    ) -> None: ...

class ExportGrid(metaclass=_Bound):
    def __init__(
        self,
        axes: Sequence[int],
        nearest: Sequence[bool],
        float32_coordinates: bool,
        round_to_input: bool,
    ) -> None: ...

def ensemble_score(
    members: Sequence[NDArray[Any]],
    rule: MergeRule,
    map: CalibrationMap | None,  # noqa: A002
    out: NDArray[Any],
) -> None: ...
def export_score(
    members: Sequence[NDArray[Any]],
    grids: Sequence[ExportGrid],
    rule: MergeRule,
    map: CalibrationMap | None,  # noqa: A002
    out: NDArray[Any],
) -> None: ...
def exp_nonpositive(x: NDArray[np.float32]) -> NDArray[np.float32]: ...
def logistic(x: NDArray[np.float32]) -> NDArray[np.float32]: ...

# --- bind_contact_angle.cpp -----------------------------------------------------------------------

def contact_angles(
    score: NDArray[Any],
    raters: Sequence[NDArray[Any]],
    vessels: NDArray[Any],
    labels: Sequence[int],
    thresholds: Sequence[float],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]: ...
