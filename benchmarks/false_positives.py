"""Prints how often a comparison flags a difference where there is none, by simulation.

    python benchmarks/false_positives.py                    # about a minute
    python benchmarks/false_positives.py --comparisons 20000 --resamples 5000

Two methods are alike: what sets them apart in a case could as well have had the other sign. Many
such comparisons are made by `compare_methods`, each a column of one table. The share that is
flagged is printed with its standard error, by the default rule (the paired interval excludes 0,
and the sign-flip test gives p < 0.05) and by the interval alone (`--rule interval`, the paper's).
"any of ten" is the share of tables of ten columns in which anything at all is flagged by the
default rule, and still after Holm's correction.

Differences are normal, heavy-tailed (Student's t with 2 degrees of freedom), or skewed (between
lognormal values; or of lognormal size, with a sign for each case). Cases of patients come one to
five to a patient, and 70% of their variance is between patients. "3 of 40" is a column that 37 of
40 cases lack.

The status is 1 if the default rule flags more than 6% by more than the simulation's own error (two
standard errors). The last lines are of a harder kind, which does not decide the status: the mean
difference is 0, but differences are lopsided, many small ones to one side and a few large ones to
the other. Such methods are not alike, though their means are, and every rule here flags too many.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

import measure
import numpy as np
from numpy.typing import NDArray

from twintrack.report import MethodResults, compare_methods
from twintrack.report.comparison import Comparison
from twintrack.statistics import holm

Floats: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, tuple[int, int]], Floats]

COLUMNS = 250  # comparisons at a time
FAMILY = 10
GOAL = 0.06


def lognormal(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.exp(rng.normal(size=shape))


ALIKE: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2, shape),
    "skewed values": lambda rng, shape: lognormal(rng, shape) - lognormal(rng, shape),
    "skewed sizes": lambda rng, shape: lognormal(rng, shape) * rng.choice([-1, 1], shape),
}
LOPSIDED: dict[str, Draw] = {
    "lopsided: exponential - 1": lambda rng, shape: rng.exponential(size=shape) - 1,
    "lopsided: lognormal - mean": lambda rng, shape: lognormal(rng, shape) - np.exp(0.5),
}


def compared(
    differences: Floats, patients: list[str] | None, resamples: int, seed: int
) -> Comparison:
    """Compare two methods that differ so, (cases, columns), in as many columns."""
    cases = tuple(f"c{row:03d}" for row in range(len(differences)))
    base = np.random.default_rng(seed).normal(size=differences.shape)
    whose = dict(zip(cases, patients, strict=True)) if patients else {}

    def method(values: Floats) -> MethodResults:
        columns = {f"tdsc_{k}": column for k, column in enumerate(values.T)}
        return MethodResults(cases, columns, patients=whose)

    methods = {"one": method(base + differences), "reference": method(base)}
    return compare_methods(methods, "reference", resamples, seed)


class Counted:
    """Flags of a kind of comparison."""

    def __init__(self) -> None:
        self._flags: list[NDArray[np.bool_]] = []  # by default rule, with Holm, by interval alone

    def add(self, comparison: Comparison) -> None:
        columns = range(len(comparison.metrics))
        flags = np.array([comparison.verdict(0, j) in ("worse", "better") for j in columns])
        p = comparison.tests.p[0].reshape(-1, FAMILY)
        adjusted = np.concatenate([holm(family) for family in p])
        alone = comparison.differences.significant[0]
        self._flags.append(np.stack([flags, flags & (adjusted < 0.05), alone]))

    def shares(self) -> list[tuple[float, float]]:
        """Shares and their standard errors: default rule, any of ten, with Holm, interval alone.

        The error of a share of 0 is that of one of 5%.
        """
        single = np.concatenate(self._flags, axis=1)
        families = single.reshape(3, -1, FAMILY).any(axis=2)
        found = []
        for flags in (single[0], families[0], families[1], single[2]):
            share = float(flags.mean())
            spread = share * (1 - share) if share else 0.05 * 0.95
            found.append((share, float(np.sqrt(spread / flags.size))))
        return found


def simulate(
    draw: Draw, cases: int, known: int, grouped: bool, given: argparse.Namespace
) -> Counted:
    """Count the flags among comparisons of so many cases, of which some have a value."""
    rng = np.random.default_rng([given.seed, cases, known, grouped])
    counted = Counted()
    for seed in range(-(-given.comparisons // COLUMNS)):
        patients = None
        differences = draw(rng, (cases, COLUMNS))
        if grouped:
            sizes = rng.integers(1, 6, cases)
            of_case = np.repeat(np.arange(cases), sizes)
            single = draw(rng, (len(of_case), COLUMNS))
            differences = np.sqrt(0.7) * differences[of_case] + np.sqrt(0.3) * single
            patients = [f"p{number:03d}" for number in of_case]
        differences[known:] = np.nan
        counted.add(compared(differences, patients, given.resamples, seed))
    return counted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=measure.count, default=8000, help="of each line")
    parser.add_argument("--resamples", type=measure.count, default=500)
    parser.add_argument("--small", action="store_true", help="only to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.small:
        given.comparisons, given.resamples = COLUMNS, 100
    print(measure.machine(["twintrack", "numpy"]))
    print(
        f"{given.comparisons} comparisons a line, {given.resamples} resamples; ± standard error\n"
    )
    print("| differences | values | default rule | any of ten | with Holm | interval alone |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    failed = []
    settings = [(n, n, False) for n in (2, 4, 5, 10, 40)] + [(40, 3, False)]
    for name, draw in ALIKE.items():
        for cases, known, grouped in [*settings, (10, 10**6, True), (40, 10**6, True)]:
            share, error = report(name, draw, cases, known, grouped, given)
            if share > GOAL + 2 * error:
                failed.append(f"{name}, {cases}: {share:.3f}")
    for name, draw in LOPSIDED.items():
        for cases in (10, 40):
            report(name, draw, cases, cases, False, given)
    if failed:
        print(f"\nmore than {GOAL} are flagged: {'; '.join(failed)}")
    return bool(failed) and not given.small


def report(
    name: str, draw: Draw, cases: int, known: int, grouped: bool, given: argparse.Namespace
) -> tuple[float, float]:
    """Print a line, and return share and standard error of the default rule."""
    counted = simulate(draw, cases, known, grouped, given)
    values = (
        f"{cases} patients" if grouped else str(cases) if known == cases else f"{known} of {cases}"
    )
    shares = counted.shares()
    print(
        f"| {name} | {values} | {' | '.join(f'{s:.3f} ± {e:.3f}' for s, e in shares)} |",
        flush=True,
    )
    return shares[0]


if __name__ == "__main__":
    raise SystemExit(main())
