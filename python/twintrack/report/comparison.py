"""Methods side by side: the cases they share, intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.fitted_on import Overlap, told
from twintrack.errors import InputError
from twintrack.metrics.case_tally import BINS
from twintrack.report.columns import Metric, in_order
from twintrack.report.method_results import MethodResults
from twintrack.report.rounding import decimals, shown_alike
from twintrack.statistics import (
    BootstrapResult,
    IntervalMethod,
    PairedBootstrapResult,
    SignFlipResult,
    bootstrap,
    effect_size,
    holm,
    paired_bootstrap,
    sign_flip_test,
)

Verdict = Literal["worse", "better", "equal"]
Rule = Literal["both", "interval"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several methods on the same cases.

    Attributes
    ----------
    methods
        Names, in the order given.
    reference
        The method that the others are compared with.
    metrics
        Those that at least one method has, the benchmark's first.
    cases
        Names of the cases that every method has, sorted, so that the order of rows in a file does
        not change the draws.
    values : (cases, methods, metrics) float64
        NaN where a metric does not count. A case counts for a metric when every method that has the
        metric at all has a value, so that all methods are averaged over the same cases.
    intervals
        Of the means; arrays of shape (methods, metrics).
    differences
        Method minus reference on the same drawn cases; arrays of shape (methods, metrics).
    tests
        Sign-flip tests of these differences; arrays of shape (methods, metrics).
    effects : (methods, metrics) float64
        Their means against the standard deviation of values over cases (`effect_size`).
    rule
        What a verdict needs: "both", the interval of the difference excludes 0 and the sign-flip
        test gives p < 1 - level; or "interval", the paper's rule, the first of these alone.
    left_out
        Case name to why it is not compared.
    undefined
        Metric key to the cases that do not count for it. A metric that is left with no case is not
        in `metrics`, but is here.
    fitted_on
        Method to those of `cases` that its map was fitted on; None if that is not known. Methods
        without such cases are left out.
    patients
        The patient of each of `cases`, which is drawn as a whole; None if nothing was said of
        patients: each case is then one.
    """

    methods: tuple[str, ...]
    reference: str
    metrics: tuple[Metric, ...]
    cases: tuple[str, ...]
    values: NDArray[np.float64]
    intervals: BootstrapResult
    differences: PairedBootstrapResult
    tests: SignFlipResult
    effects: NDArray[np.float64]
    rule: Rule
    left_out: Mapping[str, str]
    undefined: Mapping[str, tuple[str, ...]]
    fitted_on: Mapping[str, Overlap | None] = field(default_factory=dict)
    patients: tuple[str, ...] | None = None

    @property
    def independent(self) -> int:
        """Number of patients, or of cases where nothing was said of patients."""
        return len(set(self.cases if self.patients is None else self.patients))

    @property
    def kind(self) -> str:
        """What one value is of: "patients", or "cases" where nothing was said of patients."""
        return "cases" if self.patients is None else "patients"

    @property
    def units(self) -> str:
        """What is drawn: "14 cases", or "14 cases of 5 patients"."""
        text = f"{len(self.cases)} cases"
        return text if self.patients is None else f"{text} of {self.independent} patients"

    def warnings(self) -> list[str]:
        """Return what makes figures of a method too good, a sentence each."""
        return [
            f"{method}: {told(overlap, len(self.cases))}."
            for method, overlap in self.fitted_on.items()
            if overlap is not None
        ]

    def split_metrics(self) -> tuple[tuple[Metric, ...], tuple[Metric, ...]]:
        """Separate the metrics of the paper's tables from others; without any, all are taken."""
        benchmark = tuple(metric for metric in self.metrics if metric.benchmark)
        further = tuple(metric for metric in self.metrics if not metric.benchmark)
        return (benchmark, further) if benchmark else (further, ())

    @property
    def alpha(self) -> float:
        """What p has to be below: 0.05 for intervals of 95%."""
        return round(1 - self.intervals.level, 12)

    @property
    def fewest(self) -> int:
        """Values, of patients or cases, from which on p can be below `alpha`: 6 for 0.05."""
        return next(n for n in range(1, 64) if 2 / 2**n < self.alpha or n == 63)

    def values_of(self, metric: int) -> int:
        """Count the patients, or cases, that have a value of a metric from every method."""
        return int(self.differences.groups[:, metric].max())

    def verdict(self, method: int, metric: int) -> Verdict | None:
        """Whether a method differs from the reference by the rule, and to which side.

        "equal" where the figures as displayed do not show the difference, whatever its interval;
        None where it may be chance, and where there is nothing to tell: of the reference itself,
        without an interval, and of a metric that has no better direction.
        """
        place, reference = (method, metric), self.methods.index(self.reference)
        better, low = self.metrics[metric].better, float(self.differences.low[place])
        if better is None or method == reference or math.isnan(low):
            return None
        means = self.intervals.mean[:, metric]
        one, other, difference = means[method], means[reference], self.differences.mean[place]
        if shown_alike(float(one), float(other), float(difference), decimals(means)):
            return "equal"
        if not self.differences.significant[place]:
            return None
        if self.rule == "both" and not self.tests.p[place] < self.alpha:
            return None
        return "better" if (low > 0) == (better == "higher") else "worse"

    @cached_property
    def adjusted(self) -> NDArray[np.float64]:
        """After Holm's correction p of each test, (methods, metrics).

        Tests that are looked at together are those of a method in a table (`split_metrics`), of
        metrics with a better direction; NaN for others and for the reference.
        """
        found = np.full(self.tests.p.shape, np.nan)
        for table in self.split_metrics():
            chosen = [j for j, metric in enumerate(self.metrics) if metric in table]
            scored = [j for j in chosen if self.metrics[j].better]
            for i, name in enumerate(self.methods):
                if name != self.reference:
                    found[i, scored] = holm(self.tests.p[i, scored])
        return found

    def holds_among(self, method: int, metric: int) -> bool:
        """Whether a verdict stands after Holm's correction over the metrics of the table, too."""
        told = self.verdict(method, metric) in ("worse", "better")
        return told and bool(self.adjusted[method, metric] < self.alpha)


def compare_methods(
    methods: Mapping[str, MethodResults],
    reference: str | None = None,
    resamples: int = 5000,
    seed: int = 0,
    level: float = 0.95,
    method: IntervalMethod = "percentile",
    rule: Rule = "both",
) -> Comparison:
    """Match the cases by name and bootstrap means and differences over them, or their patients.

    Parameters
    ----------
    methods
        Name to results, in the order in which they are to be shown.
    reference
        A name in `methods`; by default `default_reference`.
    resamples, seed, level, method
        As in `twintrack.bootstrap`.
    rule
        Of verdicts, as in `Comparison`.

    Raises
    ------
    ValueError
        No method, an unknown reference or rule, methods evaluated by different protocols or
        different editions of a formula, no case that all methods have, no metric, or a case that is
        of different patients in two methods.
    """
    if not methods:
        raise InputError("no methods to compare")
    if reference is None:
        reference = default_reference(methods)
    if reference not in methods:
        raise InputError(
            f"choose from {', '.join(map(repr, methods))}", argument="reference", value=reference
        )
    if rule not in get_args(Rule):
        raise InputError(f"choose from {', '.join(get_args(Rule))}", argument="rule", value=rule)
    _check_protocols(methods)
    _check_editions(methods)

    shared = set.intersection(*(set(results.cases) for results in methods.values()))
    left_out = {
        case: "; ".join(
            f"{name}: {results.failures.get(case, 'no result')}"
            for name, results in methods.items()
            if case not in results.cases
        )
        for case in sorted(set().union(*(r.cases for r in methods.values())) - shared)
    }
    failed = {case: why for r in methods.values() for case, why in r.failures.items()}
    left_out |= {
        case: failed[case] for case in sorted(failed) if case not in shared | set(left_out)
    }
    if not shared:
        raise InputError(
            "no case has results from every method: "
            + "; ".join(f"{name} has {', '.join(r.cases[:3])}…" for name, r in methods.items())
        )

    cases = tuple(sorted(shared))
    columns = [results.columns for results in methods.values()]
    metrics = in_order(key for of_method in columns for key in of_method)
    values = np.full((len(cases), len(methods), len(metrics)), np.nan)
    for i, results in enumerate(methods.values()):
        row_of = {case: row for row, case in enumerate(results.cases)}
        rows = [row_of[case] for case in cases]
        for j, metric in enumerate(metrics):
            if metric.key in columns[i]:
                values[:, i, j] = columns[i][metric.key][rows]

    has = ~np.isnan(values)
    counts = (has | ~has.any(axis=0)).all(axis=1)  # (cases, metrics)
    values[~np.broadcast_to(counts[:, np.newaxis], values.shape)] = np.nan
    kept = [j for j in range(len(metrics)) if not np.isnan(values[..., j]).all()]
    if not kept:
        raise InputError("no metric has a value in the cases that all methods have")
    values = values[..., kept]
    at = list(methods).index(reference)
    patients = _patients(methods, cases)
    settings = (resamples, seed, level, method)
    return Comparison(
        tuple(methods),
        reference,
        tuple(metrics[j] for j in kept),
        cases,
        values,
        *_measured(values, at, patients, *settings),
        rule,
        left_out,
        {
            metric.key: tuple(cases[i] for i in np.flatnonzero(~counts[:, j]))
            for j, metric in enumerate(metrics)
            if not counts[:, j].all()
        },
        {
            name: overlap
            for name, results in methods.items()
            if (overlap := _among(shared, results.fitted_on)) is None or overlap
        },
        patients,
    )


def restricted(comparison: Comparison, rows: NDArray[np.int64]) -> Comparison:
    """Compare some of the cases alone, given by their places among `cases`."""
    done = comparison.intervals
    values = comparison.values[rows]
    patients = comparison.patients
    patients = None if patients is None else tuple(patients[row] for row in rows)
    intervals, differences, tests, effects = _measured(
        values,
        comparison.methods.index(comparison.reference),
        patients,
        *(done.resamples, done.seed, done.level, done.method),
    )
    return replace(
        comparison,
        cases=tuple(comparison.cases[row] for row in rows),
        values=values,
        intervals=intervals,
        differences=differences,
        tests=tests,
        effects=effects,
        patients=patients,
    )


def _measured(
    values: NDArray[np.float64],
    at: int,
    patients: Sequence[str] | None,
    resamples: int,
    seed: int,
    level: float,
    method: IntervalMethod,
) -> tuple[BootstrapResult, PairedBootstrapResult, SignFlipResult, NDArray[np.float64]]:
    """Means, and differences from the method `at` with their tests and effects."""
    settings = (resamples, seed, level, method, patients)
    reference = values[:, [at]]
    return (
        bootstrap(values, *settings),
        paired_bootstrap(values, reference, *settings),
        sign_flip_test(values, reference, seed=seed, groups=patients),
        effect_size(values, reference),
    )


def _patients(methods: Mapping[str, MethodResults], cases: Sequence[str]) -> tuple[str, ...] | None:
    """Return the patients of the cases, as those methods know them that know any."""
    known = {name: results.patients for name, results in methods.items() if results.patients}
    if not known:
        return None
    for case in cases:
        if listed := _differing({name: patients[case] for name, patients in known.items()}):
            raise InputError(
                f"it is of different patients ({listed}); evaluate all methods with the same "
                "manifest or --group (finished cases are not measured again)",
                case=case,
            )
    (_, patients), *_ = known.items()
    return tuple(patients[case] for case in cases)


def _among(cases: Collection[str], overlap: Overlap | None) -> Overlap | None:
    if overlap is None:
        return None
    kept = {kind: tuple(name for name in names if name in cases) for kind, names in overlap.items()}
    return {kind: names for kind, names in kept.items() if names}


def default_reference(methods: Mapping[str, MethodResults]) -> str:
    """Choose the method calibrated to the MHR if there is exactly one, else the last."""

    def to_mhr(name: str, results: MethodResults) -> bool:
        calibrator = results.provenance.get("calibrator")
        if isinstance(calibrator, Mapping) and "target" in calibrator:
            return bool(calibrator["target"] == "mhr")
        return "mhr" in name.casefold() or "twintrack" in name.casefold()

    found = [name for name, results in methods.items() if to_mhr(name, results)]
    return found[0] if len(found) == 1 else list(methods)[-1]


def _check_protocols(methods: Mapping[str, MethodResults]) -> None:
    known = {name: method.provenance for name, method in methods.items() if method.provenance}
    protocols = {name: made["protocol"] for name, made in known.items() if "protocol" in made}
    bins = {name: made.get("ece_bins", BINS) for name, made in known.items()}
    for what, stated in (("protocols", protocols), ("numbers of bins (--ece-bins)", bins)):
        if listed := _differing(stated):
            raise InputError(
                f"the methods were evaluated by different {what} ({listed}); their figures cannot "
                "be compared, evaluate them again by one"
            )


def _check_editions(methods: Mapping[str, MethodResults]) -> None:
    """Refuse figures of one name that are of different formulas (`twintrack.runs.editions`).

    Evaluations of before there were editions name a version of TwinTrack and are of the first.
    """
    by_kind: dict[str, dict[str, object]] = {}
    older = []
    for name, results in methods.items():
        editions = results.provenance.get("editions")
        if isinstance(editions, Mapping):
            for kind, number in editions.items():
                by_kind.setdefault(kind, {})[name] = number
        elif "twintrack" in results.provenance:
            older.append(name)
    for kind, numbers in sorted(by_kind.items()):
        for name in older:
            if kind != "staple" or methods[name].provenance.get("staple"):
                numbers[name] = 1
        if listed := _differing({name: numbers[name] for name in methods if name in numbers}):
            raise InputError(
                f"the methods' figures of {kind} are by different editions of its formula "
                f"({listed}); they cannot be compared, evaluate the older ones again"
            )


def _differing(stated: Mapping[str, object]) -> str:
    """Return what methods state, if it is not the same; else nothing."""
    if len(set(map(str, stated.values()))) < 2:
        return ""
    return ", ".join(f"{name}: {value}" for name, value in stated.items())
