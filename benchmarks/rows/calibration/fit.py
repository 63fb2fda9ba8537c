"""Fitting a map: 250 equal-mass bins, five raters, mean human response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from measure import read_seconds
from numpy.typing import NDArray
from suite.inputs import RATERS, rater_masks, scores

from rows.row import Setting, Sizes, VoxelRow
from twintrack import Calibrator

BINS = 250
AT = np.linspace(0, 1, 20_001)  # where both maps are compared
ONE_PASS, EXACT = "fit", "fit, exact=True"


class Case(NamedTuple):
    """What a map is fitted to."""

    score: NDArray[Any]
    raters: list[NDArray[np.uint8]]


class Fit(VoxelRow):
    """In one pass, cuts between bins lie on the tally's grid; in two, where a sort has them."""

    goals: ClassVar[Mapping[str, str]] = {ONE_PASS: "≥ 150×"}
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scikit-learn")
    peer_bytes_per_voxel: ClassVar[int] = 32

    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        for setting in super().settings(sizes):
            for raters in sizes.raters or (RATERS,):
                yield {**setting, "raters": raters}

    def describe(self, setting: Setting) -> str:
        others = setting["raters"] != RATERS
        return super().describe(setting) + (f", {setting['raters']} raters" if others else "")

    def prepare(self, setting: Setting) -> Case:
        score = scores(setting["voxels"], setting["distribution"])
        return Case(score, rater_masks(score, setting["raters"]))

    def ours(self) -> Mapping[str, Callable[[Case], Calibrator]]:
        return {
            ONE_PASS: lambda case: Calibrator(bins=BINS).fit(*case),
            EXACT: lambda case: Calibrator(bins=BINS, exact=True).fit(*case),
        }

    def peers(self) -> Mapping[str, Callable[[Case], Any]]:
        return {"argsort, reduceat, IsotonicRegression": fit_with_numpy}

    def traffic(self, ours: str, inputs: Case) -> int:
        once = inputs.score.nbytes + sum(rater.nbytes for rater in inputs.raters)
        return once * _passes(ours)

    def limit(self, ours: str, inputs: Case) -> float:
        return read_seconds([inputs.score, *inputs.raters]) * _passes(ours)

    def difference(self, inputs: Case, ours: Calibrator, theirs: Any) -> Mapping[str, float]:  # noqa: ARG002
        return {"map": float(np.max(np.abs(ours.transform(AT) - theirs.predict(AT))))}


def _passes(ours: str) -> int:
    return 2 if ours == EXACT else 1


def fit_with_numpy(case: Case) -> Any:
    """The usual way: sort all voxels, cut, sum each bin, fit.

    Votes are summed over the raters before they are sorted, which is the quickest order. A block of
    equal scores is not split: its cut moves to the block's start.
    """
    from sklearn.isotonic import IsotonicRegression

    votes = np.sum(case.raters, axis=0, dtype=np.uint8)
    order = np.argsort(case.score)
    ordered = case.score[order]
    cuts = np.arange(BINS) * ordered.size // BINS
    starts = np.unique(np.searchsorted(ordered, ordered[cuts], side="left"))
    count = np.diff(starts, append=ordered.size)
    mean_score = np.add.reduceat(ordered, starts, dtype=np.float64) / count
    marks = np.add.reduceat(votes[order], starts, dtype=np.int64)
    mhr = marks / (count * len(case.raters))
    return IsotonicRegression(out_of_bounds="clip").fit(mean_score, mhr, sample_weight=count)
