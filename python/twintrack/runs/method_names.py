"""What a method is called in results that do not say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twintrack.cohort import Case
from twintrack.cohort.score_records import is_calibrated
from twintrack.runs.store import Store

_METHODS = {
    "none": "None (uncalibrated)",
    "single": "Single-rater",
    "hard": "Hard-label",
    "mhr": "MHR (TwinTrack)",
    "majority": "Majority vote",
}


def any_calibrated(cases: Sequence[Case]) -> bool:
    """Whether records beside scores say that they are calibrated; asks one score a folder."""
    for score in one_a_folder(cases):
        with contextlib.suppress(OSError, ValueError):  # of which the run will tell
            if is_calibrated(score):
                return True
    return False


def stored_calibrated(store: Store) -> bool:
    """Whether a store has figures of scores that were calibrated already."""
    entries = map(store.find, store.cases())
    return any(entry.result.get("calibrated", False) for entry in entries if entry is not None)


def default_method(options: Mapping[str, Any], calibrated: bool = False) -> str:
    """Name a method after its calibrator, as the paper does.

    Of scores that are `calibrated` already only that is known.
    """
    if calibrated:
        return "Calibrated"
    if options.get("one_more_rater"):
        return "One more rater"
    calibrator = options["calibrator"] or {"target": "none"}
    kind = calibrator.get("kind", "isotonic")
    name = _METHODS[calibrator["target"]]
    return name if kind == "isotonic" else f"{name}, {kind}"


def one_a_folder(cases: Sequence[Case]) -> Iterable[Path]:
    """Return a score of each folder: what is beside it is beside all of them."""
    return {case.score.parent: case.score for case in cases}.values()
