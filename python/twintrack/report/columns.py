"""What each column of results is called, and whether higher or lower is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Better = Literal["higher", "lower"]

# A column, or its first word: its label, its better direction (None: neither) and what it says.
_FAMILIES: dict[str, tuple[str, Better | None, str]] = {
    "tdsc": ("TDSC", "higher", "soft overlap: Dice at six thresholds of score and MHR"),
    "ece": ("ECE", "lower", "expected calibration error, mean over raters"),
    "crps": ("CRPS", "lower", "distance of the predicted volume from the raters' volumes"),
    "vi": ("VI", "lower", "vascular invasion: distance between contact angles, degrees"),
    "ace": ("ACE", "lower", "average calibration error: every occupied bin counts the same"),
    "brier": ("Brier", "lower", "mean squared difference from the MHR"),
    "log": ("Log", "lower", "minus the mean logarithm of what the answers were given"),
    "dice": ("Dice", "higher", "overlap of the thresholded score"),
    "reliability": ("Reliability", "lower", "Murphy's reliability term"),
    "resolution": ("Resolution", "higher", "Murphy's resolution term"),
    "uncertainty": ("Uncertainty", None, "Murphy's uncertainty term, a property of the raters"),
    "disagreement": ("Disagreement", None, "share of marked voxels that not all raters marked"),
    "contested_error": (
        *("Contested error", "lower"),
        "of the voxels where raters disagree: share of TDSC's thresholds between score and MHR",
    ),
    "predicted_volume": ("Predicted volume", None, "sum of the score"),
    "rater_volume": ("Rater volume", None, "mean over raters"),
    "volume_bias": ("Volume bias", None, "predicted minus rater volume: 0 is best"),
    "relative_volume_bias": ("Relative volume bias", None, "volume bias / rater volume"),
}
_UPPER = {"mhr": "MHR", "roi": "ROI", "staple": "STAPLE"}
_VESSELS = ("PORTA", "SMV", "AORTA", "CELIAC TRUNK", "SMA")
_BENCHMARK = ("tdsc", "ece", "crps", *(f"vi_{vessel}" for vessel in _VESSELS))


@dataclass(frozen=True)
class Metric:
    """A column of results.

    Attributes
    ----------
    key
        Name of the column, such as "vi_PORTA".
    label
        Name in tables and figures, such as "PORTA".
    better
        "higher", "lower", or None for a quantity that is not a score.
    meaning
        One line for a legend; empty when the column is not a known one.
    benchmark
        Whether it belongs to the paper's Tables 1 and 2.
    """

    key: str
    label: str
    better: Better | None
    meaning: str
    benchmark: bool

    @property
    def arrow(self) -> str:
        """The better direction as an arrow, empty when there is none."""
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]

    @property
    def heading(self) -> str:
        """Label and arrow."""
        return f"{self.label} {self.arrow}".rstrip()


def with_derived(values: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Add the columns that follow from others: the bias of the volume, and relative to it.

    (predicted - rater) volume, in the unit of these, and that / rater volume, NaN where raters
    marked nothing. Columns of these names that are there already are left as they are.
    """
    if not {"predicted_volume", "rater_volume"} <= values.keys():
        return dict(values)
    raters = values["rater_volume"]
    bias = values["predicted_volume"] - raters
    relative = np.divide(bias, raters, out=np.full_like(bias, np.nan), where=raters > 0)
    derived = {"volume_bias": bias, "relative_volume_bias": relative}
    found = {name: column for name, column in derived.items() if not np.isnan(column).all()}
    return {**values, **{name: found[name] for name in found if name not in values}}


def describe(key: str) -> Metric:
    """Describe the column `key`; one of an unknown family has no better direction."""
    family, _, rest = (key, "", "") if key in _FAMILIES else key.partition("_")
    if family not in _FAMILIES:
        return Metric(key, key, None, "", benchmark=False)
    label, better, meaning = _FAMILIES[family]
    if family == "vi" and rest:
        return Metric(key, rest, better, meaning, benchmark=True)
    words = " ".join(_UPPER.get(word, word) for word in rest.split("_"))
    return Metric(key, f"{label} {words}".rstrip(), better, meaning, key in _BENCHMARK)


def in_order(keys: Iterable[str]) -> tuple[Metric, ...]:
    """Describe columns: those of the paper's tables in its order, then the others as they come."""
    metrics = [describe(key) for key in dict.fromkeys(keys)]

    def rank(metric: Metric) -> int:
        if metric.key in _BENCHMARK:
            return _BENCHMARK.index(metric.key)
        return len(_BENCHMARK) + (not metric.benchmark)

    return tuple(sorted(metrics, key=rank))
