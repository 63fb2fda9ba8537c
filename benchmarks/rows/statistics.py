"""Bootstrap intervals of all metrics and methods of a cohort."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rows.row import Row, Setting, Sizes
from twintrack import bootstrap

CASES, METHODS, METRICS = 64, 4, 8
SEED = 0
WORK = "bootstrap"
TAILS = (0.025, 0.975)


class Cohort(NamedTuple):
    """Metrics (cases, methods, metrics), and how often to resample."""

    values: NDArray[np.float64]
    resamples: int


class Bootstrap(Row):
    """Percentile intervals of the mean; everybody draws the same cases from the same seed."""

    goals: ClassVar[Mapping[str, str]] = {WORK: "< 1 s"}
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        return [{"resamples": sizes.resamples}]

    def warm_up(self, setting: Setting) -> Setting:  # noqa: ARG002
        return {"resamples": 10}

    def describe(self, setting: Setting) -> str:
        return f"{setting['resamples']} × {CASES} cases × {METRICS} metrics × {METHODS} methods"

    def prepare(self, setting: Setting) -> Cohort:
        rng = np.random.default_rng(1)
        return Cohort(rng.gamma(2.0, size=(CASES, METHODS, METRICS)), setting["resamples"])

    def ours(self) -> Mapping[str, Callable[[Cohort], NDArray[np.float64]]]:
        return {WORK: bootstrap_with_twintrack}

    def peers(self) -> Mapping[str, Callable[[Cohort], NDArray[np.float64]]]:
        return {"NumPy loop": bootstrap_with_numpy, "scipy.stats.bootstrap": bootstrap_with_scipy}

    def difference(self, inputs: Cohort, ours: Any, theirs: Any) -> Mapping[str, float]:  # noqa: ARG002
        return {"interval": float(np.max(np.abs(ours - theirs)))}


def bootstrap_with_twintrack(cohort: Cohort) -> NDArray[np.float64]:
    """Low and high ends."""
    found = bootstrap(cohort.values, cohort.resamples, SEED)
    return np.stack([found.low, found.high])


def bootstrap_with_numpy(cohort: Cohort) -> NDArray[np.float64]:
    """Resample by resample."""
    rng = np.random.default_rng(SEED)
    cases = len(cohort.values)
    means = [
        cohort.values[rng.integers(cases, size=cases)].mean(axis=0) for _ in range(cohort.resamples)
    ]
    return np.quantile(means, TAILS, axis=0)


def bootstrap_with_scipy(cohort: Cohort) -> NDArray[np.float64]:
    """All resamples at once, as it does by default."""
    from scipy.stats import bootstrap as scipy_bootstrap

    found = scipy_bootstrap(
        (cohort.values,),
        np.mean,
        n_resamples=cohort.resamples,
        axis=0,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    interval: NDArray[np.float64] = np.stack(found.confidence_interval)
    return interval
