"""Prints how often the band of a map holds the truth, by simulation, beside other bands.

    python benchmarks/band_coverage.py                # two kinds of simulated cohorts: two minutes
    python benchmarks/band_coverage.py --lidc         # and real disagreement: LIDC, by patient
    python benchmarks/band_coverage.py --cohorts 400 --groups 5 10 20 40 80 --studentised

A population of 888 cases stands for all patients there are: the map fitted to it is the truth. From
it cohorts of a few cases are drawn, a calibrator is fitted to each, and its band, nominally 95%, is
looked at. Cases differ in size as lung nodules do, so that a few carry most of the votes, and each
has its own bias on the scale of log-odds; four raters answer. "over" is an over-confident model,
"under" an under-confident one whose cases differ less in bias and more in slope. Scores come in
steps of 0.05 of log-odds.

Coverage is the share of 14 scores at which the truth is in the band, in the mean over cohorts;
"worst" is that of the score where it is least. "everywhere" is the share of cohorts where it is in
the band at those 14 and 201 equally spaced scores at once. The width is the mean over the
14 scores, its median over cohorts. Percentile and jackknife-t are the bands that one would
otherwise take: quantiles of the maps of resampled cases, and delete-one jackknife on the scale of
log-odds with n_eff - 1 degrees of freedom. The status is 1 if a pointwise band of ours covers less
than 0.90.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import measure
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from twintrack import Calibrator, ScoreTally
from twintrack.calibration.jackknife import log_odds
from twintrack.calibration.tally_fit import TallyFit
from twintrack.datasets import lidc

Floats: TypeAlias = NDArray[np.float64]
Limits: TypeAlias = tuple[Floats, Floats]

POINTS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SCORES = np.unique([*POINTS, *np.linspace(0, 1, 201)])
AT = np.searchsorted(SCORES, POINTS)
RATERS = 4
LEVEL = 0.95
GOAL = 0.90


@dataclass(frozen=True)
class Model:
    """How scores and raters of simulated cases are made, in log-odds.

    Attributes
    ----------
    size
        Standard deviation of the logarithm of a case's size.
    outside, inside
        Mean and standard deviation of the score around the tumour and in it.
    border
        Standard deviation of the score at the border.
    slope, offset
        A rater's mean response is offset + slope × score.
    slopes, biases
        Standard deviations between cases: of the logarithm of the slope, and of the offset.
    """

    size: float
    outside: tuple[float, float]
    inside: tuple[float, float]
    border: float
    slope: float
    offset: float
    slopes: float
    biases: float


OVER = Model(1.45, (-7, 3), (6, 1), 4, 0.6, -2.3, 0.1, 0.8)
UNDER = Model(1.62, (-4, 1.5), (2.5, 0.8), 2.4, 1.8, 0.3, 0.3, 0.5)


def simulate(model: Model, cases: int, seed: int) -> list[ScoreTally]:
    """Return the tallies of a population."""
    rng = np.random.default_rng(seed)
    tallies = []
    for _ in range(cases):
        size = np.exp(rng.normal(6, model.size))
        score = np.concatenate(
            [
                rng.normal(*model.outside, rng.poisson(6 * size + 50)),
                rng.normal(*model.inside, rng.poisson(size + 5)) + rng.normal(0, 0.5),
                rng.normal(0, model.border, rng.poisson(1.5 * size**0.8 + 10)),
            ]
        )
        slope = model.slope * np.exp(rng.normal(0, model.slopes))
        response = model.offset + rng.normal(0, model.biases) + slope * score
        marks = [
            rng.random(len(score)) < expit(response + rng.normal(0, 0.4)) for _ in range(RATERS)
        ]
        tallies.append(ScoreTally(RATERS).update(stepped(score), marks).compact())
    return tallies


def stepped(log_odds_of: Floats) -> NDArray[np.float32]:
    """Return scores in steps of 0.05 of log-odds: fits take a tenth of the time."""
    return expit(np.clip(np.round(log_odds_of / 0.05) * 0.05, -12, 12)).astype(np.float32)


def lidc_patients(over: bool) -> list[ScoreTally]:
    """Return a tally of each LIDC patient, for an over- or an under-confident simulated score."""
    parameters = {} if over else {"growths": (-1.0, -0.5, 0.0), "temperature": 1.5, "seed": 5}
    patients: dict[str, ScoreTally] = {}
    for nodule in lidc.read_nodules():
        score, raters = lidc.simulate_score(lidc.rasterise(nodule), **parameters)
        with np.errstate(divide="ignore"):
            score = stepped(logit(score.astype(np.float64)))
        tally = patients.setdefault(nodule.patient, ScoreTally(len(raters)))
        patients[nodule.patient] = (tally + ScoreTally(len(raters)).update(score, raters)).compact()
    return list(patients.values())


class Cohort:
    """Some cases, with the maps of any weights of theirs."""

    def __init__(self, tallies: Sequence[ScoreTally]) -> None:
        self.calibrator = Calibrator()
        for number, tally in enumerate(tallies):
            self.calibrator.add_tally(tally, str(number))
        self.fit: TallyFit = self.calibrator.tally_fit
        self._cells = np.unique(np.concatenate([tally.cells for tally in tallies]))
        self._raters = tallies[0].raters
        self._sums = np.zeros((len(tallies), len(self._cells), 2 + self._raters))
        for of_case, tally in zip(self._sums, tallies, strict=True):
            cells, sums = tally.pooled_rows()
            of_case[np.searchsorted(self._cells, cells)] = sums[:, : 2 + self._raters]
        self.votes = np.array([self.fit.yes(tally).sum() for tally in tallies])

    def __len__(self) -> int:
        return len(self._sums)

    @property
    def effective(self) -> float:
        """Effective number of cases."""
        return float(self.votes.sum() ** 2 / (self.votes**2).sum())

    def maps(self, weights: NDArray[np.int64]) -> Floats:
        """Return the maps of the cases so many times each, (draws, scores)."""
        made = []
        for sums in np.tensordot(weights.astype(np.float64), self._sums, 1):
            some = np.flatnonzero(sums[:, 0])
            rows = self._cells[some], sums[some].astype(np.uint64)
            drawn = ScoreTally.of_rows(self._raters, {tuple(range(self._raters)): rows})
            made.append(self.fit(drawn)(SCORES))
        return np.stack(made)

    def log_odds_without(self, weights: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the log-odds of the map of these weights, and its plain jackknife error."""
        cases = np.flatnonzero(weights)
        one_less = weights - np.eye(len(weights), dtype=np.int64)[cases]
        whole, *rest = log_odds(self.maps(np.stack([weights, *one_less])))
        times, total = weights[cases], weights.sum()
        mean = times @ np.stack(rest) / total
        squares = times @ (np.stack(rest) - mean) ** 2
        return whole, np.sqrt((total - 1) / total * squares)


def draws(cohort: Cohort, resamples: int, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return rng.multinomial(len(cohort), np.full(len(cohort), 1 / len(cohort)), resamples)


def percentile(cohort: Cohort, resamples: int, seed: int) -> Limits:
    """Quantiles of the maps of resampled cases."""
    low, high = np.quantile(cohort.maps(draws(cohort, resamples, seed)), _tails(), axis=0)
    return low, high


def jackknife_t(cohort: Cohort, _resamples: int, _seed: int) -> Limits:
    """Plain delete-one jackknife on the scale of log-odds; n_eff - 1 degrees of freedom."""
    theta, error = cohort.log_odds_without(np.ones(len(cohort), np.int64))
    reach = stdtrit(max(cohort.effective - 1, 0.1), (1 + LEVEL) / 2) * error
    return expit(theta - reach), expit(theta + reach)


def studentised(cohort: Cohort, resamples: int, seed: int) -> Limits:
    """Bootstrap of (map - truth) / error on the scale of log-odds, errors by jackknife."""
    theta, error = cohort.log_odds_without(np.ones(len(cohort), np.int64))
    ratios = []
    for weights in draws(cohort, resamples, seed):
        if np.count_nonzero(weights) > 1:
            drawn, its_error = cohort.log_odds_without(weights)
            ratios.append((drawn - theta) / np.maximum(its_error, 1e-9))
    low, high = np.quantile(ratios, _tails(), axis=0)
    return expit(theta - high * error), expit(theta - low * error)


def pointwise(cohort: Cohort, _resamples: int, _seed: int) -> Limits:
    band = cohort.calibrator.band(SCORES, LEVEL)
    return band.low, band.high


def simultaneous(cohort: Cohort, _resamples: int, _seed: int) -> Limits:
    band = cohort.calibrator.band(SCORES, LEVEL, "simultaneous")
    return band.low, band.high


def _tails() -> list[float]:
    return [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


OURS = "`band()`"
BANDS: dict[str, Callable[[Cohort, int, int], Limits]] = {
    "percentile": percentile,
    "jackknife-t": jackknife_t,
    "studentised bootstrap": studentised,
    OURS: pointwise,
    '`band(kind="simultaneous")`': simultaneous,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=measure.count, default=120, help="drawn of each size")
    parser.add_argument("--groups", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--resamples", type=int, default=200, help="of the bootstrap bands")
    parser.add_argument("--lidc", action="store_true", help="also LIDC's patients")
    parser.add_argument("--studentised", action="store_true", help="also it; takes minutes")
    parser.add_argument("--small", action="store_true", help="only to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.small:
        given.cohorts, given.resamples = 3, 20
    cases = 100 if given.small else 888
    print(measure.machine(["twintrack", "numpy"]))
    populations = {
        "over": simulate(OVER, cases, 1 + given.seed),
        "under": simulate(UNDER, cases, 2 + given.seed),
    }
    if given.lidc:
        populations |= {"LIDC, over": lidc_patients(True), "LIDC, under": lidc_patients(False)}
    bands = {name: band for name, band in BANDS.items() if given.studentised or band != studentised}
    print(f"nominally {LEVEL:.0%}; {given.cohorts} cohorts of each size\n")
    print("| cohorts | groups | n_eff | band | coverage | worst | everywhere | width | ms |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    failed = []
    for kind, population in populations.items():
        truth = Calibrator().add_tally(ScoreTally.of_all(population), cases=cases).map_(SCORES)
        for groups in given.groups:
            coverage = look_at(population, truth, groups, bands, given, kind)
            if coverage < GOAL and not given.small:
                failed.append(f"{kind}, {groups} groups: {coverage:.3f}")
    if failed:
        print(f"\n{OURS} covers less than {GOAL}: {'; '.join(failed)}")
    return bool(failed)


def look_at(
    population: Sequence[ScoreTally],
    truth: Floats,
    groups: int,
    bands: dict[str, Callable[[Cohort, int, int], Limits]],
    given: argparse.Namespace,
    kind: str,
) -> float:
    """Print the lines of cohorts of one size, and return the coverage of our pointwise band."""
    rng = np.random.default_rng([given.seed, groups])
    held: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in bands}
    widths: dict[str, list[float]] = {name: [] for name in bands}
    seconds: dict[str, list[float]] = {name: [] for name in bands}
    effective = []
    for number in range(given.cohorts):
        chosen = rng.choice(len(population), groups, replace=False)
        cohort = Cohort([population[k] for k in chosen])
        effective.append(cohort.effective)
        for name, band in bands.items():
            started = time.perf_counter()
            low, high = band(cohort, given.resamples, number)
            seconds[name].append(time.perf_counter() - started)
            held[name].append((low <= truth + 1e-12) & (truth <= high + 1e-12))
            widths[name].append(float(np.mean((high - low)[AT])))
    for name in bands:
        inside = np.stack(held[name])
        at_points = inside[:, AT].mean(axis=0)
        print(
            f"| {kind} | {groups} | {np.median(effective):.1f} | {name} | {at_points.mean():.3f} "
            f"| {at_points.min():.3f} | {inside.all(axis=1).mean():.3f} "
            f"| {np.median(widths[name]):.3f} | {1000 * np.median(seconds[name]):.0f} |",
            flush=True,
        )
    return float(np.mean([inside[AT].mean() for inside in held[OURS]]))


if __name__ == "__main__":
    raise SystemExit(main())
