"""Applying a map of 250 knots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from measure import copy_seconds
from numpy.typing import NDArray
from suite.inputs import knots, scores

from rows.row import Setting, VoxelRow
from twintrack import CalibrationMap

INTO_OUT, NEW = "apply, into out", "apply, new array"
INTERP, LINES, NEW_LINES = "np.interp", "numba, table of lines", "numba, into a new array"
_CHUNK = 1 << 22  # voxels compared at a time


class Applied(NamedTuple):
    """Scores, where ours and a peer's calibrated ones go, and the map."""

    score: NDArray[Any]
    out: NDArray[Any]
    peer_out: NDArray[Any]
    map: CalibrationMap


class Apply(VoxelRow):
    """Into memory that is there already, as an inference service does it, and into a new array.

    `np.interp` makes a new array, whose pages come from the system one by one. numba's table is not
    exact: see `rows.calibration.numba_apply`.
    """

    packages: ClassVar[tuple[str, ...]] = ("numpy", "numba")
    peer_bytes_per_voxel: ClassVar[int] = 24

    def prepare(self, setting: Setting) -> Applied:
        score = scores(setting["voxels"], setting["distribution"])
        return Applied(score, np.zeros_like(score), np.zeros_like(score), knots_of(score))

    def ours(self) -> Mapping[str, Callable[[Applied], NDArray[Any]]]:
        return {
            INTO_OUT: lambda inputs: inputs.map(inputs.score, out=inputs.out),
            NEW: lambda inputs: inputs.map(inputs.score),
        }

    def peers(self) -> Mapping[str, Callable[[Applied], Any]]:
        return {
            INTERP: lambda inputs: np.interp(inputs.score, inputs.map.x, inputs.map.y),
            LINES: lambda inputs: apply_with_numba(inputs, inputs.peer_out),
            NEW_LINES: lambda inputs: apply_with_numba(inputs, np.empty_like(inputs.score)),
        }

    def goal(self, ours: str, peer: str, setting: Setting) -> str:  # noqa: ARG002
        if ours == INTO_OUT:
            return {INTERP: "≥ 100×, ≥ 60% of memcpy", LINES: "≥ 4×"}.get(peer, "")
        return "≥ 4×" if peer == NEW_LINES else ""

    def traffic(self, ours: str, inputs: Applied) -> int:  # noqa: ARG002
        return 2 * inputs.score.nbytes

    def limit(self, ours: str, inputs: Applied) -> float:  # noqa: ARG002
        return copy_seconds(inputs.score, np.zeros_like(inputs.score))

    def difference(
        self,
        inputs: Applied,  # noqa: ARG002
        ours: NDArray[Any],
        theirs: NDArray[Any],
    ) -> Mapping[str, float]:
        parts = (slice(first, first + _CHUNK) for first in range(0, ours.size, _CHUNK))
        return {"score": max(float(np.max(np.abs(ours[part] - theirs[part]))) for part in parts)}


def apply_with_numba(inputs: Applied, out: NDArray[Any]) -> NDArray[Any]:
    from rows.calibration.numba_apply import apply_lines

    return apply_lines(inputs.score, inputs.map.x, inputs.map.y, out)


def knots_of(score: NDArray[Any]) -> CalibrationMap:
    """A map whose knots lie as a fit would put them."""
    return CalibrationMap(*knots(score))
