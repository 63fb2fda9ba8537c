"""Fitting a map: 250 equal-mass bins, five raters, mean human response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from measure import read_seconds
from numpy.typing import NDArray
from suite.inputs import RATERS, rater_masks, scores

from rows.row import NotRunError, Setting, Sizes, VoxelRow
from twintrack import Calibrator

BINS = 250
AT = np.linspace(0, 1, 20_001)  # where both maps are compared
ONE_PASS, EXACT = "fit", "fit, exact=True"
SORTED = "argsort, reduceat, IsotonicRegression"
SUMS, CENTRES, HISTOGRAMS = "numba, sums of scores", "numba, cell centres", "boost-histogram"


class Case(NamedTuple):
    """What a map is fitted to."""

    score: NDArray[Any]
    raters: list[NDArray[np.uint8]]


class Fit(VoxelRow):
    """In one pass, cuts between bins lie on the tally's grid; in two, where a sort has them.

    Of the peers only the sort is exact. Ours keeps the votes of each rater too, on a grid that is
    finer at both ends, and its sums do not depend on the threads.
    """

    packages: ClassVar[tuple[str, ...]] = ("numpy", "scikit-learn", "numba", "boost-histogram")
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
        return {
            SORTED: fit_with_numpy,
            SUMS: fit_with_numba_sums,
            CENTRES: fit_with_numba_centres,
            HISTOGRAMS: fit_with_boost_histogram,
        }

    def goal(self, ours: str, peer: str, setting: Setting) -> str:
        if ours != ONE_PASS:
            return ""
        if peer == SORTED:
            return _OF_SORT.get(setting["distribution"], "≥ 250×")
        return "≥ 5×" if peer in (SUMS, CENTRES) else ""

    def traffic(self, ours: str, inputs: Case) -> int:
        once = inputs.score.nbytes + sum(rater.nbytes for rater in inputs.raters)
        return once * _passes(ours)

    def limit(self, ours: str, inputs: Case) -> float:
        return read_seconds([inputs.score, *inputs.raters]) * _passes(ours)

    def difference(self, inputs: Case, ours: Calibrator, theirs: Any) -> Mapping[str, float]:  # noqa: ARG002
        return {"map": float(np.max(np.abs(ours.transform(AT) - theirs.predict(AT))))}


_OF_SORT = {"uniform": "≥ 200×", "fp16": ""}  # others are background and means of networks


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


def fit_with_numba_sums(case: Case) -> Any:
    """What it is not: see `rows.calibration.numba_fit`, as for the next."""
    from rows.calibration.numba_fit import fit_with_sums

    if case.score.dtype == np.float16:
        raise NotRunError("a 16-bit score is its cell's only one")
    return fit_with_sums(case.score, case.raters, BINS)


def fit_with_numba_centres(case: Case) -> Any:
    """The cells of 16-bit scores are their values, of which nothing has to be summed."""
    from rows.calibration.numba_fit import fit_at_centres, fit_by_value

    fit = fit_by_value if case.score.dtype == np.float16 else fit_at_centres
    return fit(case.score, case.raters, BINS)


def fit_with_boost_histogram(case: Case) -> Any:
    """What it is not: see `rows.calibration.histogram_fit`."""
    from rows.calibration.histogram_fit import fit_with_histograms

    return fit_with_histograms(case.score, case.raters, BINS)
