"""Prints how often the interval of a predicted volume holds the raters' volume, by simulation.

    python benchmarks/volume_interval.py                      # simulated cohorts: two minutes
    python benchmarks/volume_interval.py --lidc --cohorts 300 --groups 10 20 40 100

Populations and maps are those of ``band_coverage.py``; LIDC's cases are nodules, of which a patient
may have several. "over, empty" are the over-confident cases, in a tenth of which no rater marks a
voxel. A calibrator is fitted to the cases of some patients; the volumes that it predicts for cases
of others, at most 200 a cohort, have nominal 95% intervals.

Coverage is the share of these cases whose marked volume lies inside, also by quartile of the
predicted volume; width is the median of (high + 1) / (low + 1). "band" sums the limits of the map's
band: it knows the map's error and not the case's. "conformal" is the quantile of |log((V + 1) / (P
+ 1))| of left-out cases: infinite below 19. The status is 1 if ours covers less than 0.92, or less
than 0.87 of a quartile.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NamedTuple

import band_coverage
import measure
import numpy as np
from band_coverage import LEVEL, OVER, UNDER, Floats
from numpy.typing import NDArray
from scipy.special import logit

from twintrack import Calibrator, ScoreTally
from twintrack.datasets import lidc

TESTED = 200
GOAL, GOAL_OF_QUARTILE = 0.92, 0.87


class Population(NamedTuple):
    """Cases with their patients; scores and voxels by cell, and marked volumes."""

    tallies: Sequence[ScoreTally]
    patients: NDArray[np.int64]
    scores: Floats
    voxels: Floats  # cases × cells
    marked: Floats

    @classmethod
    def of(cls, tallies: Sequence[ScoreTally], patients: Sequence[str]) -> Population:
        total = ScoreTally.of_all(tallies)
        voxels = np.zeros((len(tallies), len(total.cells)))
        for of_case, tally in zip(voxels, tallies, strict=True):
            of_case[np.searchsorted(total.cells, tally.cells)] = tally.counts
        _, numbers = np.unique(patients, return_inverse=True)
        scores = total.equal_mass_bins(1 << 30).mean_score
        marked = np.array([tally.response for tally in tallies])
        return cls(tallies, numbers, scores, voxels, marked)


def without_marks(tallies: Sequence[ScoreTally], share: float, seed: int) -> list[ScoreTally]:
    """Return the cases, some of them without any mark."""
    chosen = np.random.default_rng(seed).random(len(tallies)) < share
    return [unmarked(tally) if none else tally for tally, none in zip(tallies, chosen, strict=True)]


def unmarked(tally: ScoreTally) -> ScoreTally:
    cells, sums = tally.pooled_rows()
    rows = cells, np.where(np.arange(sums.shape[1]) < 2, sums, np.uint64(0))
    return ScoreTally.of_rows(tally.raters, {tuple(range(tally.raters)): rows})


def lidc_nodules(over: bool) -> Population:
    """Return a case for each LIDC nodule, of an over- or an under-confident simulated score."""
    parameters = {} if over else {"growths": (-1.0, -0.5, 0.0), "temperature": 1.5, "seed": 5}
    tallies, patients = [], []
    for nodule in lidc.read_nodules():
        score, raters = lidc.simulate_score(lidc.rasterise(nodule), **parameters)
        with np.errstate(divide="ignore"):
            score = band_coverage.stepped(logit(score.astype(np.float64)))
        tallies.append(ScoreTally(len(raters)).update(score, raters).compact())
        patients.append(nodule.patient)
    return Population.of(tallies, patients)


def simulated(tallies: Sequence[ScoreTally]) -> Population:
    return Population.of(tallies, [f"{number:04}" for number in range(len(tallies))])


class Held(NamedTuple):
    """What came of the cases that a kind of interval was made for."""

    predicted: list[Floats]
    inside: list[NDArray[np.bool_]]
    widths: list[Floats]

    def add(self, predicted: Floats, marked: Floats, low: Floats, high: Floats) -> None:
        self.predicted.append(predicted)
        self.inside.append((low <= marked + 1e-9) & (marked <= high + 1e-9))
        self.widths.append((high + 1) / (low + 1))

    def coverage(self) -> tuple[float, list[float]]:
        """Return that of all cases, and that of each quartile of the predicted volume."""
        predicted, inside = np.concatenate(self.predicted), np.concatenate(self.inside)
        quartile = np.searchsorted(np.quantile(predicted, [0.25, 0.5, 0.75]), predicted)
        return float(inside.mean()), [float(inside[quartile == k].mean()) for k in range(4)]


def conformal(pairs: Sequence[tuple[float, float]], predicted: Floats) -> tuple[Floats, Floats]:
    """Quantile of the absolute errors of left-out cases."""
    errors = sorted(abs(math.log((marked + 1) / (said + 1))) for said, marked in pairs)
    rank = math.ceil(LEVEL * (len(errors) + 1))
    reach = errors[rank - 1] if rank <= len(errors) else math.inf
    return np.maximum((predicted + 1) * math.exp(-reach) - 1, 0), (predicted + 1) * np.exp(
        reach
    ) - 1


def look_at(population: Population, groups: int, given: argparse.Namespace) -> dict[str, Held]:
    """Draw cohorts of so many patients, and return what each kind of interval held."""
    rng = np.random.default_rng([given.seed, groups])
    held = {name: Held([], [], []) for name in ("band", "conformal", "ours")}
    patients = np.unique(population.patients)
    for _ in range(given.cohorts):
        chosen = np.isin(population.patients, rng.choice(patients, groups, replace=False))
        calibrator = Calibrator()
        for case in np.flatnonzero(chosen):
            group = str(population.patients[case])
            calibrator.add_tally(population.tallies[case], str(case), group=group)
        others = np.flatnonzero(~chosen)
        tested = rng.choice(others, min(TESTED, len(others)), replace=False)
        voxels, marked = population.voxels[tested], population.marked[tested]
        predicted = voxels @ calibrator.map_(population.scores)
        band = calibrator.band(population.scores, LEVEL)
        held["band"].add(predicted, marked, voxels @ band.low, voxels @ band.high)
        held["conformal"].add(predicted, marked, *conformal(left_out(calibrator), predicted))
        assert band.volumes is not None
        ours = band.volumes.interval(predicted, LEVEL)
        held["ours"].add(predicted, marked, ours.low, ours.high)
    return held


def left_out(calibrator: Calibrator) -> list[tuple[float, float]]:
    """Return the volumes of the cases, predicted without their patients and marked."""
    fit, groups = calibrator.tally_fit, calibrator._tallies().each_group()
    total = ScoreTally.of_all([group.total for group in groups])
    return [
        fit.volumes(case, rest)
        for group in groups
        for rest in [fit(total - group.total)]
        for case in group.cases or ()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=measure.count, default=60, help="drawn of each size")
    parser.add_argument("--groups", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--lidc", action="store_true", help="also LIDC's nodules")
    parser.add_argument("--small", action="store_true", help="only to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.small:
        given.cohorts, given.groups = 2, [10]
    cases = 100 if given.small else 888
    print(measure.machine(["twintrack", "numpy"]))
    over = band_coverage.simulate(OVER, cases, 1 + given.seed)
    populations = {
        "over": simulated(over),
        "over, empty": simulated(without_marks(over, 0.1, 3 + given.seed)),
        "under": simulated(band_coverage.simulate(UNDER, cases, 2 + given.seed)),
    }
    if given.lidc:
        populations |= {"LIDC, over": lidc_nodules(True), "LIDC, under": lidc_nodules(False)}
    print(f"nominally {LEVEL:.0%}; {given.cohorts} cohorts of each size\n")
    print("| cohorts | patients | band | conformal | ours | by quartile of size |")
    print("| --- | ---: | --- | --- | --- | --- |")
    failed = []
    for kind, population in populations.items():
        for groups in given.groups:
            cells, quartiles = [], [0.0]
            for held in look_at(population, groups, given).values():
                whole, quartiles = held.coverage()
                cells.append(f"{whole:.3f}, {np.median(np.concatenate(held.widths)):.3g}")
            told = " ".join(f"{share:.3f}" for share in quartiles)
            print(f"| {kind} | {groups} | {' | '.join(cells)} | {told} |", flush=True)
            if whole < GOAL or min(quartiles) < GOAL_OF_QUARTILE:
                failed.append(f"{kind}, {groups} patients")
    if failed and not given.small:
        print(f"\nours covers too little: {'; '.join(failed)}")
    return bool(failed and not given.small)


if __name__ == "__main__":
    raise SystemExit(main())
