"""TDSC, ECE and CRPS of a whole CT with five raters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from measure import read_seconds
from numpy.typing import NDArray
from suite.inputs import ct_case, ensemble_case

from rows.metrics import official
from rows.row import CaseRow, Setting, Sizes
from twintrack import evaluate

MARGIN = 20  # voxels around all annotations within which the ECE is measured
BINS = 50
WORK, NUMBA = "TDSC, ECE, CRPS", "numba"


class Case(NamedTuple):
    """A score and what the raters marked; where the official evaluator is, if it is to run."""

    score: NDArray[np.float32]
    raters: list[NDArray[np.uint8]]
    official: str | None


class Evaluate(CaseRow):
    """Ours also gives further calibration figures, and the tally that cohorts are pooled from."""

    goals: ClassVar[Mapping[str, str]] = {
        official.NAME: "≥ 25×",
        NUMBA: "≥ 4×",
        WORK: "≥ 40% of reading",
    }
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy", "numba", "torchmetrics")

    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        for setting in super().settings(sizes):
            for members in sizes.members:
                yield {**setting, "members": members}

    def describe(self, setting: Setting) -> str:
        members = setting["members"]
        return super().describe(setting) + (f", mean of {members}" if members > 1 else "")

    def prepare(self, setting: Setting) -> Case:
        case = ensemble_case(ct_case(setting["shape"]), setting["members"])
        return Case(case.score, case.raters, setting["official"])

    def ours(self) -> Mapping[str, Callable[[Case], Any]]:
        return {WORK: evaluate_with_twintrack}

    def peers(self) -> Mapping[str, Callable[[Case], Any]]:
        return {
            NUMBA: evaluate_with_numba,
            "NumPy, SciPy": lambda case: evaluate_with_numpy(case.score, case.raters),
            official.NAME: lambda case: official.tdsc_ece_crps(
                case.official, case.score, case.raters
            ),
        }

    def peer_bytes(self, setting: Setting) -> int:
        return 32 * math.prod(setting["shape"])

    def traffic(self, ours: str, inputs: Case) -> int:  # noqa: ARG002
        return inputs.score.nbytes + sum(mask.nbytes for mask in inputs.raters)

    def limit(self, ours: str, inputs: Case) -> float:  # noqa: ARG002
        return read_seconds([inputs.score.T, *(mask.T for mask in inputs.raters)])

    def difference(
        self,
        inputs: Case,  # noqa: ARG002
        ours: dict[str, float],
        theirs: dict[str, float],
    ) -> Mapping[str, float]:
        gaps = {name: _gap(ours[name], theirs[name]) for name in ("TDSC", "ECE")}
        scale = abs(theirs["CRPS"]) or 1.0
        return {**gaps, "CRPS (relative)": _gap(ours["CRPS"], theirs["CRPS"]) / scale}


def _gap(ours: float, theirs: float) -> float:
    return 0.0 if math.isnan(ours) and math.isnan(theirs) else abs(ours - theirs)


def evaluate_with_twintrack(case: Case) -> dict[str, float]:
    """As the official evaluator has it."""
    found = evaluate(case.score, case.raters)
    return {"TDSC": found.tdsc, "ECE": found.ece, "CRPS": found.crps}


def evaluate_with_numba(case: Case) -> dict[str, float]:
    """What it is not: see `rows.metrics.numba_evaluate`."""
    from rows.metrics.numba_evaluate import evaluate_with_loops

    return evaluate_with_loops(case.score, case.raters, MARGIN)


def evaluate_with_numpy(
    score: NDArray[np.float32], raters: list[NDArray[np.uint8]]
) -> dict[str, float]:
    """The benchmark's definitions, written down in NumPy and SciPy one after the other."""
    return {"TDSC": _tdsc(score, raters), "ECE": _ece(score, raters), "CRPS": _crps(score, raters)}


def _tdsc(score: NDArray[np.float32], raters: list[NDArray[np.uint8]]) -> float:
    mhr = np.mean(raters, axis=0)
    dice = []
    # One-element arrays: unlike scalars they are not narrowed to the score's type by any NumPy.
    for threshold in np.linspace(0.1, 0.8, 6)[:, np.newaxis]:
        predicted, marked = score > threshold, mhr > threshold
        sizes = int(predicted.sum()) + int(marked.sum())
        both = int((predicted & marked).sum())
        dice.append(2 * both / (sizes + 1e-6) if sizes else 1.0)
    return float(np.mean(dice))


def _ece(score: NDArray[np.float32], raters: list[NDArray[np.uint8]]) -> float:
    # The evaluator's box: its upper end is one short, and a start below 0 counts from the end.
    marked = np.nonzero(np.any(raters, axis=0))
    box = tuple(slice(int(at.min()) - MARGIN, int(at.max()) + MARGIN) for at in marked)
    tumour = score[box]
    classes = np.maximum(np.stack([1 - tumour, tumour]), np.float32(1e-8))
    classes /= classes.sum(axis=0)
    prediction = classes[1] > classes[0]
    confidence = classes.max(axis=0).astype(np.float32).ravel()
    if confidence.size == 0:
        return math.nan
    edges = np.linspace(0, 1, BINS + 1).astype(np.float32)
    # A confidence of 1 has a bin of its own.
    which = np.searchsorted(edges, confidence, side="right") - 1
    claimed = np.bincount(which, confidence, BINS + 1)
    errors = []
    for mask in raters:
        right = (prediction == mask[box]).ravel()
        # Voxels of a bin times its gap, which is the gap between its sums.
        errors.append(np.abs(np.bincount(which, right, BINS + 1) - claimed).sum() / right.size)
    return float(np.mean(errors))


def _crps(score: NDArray[np.float32], raters: list[NDArray[np.uint8]]) -> float:
    from scipy.integrate import IntegrationWarning, quad
    from scipy.interpolate import interp1d
    from scipy.stats import norm

    volumes = [float(mask.sum(dtype=np.int64)) for mask in raters]
    mean, deviation = float(np.mean(volumes)), float(np.std(volumes))
    if deviation == 0:
        return 0.0
    reference = norm(mean, deviation)
    points = np.linspace(reference.ppf(0.01), reference.ppf(0.99), 100)
    cdf = interp1d(points, reference.cdf(points), bounds_error=False, fill_value=(0.0, 1.0))
    predicted = float(score.sum())

    def squared_gap(volume: float) -> float:
        return float((cdf(volume) - np.heaviside(volume - predicted, 0.5)) ** 2)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegrationWarning)  # as there: it seldom converges
        value, _ = quad(squared_gap, mean - 3 * deviation, mean + 3 * deviation)
    return float(value)
