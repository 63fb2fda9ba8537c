"""Prints how often `twintrack audit` says refit, keep or too few cases, by simulation.

    python benchmarks/audit.py                        # a minute of one core
    python benchmarks/audit.py --draws 500 --lidc     # four; also real disagreement: LIDC
    python benchmarks/audit.py --bound 0.5

Patients are drawn from a population, as of band_coverage.py, and a map is fitted to them; new cases
are drawn from the same population ("none": the null hypothesis, the map's own error included) or
from one that differs: "prevalence" has raters who mark less at the same score, by so much log-odds,
as for a model that over-segments more than it did; "aligned" is another model, whose scores are
about the responses. "Refit" in rows of "none" is the size of the test, nominally 0.05, in others
its power. The column "truth" is the volume predicted in the whole new population, divided by what
is marked, in the median over maps; where it is more than the bound away from 1, "keep" is wrong. ±
is the standard error of the simulation. The status is 1 if a size is larger than 0.06 by two of
these.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import measure
import numpy as np
from band_coverage import OVER, UNDER, Model, lidc_patients, simulate

from twintrack import ScoreTally
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.departures import Answers, Departures
from twintrack.calibration.tally_fit import TallyFit
from twintrack.runs.audit_result import SIZE, Verdict, judged

ALIGNED = Model(1.45, (-7, 3), (3, 1), 3, 1.0, 0.0, 0.1, 0.8)
FIT = TallyFit("mhr", 250, 0)
VERDICTS: tuple[Verdict, ...] = ("refit", "keep", "too few cases")
GOAL = 0.06


class Population(NamedTuple):
    """Patients, with their answers and those of all together."""

    tallies: Sequence[ScoreTally]
    answers: Sequence[Answers]
    whole: Answers

    @classmethod
    def of(cls, tallies: Sequence[ScoreTally]) -> Population:
        each = [Answers.of(FIT, tally) for tally in tallies]
        return cls(tallies, each, Answers.of(FIT, ScoreTally.of_all(tallies)))

    def ratio(self, fitted: CalibrationMap) -> float:
        """Return predicted by marked volume."""
        return float(self.whole.count @ self.whole.mapped(fitted) / self.whole.yes.sum())


class Fitted(NamedTuple):
    """A map, those without each patient with his votes, and the patients drawn."""

    fitted: CalibrationMap
    without: Sequence[tuple[CalibrationMap, float]]
    patients: Sequence[int]

    @classmethod
    def drawn(cls, among: Population, number: int, rng: np.random.Generator) -> Fitted:
        patients = rng.permutation(len(among.tallies))
        some = patients[:number]
        total = ScoreTally.of_all([among.tallies[k] for k in some])
        without = [
            (FIT(total.minus(among.tallies[k])), float(among.answers[k].yes.sum())) for k in some
        ]
        return cls(FIT(total), without, patients)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=measure.count, default=200, help="of every size")
    parser.add_argument("--cases", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--calibration", type=int, nargs="+", default=[20, 40])
    parser.add_argument("--bound", type=float, default=0.25)
    parser.add_argument("--lidc", action="store_true", help="also LIDC's patients")
    parser.add_argument("--small", action="store_true", help="only to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cases = 400
    if given.small:
        given.draws, given.cases, given.calibration, cases = 3, [5], [20], 60
    print(measure.machine(["twintrack", "numpy"]))
    print(f"size {SIZE}, bound {given.bound:.0%}; {given.draws} draws\n")
    print("| map of | its cases | change | truth | new cases | refit | ± | keep | too few |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    failed = []
    for kind, changes in populations(cases, given).items():
        for number in given.calibration:
            failed += look_at(kind, changes, number, given)
    if failed:
        print(f"\nsize of more than {GOAL}: {'; '.join(failed)}")
    return bool(failed) and not given.small


def populations(cases: int, given: argparse.Namespace) -> dict[str, dict[str, Population]]:
    """Return by kind the population of the fit, "none", and those that differ from it."""
    made: dict[str, dict[str, Population]] = {}
    aligned = Population.of(simulate(ALIGNED, cases, 3 + given.seed))
    for kind, model in (("over", OVER), ("under", UNDER)):
        made[kind] = {
            name: Population.of(
                simulate(replace(model, offset=model.offset - less), cases, seed + given.seed)
            )
            for name, less, seed in (("none", 0, 1), ("prevalence 1", 1, 4), ("prevalence 2", 2, 5))
        }
        made[kind]["aligned"] = aligned
    if given.lidc:
        over, under = (Population.of(lidc_patients(which)) for which in (True, False))
        made["LIDC, over"] = {"none": over, "LIDC, under": under}
        made["LIDC, under"] = {"none": under, "LIDC, over": over}
    return made


def look_at(
    kind: str, changes: Mapping[str, Population], number: int, given: argparse.Namespace
) -> list[str]:
    """Print the lines of maps fitted to so many patients; return sizes that are too large."""
    rng = np.random.default_rng([given.seed, number])
    said = {(name, cases): [] for name in changes for cases in given.cases}
    truth: dict[str, list[float]] = {name: [] for name in changes}
    for _ in range(given.draws):
        made = Fitted.drawn(changes["none"], number, rng)
        for name, among in changes.items():
            truth[name].append(among.ratio(made.fitted))
            new = made.patients[number:]
            if name != "none":
                new = rng.permutation(len(among.tallies))
            for cases in given.cases:
                said[name, cases].append(verdict(made, among, new[:cases], given.bound))
    failed = []
    for (name, cases), verdicts in said.items():
        refit, keep, few = (np.mean([one == each for one in verdicts]) for each in VERDICTS)
        error = np.sqrt(refit * (1 - refit) / len(verdicts))
        print(
            f"| {kind} | {number} | {name} | {np.median(truth[name]):.2f} | {cases} | {refit:.3f} "
            f"| {error:.3f} | {keep:.3f} | {few:.3f} |",
            flush=True,
        )
        if name == "none" and refit > GOAL + 2 * np.sqrt(GOAL * (1 - GOAL) / len(verdicts)):
            failed.append(f"{kind}, {number} cases of the fit, {cases} new ones: {refit:.3f}")
    return failed


def verdict(made: Fitted, among: Population, new: Sequence[int], bound: float) -> Verdict:
    """Return what an audit says of a map and the new patients."""
    total = Answers.of(FIT, ScoreTally.of_all([among.tallies[k] for k in new]))
    found = Departures(made.fitted, [among.answers[k] for k in new], total)
    return judged(*found.measured(found.jackknifed(made.without)), bound)[1]


if __name__ == "__main__":
    raise SystemExit(main())
