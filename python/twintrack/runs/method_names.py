"""What a method of an evaluation is called where nobody says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_METHODS = {
    "none": "None (uncalibrated)",
    "single": "Single-rater",
    "hard": "Hard-label",
    "mhr": "MHR (TwinTrack)",
}


def default_method(options: Mapping[str, Any], calibrated: bool = False) -> str:
    """Name a method after its calibrator, as the paper does.

    Of scores that are `calibrated` already only that is known.
    """
    if calibrated:
        return "Calibrated"
    return _METHODS[(options["calibrator"] or {"target": "none"})["target"]]
