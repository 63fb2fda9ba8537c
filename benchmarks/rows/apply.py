"""Applying a map of 250 knots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from measure import copy_seconds
from numpy.typing import NDArray
from suite.inputs import scores

from rows.row import Row
from twintrack import CalibrationMap

KNOTS = 250
_CHUNK = 1 << 22  # voxels compared at a time


class Applied(NamedTuple):
    """Scores, where the calibrated ones go, and the map."""

    score: NDArray[Any]
    out: NDArray[Any]
    map: CalibrationMap


class Apply(Row):
    """Into memory that is there already, as an inference service does it."""

    work: ClassVar[str] = "apply, into out"
    goal: ClassVar[str] = "≥ 60×, ≥ 50% of memcpy"
    peer_bytes_per_voxel: ClassVar[int] = 24

    def prepare(self, voxels: int, distribution: str) -> Applied:
        score = scores(voxels, distribution)
        return Applied(score, np.zeros_like(score), knots_of(score))

    def ours(self, inputs: Applied) -> NDArray[Any]:
        return inputs.map(inputs.score, out=inputs.out)  # type: ignore[no-any-return]

    def peers(self) -> Mapping[str, Callable[[Applied], Any]]:
        return {"np.interp": lambda inputs: np.interp(inputs.score, inputs.map.x, inputs.map.y)}

    def traffic(self, inputs: Applied) -> int:
        return 2 * inputs.score.nbytes

    def limit(self, inputs: Applied) -> float:
        return copy_seconds(inputs.score, inputs.out)

    def difference(self, inputs: Applied, ours: NDArray[Any], theirs: NDArray[Any]) -> float:
        if ours is inputs.out:  # the limit was measured in between
            ours = self.ours(inputs)
        parts = (slice(first, first + _CHUNK) for first in range(0, ours.size, _CHUNK))
        return max(float(np.max(np.abs(ours[part] - theirs[part]))) for part in parts)


class ApplyNew(Apply):
    """Into a new array, as the peer does it: pages come from the system one by one."""

    work: ClassVar[str] = "apply, new array"
    goal: ClassVar[str] = ""

    def prepare(self, voxels: int, distribution: str) -> Applied:
        score = scores(voxels, distribution)
        return Applied(score, np.empty(0, score.dtype), knots_of(score))

    def ours(self, inputs: Applied) -> NDArray[Any]:
        return inputs.map(inputs.score)  # type: ignore[no-any-return]

    def limit(self, inputs: Applied) -> float:
        return copy_seconds(inputs.score, np.zeros_like(inputs.score))


def knots_of(score: NDArray[Any]) -> CalibrationMap:
    """A map whose knots lie as a fit would put them: at quantiles of the scores."""
    sample = score[:: max(score.size // 1_000_000, 1)].astype(np.float64)
    x = np.unique(np.quantile(sample, (np.arange(KNOTS) + 0.5) / KNOTS))
    # Where ties leave fewer quantiles than knots, the rest is spread over the range.
    missing = KNOTS - x.size
    x = np.unique(np.append(x, (np.arange(missing) + 0.5) / max(missing, 1)))
    return CalibrationMap(x, x**2)
