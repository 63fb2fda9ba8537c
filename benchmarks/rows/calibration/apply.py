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

INTO_OUT = "apply, into out"
_CHUNK = 1 << 22  # voxels compared at a time


class Applied(NamedTuple):
    """Scores, where the calibrated ones go, and the map."""

    score: NDArray[Any]
    out: NDArray[Any]
    map: CalibrationMap


class Apply(VoxelRow):
    """Into memory that is there already, as an inference service does it, and into a new array.

    The peer makes a new array, whose pages come from the system one by one.
    """

    goals: ClassVar[Mapping[str, str]] = {INTO_OUT: "≥ 60×, ≥ 50% of memcpy"}
    peer_bytes_per_voxel: ClassVar[int] = 24

    def prepare(self, setting: Setting) -> Applied:
        score = scores(setting["voxels"], setting["distribution"])
        return Applied(score, np.zeros_like(score), knots_of(score))

    def ours(self) -> Mapping[str, Callable[[Applied], NDArray[Any]]]:
        return {
            INTO_OUT: lambda inputs: inputs.map(inputs.score, out=inputs.out),
            "apply, new array": lambda inputs: inputs.map(inputs.score),
        }

    def peers(self) -> Mapping[str, Callable[[Applied], Any]]:
        return {"np.interp": lambda inputs: np.interp(inputs.score, inputs.map.x, inputs.map.y)}

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


def knots_of(score: NDArray[Any]) -> CalibrationMap:
    """A map whose knots lie as a fit would put them."""
    return CalibrationMap(*knots(score))
