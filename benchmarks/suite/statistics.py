"""Bootstrap over cases: 4 methods and 8 metrics."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from twintrack import bootstrap, paired_bootstrap, sign_flip_test

from .inputs import choices


class Bootstrap:
    """Intervals of means and of differences."""

    params: ClassVar[list[list[Any]]] = [
        choices(64, 1000),
        choices(1000, 5000),
        choices("percentile", "bca"),
    ]
    param_names: ClassVar[list[str]] = ["cases", "resamples", "interval"]

    def setup(self, cases: int, resamples: int, interval: str) -> None:  # noqa: ARG002
        self.values = np.random.default_rng(0).gamma(2.0, size=(cases, 4, 8))

    def time_bootstrap(self, _: int, resamples: int, interval: Any) -> None:
        bootstrap(self.values, resamples, method=interval)

    def time_paired(self, _: int, resamples: int, interval: Any) -> None:
        paired_bootstrap(self.values[:, 1:], self.values[:, :1], resamples, method=interval)

    def time_sign_flip(self, _: int, resamples: int, interval: Any) -> None:  # noqa: ARG002
        sign_flip_test(self.values[:, 1:], self.values[:, :1], resamples)

    def peakmem_bootstrap(self, _: int, resamples: int, interval: Any) -> None:
        bootstrap(self.values, resamples, method=interval)
