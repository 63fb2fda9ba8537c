"""Which voxels should count in a fit? All of a CT, the region of interest, or the annotated box.

Fits the same phantom cohort (`twintrack.datasets.phantom`) under each rule and measures the maps on
other cases, inside the annotated box, where the experts disagree. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from twintrack import Calibrator
from twintrack.cohort import annotated_box
from twintrack.datasets.phantom import PhantomCase, PhantomSpec, phantom_case


def regions(case: PhantomCase) -> dict[str, Any]:
    """Mask of the voxels that count, by rule."""
    box = np.zeros(case.score.shape, bool)
    box[annotated_box(list(case.raters))] = True
    return {"all": None, "roi": case.roi_mask(), "box": box}


def cases(spec: PhantomSpec, first: int, count: int) -> Iterator[PhantomCase]:
    """Phantom cases by number."""
    return (phantom_case(spec, index) for index in range(first, first + count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 120))
    parser.add_argument("--cases", type=int, default=6, help="cases fitted, and as many measured")
    options = parser.parse_args()
    spec = PhantomSpec(shape=tuple(options.shape), seed=0)

    fits: dict[str, Calibrator] = {}
    for case in cases(spec, 0, options.cases):
        for rule, region in regions(case).items():
            fit = fits.setdefault(rule, Calibrator())
            fit.partial_fit(case.score, case.raters, region, case=case.name)

    squares = {rule: [0.0, 0.0] for rule in ["uncalibrated", *fits]}
    for case in cases(spec, options.cases, options.cases):
        inside = annotated_box(list(case.raters))
        mhr = case.mean_human_response()[inside]
        for rule, total in squares.items():
            score = case.score[inside]
            mapped = score if rule not in fits else fits[rule].transform(score)
            uncertain = (mhr > 0) & (mhr < 1)
            total[0] += float(np.sum((mapped[uncertain] - mhr[uncertain]) ** 2, dtype=np.float64))
            total[1] += np.count_nonzero(uncertain)

    print(
        "| voxels that count | voxels | bins made | largest bin | knots above 0.01 | "
        "error where experts disagree (RMS) |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for rule, (total, voxels) in squares.items():
        error = f"{np.sqrt(total / voxels):.4f}"
        if rule not in fits:
            print(f"| uncalibrated | | | | | {error} |")
            continue
        fit = fits[rule]
        above = int(np.count_nonzero(fit.bins_.mean_score > 0.01))
        largest = fit.bins_.count.max() / fit.n_voxels_
        print(f"| {rule} | {fit.n_voxels_:,} | {fit.n_bins_} | {largest:.1%} | {above} | {error} |")


if __name__ == "__main__":
    main()
