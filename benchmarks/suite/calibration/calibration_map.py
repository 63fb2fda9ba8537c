"""Applying a calibration map."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from twintrack import CalibrationMap

from ..inputs import DISTRIBUTIONS, choices, knots, scores


class Apply:
    """250 knots where scores lie, into memory that is there already."""

    params: ClassVar[list[list[Any]]] = [choices(10**5, 10**6, 10**7), choices(*DISTRIBUTIONS)]
    param_names: ClassVar[list[str]] = ["voxels", "scores"]

    def setup(self, voxels: int, distribution: str) -> None:
        self.score = scores(voxels, distribution)
        self.out = np.zeros_like(self.score)
        self.map = CalibrationMap(*knots(self.score))

    def time_out(self, *_: Any) -> None:
        self.map(self.score, out=self.out)

    def time_new(self, *_: Any) -> None:
        self.map(self.score)

    def time_in_place(self, *_: Any) -> None:
        self.map(self.score, out=self.score)

    def peakmem_out(self, *_: Any) -> None:
        self.map(self.score, out=self.out)


class Layout:
    """Element types and strides, 4 million uniform scores."""

    params: ClassVar[list[list[Any]]] = [["float16", "float32", "float64"], [1, 2]]
    param_names: ClassVar[list[str]] = ["dtype", "step"]

    def setup(self, dtype: str, step: int) -> None:
        self.score = scores(step * 2**22, "uniform").astype(dtype)[::step]
        self.out = np.zeros_like(self.score)
        x = np.linspace(0, 1, 250)
        self.map = CalibrationMap(x, x**2)

    def time_out(self, *_: Any) -> None:
        self.map(self.score, out=self.out)


class Knots:
    """Making a map, and its table."""

    params: ClassVar[list[int]] = [10, 250, 10_000]
    param_names: ClassVar[list[str]] = ["knots"]

    def setup(self, knots: int) -> None:
        self.x = np.sort(np.random.default_rng(0).random(knots))
        self.y = np.linspace(0, 1, knots)

    def time_make(self, *_: Any) -> None:
        CalibrationMap(self.x, self.y)

    def time_table(self, *_: Any) -> None:
        CalibrationMap(self.x, self.y)(self.x[:1].astype(np.float32))
