"""Evaluating a map over stored tallies: no voxel is read, and 1,000 cases take a second."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from twintrack.arrays.threads import ahead
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.fitted_on import NOTES, Overlap, find_overlap
from twintrack.errors import InputError
from twintrack.metrics.case_tally import BINS, CaseTally
from twintrack.metrics.ece import mean_of_raters
from twintrack.metrics.figures import Protocol
from twintrack.metrics.tally_evaluation import TallyMetrics, measure_tally, refused_by, region_notes
from twintrack.runs.apply import calibrator_content
from twintrack.runs.editions import editions_of_figures
from twintrack.runs.engine import Outcome, add_tallies
from twintrack.runs.evaluate import FIGURES, Evaluation
from twintrack.runs.progress import Progress, once_it_takes_long
from twintrack.runs.result_folder import Row
from twintrack.runs.stored_tallies import StoredTallies
from twintrack.runs.volume_figures import interval_figures, volume_options

# Options of stores that say what the figures are of, beside the map.
_OF_STORES = ("region", "tumour", "label", "ignore_label", "use_raters", "ignore_header")


def tally_options(
    stored: Mapping[str, Any],
    calibrator: Calibrator | None,
    protocol: Protocol,
    ece_bins: int = BINS,
) -> dict[str, Any]:
    """Return what the figures depend on, as an evaluation of voxels states it, and "tallies".

    Parameters
    ----------
    stored
        How the tallies were made, as `pool_tallies` gives it.
    calibrator
        Whose map is evaluated.
    protocol, ece_bins
        As of `twintrack.evaluate`.
    """
    return {
        "tallies": True,
        "protocol": protocol,
        "volume_unit": "voxels",
        "staple": False,
        **{name: stored[name] for name in _OF_STORES if name in stored},
        **({} if ece_bins == BINS else {"ece_bins": ece_bins}),
        "calibrator": None if calibrator is None else calibrator_content(calibrator),
        **volume_options(calibrator),
        "editions": editions_of_figures(staple=False),
    }


def evaluate_tallies(
    tallies: StoredTallies,
    options: Mapping[str, Any],
    calibrator: Calibrator | None = None,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a map on every case of a store.

    Parameters
    ----------
    tallies
        What `pool_tallies` gives.
    options
        What `tally_options` gives.
    calibrator
        Its map is evaluated; without one, the scores as they are.
    progress
        Told of the cases if they take more than two seconds.

    Returns
    -------
    Evaluation
        As of a run over voxels, with the log score. What the region of the tallies cannot give is
        absent: "notes" of the options say so.

    Raises
    ------
    InputError
        A tally is damaged, or of an earlier version, which has no counts of voxels by number of
        votes; names the case.
    """
    fitted = None if calibrator is None else calibrator.map_
    most = tallies.raters()

    def measure(case: str) -> tuple[str, TallyMetrics, CaseTally]:
        try:
            tally = replace(tallies.packed(case), raters=most)
            # Tallies of earlier versions do not say their region; the store does.
            asked = {name: options[name] for name in ("protocol", "region")}
            asked["ece_bins"] = options.get("ece_bins", BINS)
            return (case, *measure_tally(tally, fitted, **asked))
        except InputError as error:
            raise error.replaced(case=case) from error

    rows: dict[str, Row] = {}
    notes: dict[str, list[str]] = {}
    refused, of_all = refused_by(options["region"]), region_notes(options["region"])
    total: CaseTally | None = None
    with once_it_takes_long(progress or Progress(), "Evaluating", len(tallies)) as tell:
        last = time.monotonic()
        for case, found, counted in ahead(measure, tallies.cases):
            rows[case] = _row(found, refused, calibrator)
            notes[case] = [note for note in found.notes if note not in of_all]
            if math.isinf(found.log_score):
                notes[case].append("log_score: infinite: the map is certain where a rater differs")
            total = add_tallies(total, case, counted)
            now = time.monotonic()
            tell(Outcome(case, "done", 0, now - last, counted.voxels))
            last = now
    patients = {case: who for case, who in tallies.patients().items() if who is not None}
    overlap: Overlap | None = None
    if calibrator is None or calibrator.made_with_["target"] == "none":
        overlap = {}
    elif calibrator.fitted_on_ is not None:
        scores = {case: one.score for case, one in tallies.fitted_cases().items()}
        overlap = find_overlap(calibrator.fitted_on_, scores, patients)
    for kind, names in (overlap or {}).items():
        for case in names:
            notes[case].insert(0, NOTES[kind])
    said = {**options, "notes": [*of_all]}
    return Evaluation(rows, notes, (), total, said, patients, overlap)


def _row(found: TallyMetrics, refused: Collection[str], calibrator: Calibrator | None) -> Row:
    """Return the figures by column; None for those that the region cannot give."""
    volume = mean_of_raters(found.rater_volumes)
    figures = {**vars(found), **found.murphy._asdict(), "rater_volume": volume}
    if "predicted_volume" not in refused:
        figures |= interval_figures(calibrator, found.predicted_volume, 1.0)
    row = {
        name: float(figures[name]) if name in figures and name not in refused else None
        for name in FIGURES
    }
    if "rater_volumes" in refused:
        row["rater_volume"] = None
    row["log_score"] = found.log_score if math.isfinite(found.log_score) else math.nan
    return row
