"""Merging the members of an ensemble: 3 members, 7 classes, float16 logits."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from twintrack import CalibrationMap, ensemble_score

from ..inputs import choices


def members(grid: tuple[int, ...]) -> list[Any]:
    """Logits without structure; nothing depends on it."""
    rng = np.random.default_rng(0)
    shape = (7, *grid)
    return [(4 * rng.standard_normal(shape, np.float32)).astype(np.float16) for _ in range(3)]


def calibration_map() -> CalibrationMap:
    """250 knots."""
    x = np.linspace(0.001, 0.999, 250)
    return CalibrationMap(x, x**2)


class Merge:
    """`ensemble_score`: members on the score's grid."""

    params: ClassVar[list[list[Any]]] = [choices(32, 64, 128), choices("probabilities", "logits")]
    param_names: ClassVar[list[str]] = ["edge", "average"]

    def setup(self, edge: int, _: str) -> None:
        self.members = members((edge, edge, edge))
        self.map = calibration_map()
        self.out = np.zeros((edge, edge, edge), np.float32)

    def time_merge(self, _: int, average: Any) -> None:
        ensemble_score(self.members, average=average, calibrator=self.map, out=self.out)

    def peakmem_merge(self, _: int, average: Any) -> None:
        ensemble_score(self.members, average=average, calibrator=self.map, out=self.out)
