"""Evaluating over a cohort: figures per case, their means, and the pooled reliability curve."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twintrack import metrics
from twintrack.arrays.bounds import set_roundings, told
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.fitted_on import NOTES, FittedCase, Overlap, find_overlap
from twintrack.cohort import Case, LoadedCase, RegionRule, load_case
from twintrack.cohort.aligned import marks
from twintrack.cohort.loading import mask_on_grid
from twintrack.cohort.score_records import (
    calibrate_score,
    check_score,
    fitted_on_beside,
    is_calibrated,
    region_of_case,
)
from twintrack.errors import InputError
from twintrack.metrics import CaseMetrics, CaseTally, curve_of
from twintrack.metrics.case_tally import BINS
from twintrack.metrics.ece import mean_of_raters
from twintrack.metrics.figures import Protocol
from twintrack.metrics.staple import staple_dice
from twintrack.metrics.vascular import VESSELS
from twintrack.runs.apply import calibrator_content
from twintrack.runs.editions import editions_of_figures
from twintrack.runs.engine import Settings, add_tallies, run_cases
from twintrack.runs.fitted_cases import find_among, score_digest
from twintrack.runs.inputs import case_files
from twintrack.runs.job import Job, Product
from twintrack.runs.method_names import one_a_folder
from twintrack.runs.records import Entry, Failure
from twintrack.runs.result_folder import Row, cell_text, means, write_results
from twintrack.runs.store import Store
from twintrack.runs.volume_figures import (
    INTERVAL,
    interval_figures,
    volume_options,
    volumes_held,
)

KIND = "evaluation"

FIGURES = (
    *("tdsc", "ece", "crps", *(f"vi_{vessel}" for vessel in VESSELS)),
    *("ece_probability", "ece_mhr", "ace", "brier", "reliability", "resolution", "uncertainty"),
    *("dice_staple", "predicted_volume", *INTERVAL, "rater_volume"),
    *("brier_excess", "rater_brier", "disagreement", "contested_error"),
)
"""Columns of cases.csv, in their order; a cohort without vessels has none of theirs."""


@dataclass(frozen=True)
class EvaluateJob(Job[tuple[LoadedCase, NDArray[Any] | None]]):
    """Measures the score of a case, calibrated if a calibrator is given.

    Outside the region of interest that a case carries, a score of exactly 0 stays 0, as in the
    pipeline: m(0) all over a CT would count as a predicted volume. A score that is a crop of the
    annotations' grid is 0 outside of it, and stays so.

    Attributes
    ----------
    protocol
        Of `twintrack.evaluate`.
    calibrator
        Applied to the score first; None leaves it as it is.
    region
        Where calibration errors are measured: "box" as the protocol has it, "roi" or "all".
    millimetres
        Volumes and CRPS in mm³ rather than in voxels, as the benchmark has them.
    staple
        Also the Dice coefficient of [score > 0.5] against the raters' STAPLE consensus.
    tumour, ignore_header, label
        As in `load_case`.
    use_raters
        Numbers of the raters that the cases have, where these are some of a cohort's; recorded.
    ignore_label
        As in `load_case`.
    ece_bins
        Number of bins of the calibration errors.
    """

    protocol: Protocol = "official"
    calibrator: Calibrator | None = None
    region: RegionRule = "box"
    millimetres: bool = False
    staple: bool = False
    tumour: tuple[int, ...] = (1,)
    ignore_header: bool = False
    label: tuple[str, ...] = ()
    use_raters: tuple[int, ...] | None = None
    ignore_label: int | None = None
    ece_bins: int = BINS

    kind = KIND

    @property
    def options(self) -> dict[str, Any]:
        """What decides the figures besides the files."""
        calibrator = self.calibrator
        return {
            "protocol": self.protocol,
            "region": self.region,
            "volume_unit": "mm3" if self.millimetres else "voxels",
            "staple": self.staple,
            "tumour": list(self.tumour),
            "ignore_header": self.ignore_header,
            **({"label": list(self.label)} if self.label else {}),
            **({"use_raters": list(self.use_raters)} if self.use_raters else {}),
            **({} if self.ignore_label is None else {"ignore_label": self.ignore_label}),
            **({} if self.ece_bins == BINS else {"ece_bins": self.ece_bins}),
            "calibrator": None if calibrator is None else calibrator_content(calibrator),
            **volume_options(calibrator),
            "editions": editions_of_figures(self.staple),
        }

    def files(self, case: Case) -> dict[str, Path]:
        """Return score, raters and vessels, and the mask if it is used."""
        if self.calibrator is not None:
            case = replace(case, roi=region_of_case(case))
        roi = self.region == "roi" or self.calibrator is not None
        return case_files(case, vessels=True, roi=roi)

    def patient(self, case: Case) -> str | None:
        """Return whose case it is: patients are held out, and drawn, as a whole."""
        return case.patient

    def read(self, case: Case) -> tuple[LoadedCase, NDArray[Any] | None]:
        """Load the arrays, and the region of interest for calibrating."""
        if self.calibrator is not None:
            check_score(self.calibrator, case.score, self.tumour)
        # The protocol's box is not quite `annotated_box`: it is left to `evaluate`.
        rule: RegionRule = "roi" if self.region == "roi" else "all"
        loaded = load_case(
            case, rule, self.ignore_header, self.tumour, self.label, self.ignore_label
        )
        if self.calibrator is not None:  # without one, `evaluate` sees to it and notes it
            loaded = _within_bounds(loaded)
        if self.millimetres:
            loaded.voxel_volume()  # an error of the files, not of the measuring
        path = None if self.calibrator is None else region_of_case(case)
        of_interest: NDArray[Any] | None = loaded.region
        if path is not None and of_interest is None:
            of_interest = mask_on_grid(path, loaded.score, self.ignore_header)
        if self.calibrator is not None and loaded.part is not None:
            asked = np.zeros(loaded.score.array.shape, np.bool_)
            asked[loaded.part] = True if of_interest is None else of_interest[loaded.part] != 0
            of_interest = asked
        return loaded, of_interest

    def compute(self, opened: tuple[LoadedCase, NDArray[Any] | None]) -> Product:
        """Calibrate and measure."""
        loaded, of_interest = opened
        try:
            return self._measured(loaded, of_interest)
        except InputError as error:
            raise loaded.aligned.located(error) from error

    def _measured(self, loaded: LoadedCase, of_interest: NDArray[Any] | None) -> Product:
        score = loaded.score.array
        if self.calibrator is not None:
            calibrate_score(self.calibrator, score, of_interest)
        region = loaded.region
        if self.region == "all":
            region = np.broadcast_to(np.True_, score.shape)
        size = loaded.voxel_volume() if self.millimetres else 1.0
        found = metrics.evaluate(
            score,
            loaded.raters,
            loaded.vessels,
            size,
            self.protocol,
            region,
            ignore_label=loaded.aligned.unseen,
            ece_bins=self.ece_bins,
        )
        figures = _figures(found)
        if self.staple:
            figures["dice_staple"] = _staple(score, loaded, self.protocol)
        figures |= interval_figures(self.calibrator, found.predicted_volume, size)
        stored = {
            name: float(figures[name]) if math.isfinite(figures[name]) else None
            for name in FIGURES
            if name in figures
        }
        notes = [*found.notes, *_notes(loaded)]
        result: dict[str, Any] = {"figures": stored, "notes": notes}
        if is_calibrated(loaded.case.score):
            result["calibrated"] = True
        return Product(score.size, result, found.calibration)

    def load_tally(self, path: Path) -> CaseTally:
        """Read a stored tally; ValueError if it is none."""
        return CaseTally.load(path)


def _within_bounds(loaded: LoadedCase) -> LoadedCase:
    array, count = set_roundings(loaded.score.array)
    if count == 0:
        return loaded
    notes = (*loaded.score.notes, told(count))
    return replace(loaded, score=replace(loaded.score, array=array, notes=notes))


def _notes(loaded: LoadedCase) -> list[str]:
    """Return what there is to say of the file of the score, and of one that is a crop."""
    notes = [*loaded.score.notes, *loaded.aligned.notes]
    if loaded.part is None:
        return notes
    outside = sum(
        marks(rater, loaded.aligned.unseen) - marks(rater[loaded.part], loaded.aligned.unseen)
        for rater in loaded.raters
        if rater is not None
    )
    if outside:
        notes.append(
            f"raters mark {outside} voxels, over all of them, outside of what the score covers; "
            "its score is 0 there"
        )
    return notes


def _staple(score: NDArray[Any], loaded: LoadedCase, protocol: Protocol) -> float:
    """Return the Dice against the consensus of the raters that there are; NaN if one skipped."""
    unseen = loaded.aligned.unseen
    if unseen is not None and any(r is not None and (r == unseen).any() for r in loaded.raters):
        return math.nan
    return staple_dice(score, loaded.masks, protocol)


def _figures(found: CaseMetrics) -> dict[str, float]:
    """Return the figures of a case by column; absent are those that it does not have."""
    names = {field.name for field in fields(found)}.intersection(FIGURES)
    return {
        **{name: getattr(found, name) for name in names},
        **{f"vi_{vessel}": value for vessel, value in found.vascular_invasion.items()},
        **found.murphy._asdict(),
        "rater_volume": mean_of_raters(found.rater_volumes),
    }


class Evaluation(NamedTuple):
    """What came out of a cohort.

    Attributes
    ----------
    rows
        Case to its figures: NaN where not defined, None where the case does not have it.
    notes
        Case to remarks.
    failures
        Cases without figures.
    total
        Tally of all cases' voxels, for the pooled reliability curve.
    options
        What the figures depend on.
    patients
        Case to its patient, of the cases of which the cohort names one.
    fitted_on
        Cases that the map was fitted on, which the notes name too; None if that is not known. Empty
        without a map, and for the identity, which is fitted to nothing.
    """

    rows: Mapping[str, Row]
    notes: Mapping[str, Sequence[str]]
    failures: Sequence[Failure]
    total: CaseTally | None
    options: Mapping[str, Any]
    patients: Mapping[str, str]
    fitted_on: Overlap | None = MappingProxyType({})

    def means(self) -> dict[str, tuple[float, int]]:
        """Return each figure's mean and the number of cases that have it."""
        figures = next(iter(self.rows.values()), ())
        return {name: mean for name, mean in means(self.rows, figures).items() if mean[1]}

    def write(self, folder: Path, method: str) -> None:
        """Write cases.csv, summary.json and failures.csv; see `twintrack.runs.result_folder`."""
        reliability: dict[str, NDArray[Any]] | None = None
        if self.total is not None:
            curve = curve_of(self.total)
            reliability = {
                "bin_count": curve.count,
                "mean_score": curve.mean_score,
                "mean_mhr": curve.mhr,
            }
        provenance = dict(self.options)
        held = volumes_held(self.rows.values())
        if held is not None:
            provenance["volumes_held"] = held
        if _is_fitted(self.options) or self.fitted_on:
            provenance["fitted_on"] = self.fitted_on and {
                kind: [cell_text(name) for name in names] for kind, names in self.fitted_on.items()
            }
        write_results(
            folder,
            method,
            provenance,
            self.rows,
            self.notes,
            self.failures,
            reliability,
            self.patients,
        )


def evaluate_cohort(
    cases: Sequence[Case],
    job: EvaluateJob,
    store: Path,
    *,
    settings: Settings | None = None,
    cohort: Sequence[Case] | None = None,
) -> Evaluation:
    """Evaluate every case.

    Parameters
    ----------
    cases
        The cases to evaluate.
    job
        What to measure, and how files are read.
    store
        Folder in which figures and tallies are kept: when the run is repeated, cases that are in it
        and have not changed are not evaluated again.
    settings
        How to go about it.
    cohort
        The whole cohort, where `cases` is a part of it.

    Raises
    ------
    StoreError
        The store cannot be written.
    """
    opened = Store(store, job.kind, job.options)
    known = _fitted_on(cohort or cases, job)
    if known is None and job.calibrator is None and opened.fitted_on() is not None:
        known = ()  # what is there was said of other scores
    with opened.writing((case.name for case in cohort or cases), known):
        outcomes, total = run_cases(cases, job, opened, settings or Settings(), "Evaluating")
    entries = [outcome.entry for outcome in outcomes if outcome.entry is not None]
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    return _evaluation(entries, failures, total, opened)


def fitted_among(cases: Sequence[Case], job: EvaluateJob, store: Path) -> Overlap:
    """Find out before the work which cases the map was fitted on, as far as that is known.

    The map of the job, or the one that the scores went through already (`apply`, `predict`).
    """
    opened = Store(store, job.kind, job.options)
    known = _fitted_on(cases, job)
    if job.calibrator is not None and not known and _is_fitted(opened.options):
        known = opened.fitted_on()
    return find_among(cases, known or (), job.files, opened)


def _fitted_on(cases: Sequence[Case], job: EvaluateJob) -> tuple[FittedCase, ...] | None:
    if job.calibrator is not None:
        return job.calibrator.fitted_on_
    known: set[FittedCase] = set()
    for score in one_a_folder(cases):
        with contextlib.suppress(OSError, ValueError):  # of which the run will tell
            known.update(fitted_on_beside(score) or ())
    return tuple(sorted(known, key=str)) or None


def stored_evaluation(store: Store) -> Evaluation:
    """Read what a run, with all its parts, has left in a store.

    Raises
    ------
    ValueError
        The run was not finished, or a record is damaged.
    """
    cases, failures = store.complete()
    entries, total = [], None
    for case in cases:
        entries.append(store.tallied(case))
        tally = EvaluateJob().load_tally(store.tally_path(case))
        total = add_tallies(total, case, tally)
    return _evaluation(entries, failures, total, store)


def _evaluation(
    entries: Sequence[Entry],
    failures: Sequence[Failure],
    total: CaseTally | None,
    store: Store,
) -> Evaluation:
    overlap: Overlap | None = {}
    patients = {entry.case: entry.patient for entry in entries if entry.patient is not None}
    known = store.fitted_on()
    if _is_fitted(store.options) or known:
        scores = {entry.case: score_digest(entry.inputs) for entry in entries}
        overlap = None if known is None else find_overlap(known, scores, patients)
    fitted = {case: NOTES[kind] for kind, names in (overlap or {}).items() for case in names}

    def row(entry: Entry) -> Row:
        stored = entry.result["figures"]  # null where not defined
        figures = {name: math.nan if value is None else value for name, value in stored.items()}
        return {name: figures.get(name) for name in FIGURES}

    return Evaluation(
        {entry.case: row(entry) for entry in entries},
        {
            entry.case: [*filter(None, [fitted.get(entry.case)]), *entry.result["notes"]]
            for entry in entries
        },
        failures,
        total,
        store.options,
        patients,
        overlap,
    )


def _is_fitted(options: Mapping[str, Any]) -> bool:
    """Whether scores went through a map that was fitted to something."""
    calibrator = options["calibrator"]
    return calibrator is not None and calibrator["target"] != "none"
