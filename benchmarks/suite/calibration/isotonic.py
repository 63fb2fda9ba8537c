"""Weighted isotonic regression."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from twintrack import isotonic

from ..inputs import choices


class Isotonic:
    """On values that rise, fall (all pooled) or are noise about a line."""

    params: ClassVar[list[list[Any]]] = [
        choices(250, 10**4, 10**6),
        choices("noisy", "rising", "falling"),
    ]
    param_names: ClassVar[list[str]] = ["values", "shape"]

    def setup(self, values: int, shape: str) -> None:
        rng = np.random.default_rng(0)
        line = np.linspace(0, 1, values)
        self.weights = rng.random(values)
        self.values = {
            "rising": line,
            "falling": line[::-1].copy(),
            "noisy": line + 0.1 * rng.standard_normal(values),
        }[shape]

    def time_isotonic(self, *_: Any) -> None:
        isotonic(self.values, self.weights)

    def peakmem_isotonic(self, *_: Any) -> None:
        isotonic(self.values, self.weights)
