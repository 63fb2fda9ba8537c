"""Audit: what new cases say of a map, and the verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from twintrack.arrays.by_value import ByValue
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.departures import Departure

Verdict = Literal["keep", "refit", "too few cases"]
Update = Literal["affine", "refit"]
Source = Literal["tallies", "band", "unknown"]

SIZE = 0.05
SHARES = (0.6, 0.4)
"""What the tests of volume and of tilt have of the size: the volume is what shifts most often."""

LEVEL = 0.90
"""Of the intervals that lie within the bound if the map is kept: two one-sided tests of 5%."""


class Gain(NamedTuple):
    """By how much a map has a lower Brier score per voxel, and the standard error over patients."""

    gain: float
    error: float


@dataclass(frozen=True, eq=False)
class Audit(ByValue):
    """What new cases say of a map.

    Attributes
    ----------
    verdict : {"keep", "refit", "too few cases"}
    p_value : float
        Of the map being right for the new cases: the smaller of those of volume and tilt, divided
        by its share of the size (`SHARES`).
    volume, tilt : Departure
        As `Departures` defines them.
    bound : float
        Relative error of the volume, and of the tilt, that would not matter.
    detectable : float
        Relative error of the volume that the test would have found with a probability of 80%.
    map_error_from : {"tallies", "band", "unknown"}
        Where the error of the map's own calibration set is known from.
    cases, patients : int
    effective_groups : float
        Effective number of new patients by their marked volumes.
    miscalibration, if_calibrated : float
        CORP's MCB in the new cases, and its mean in as many of them if the map were exactly right.
    updates : dict
        a and b of the affine update of the log-odds.
    affine_gain, refit_gain, refit_over_affine : Gain
        In each new patient, of a map made of the others.
    recommended : {"affine", "refit"} or None
        What replaces the map; None if it stays, or if neither is better in patients left out.
    old, affine, refitted : CalibrationMap
        The map, and those of the updates.
    """

    verdict: Verdict
    p_value: float
    volume: Departure
    tilt: Departure
    bound: float
    detectable: float
    map_error_from: Source
    cases: int
    patients: int
    effective_groups: float
    miscalibration: float
    if_calibrated: float
    updates: dict[str, float]
    affine_gain: Gain
    refit_gain: Gain
    refit_over_affine: Gain
    recommended: Update | None
    old: CalibrationMap
    affine: CalibrationMap
    refitted: CalibrationMap

    @property
    def volume_interval(self) -> tuple[float, float]:
        """The 90% interval of the map's relative volume error in all cases like the new ones."""
        low, high = map(relative, self.volume.interval(LEVEL))
        return low, high

    @property
    def sentence(self) -> str:
        """The verdict and its reason."""
        found, (low, high) = relative(self.volume.estimate), self.volume_interval
        size = f"{abs(found):.0%} {'more' if found > 0 else 'less'} volume than raters mark"
        if abs(found) < 0.005:
            size = "as much volume as raters mark"
        volume = f"it predicts {size} (90% interval {signed(low)} to {signed(high)}"
        if self.verdict == "keep":
            return f"Keep the map: {volume}), and ±{self.bound:.0%} would not matter."
        if self.verdict == "too few cases":
            return (
                f"Too few cases to tell: {volume}). An error of {signed(self.detectable)} would "
                "have been found with 80% probability."
            )
        doubt = "if the map itself had no error" if self.map_error_from == "unknown" else ""
        volume += f"; p = {_p(self.p_value)}{f', {doubt}' * bool(doubt)})"
        if self.tilt.p_value < SIZE * SHARES[1]:
            more, less = ("more", "less") if self.tilt.estimate > 0 else ("less", "more")
            volume += f", and raters mark {more} than it says where it is high, {less} where low"
        what = {
            "affine": "An affine update of its log-odds is enough.",
            "refit": "A map fitted to the new cases is better than an affine update.",
            None: "But no update is better on patients left out: collect more cases for a new map.",
        }[self.recommended]
        return f"Refit: {volume}. {what}"

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON has them, the maps aside; what is infinite is None."""
        departures = {
            name: {
                **asdict(one),
                "p_value": one.p_value,
                "interval": list(one.interval(LEVEL)),
                "interval_level": LEVEL,
                "size": SIZE * share,
            }
            for name, one, share in zip(
                ("volume", "tilt"), (self.volume, self.tilt), SHARES, strict=True
            )
        }
        left_out = ("volume", "tilt", "old", "affine", "refitted")
        said = {name: value for name, value in vars(self).items() if name not in left_out}
        gains = {name: value._asdict() for name, value in said.items() if isinstance(value, Gain)}
        ratio = {
            "volume_ratio": math.exp(self.volume.estimate),
            "relative_volume_error": relative(self.volume.estimate),
            "relative_volume_interval": list(self.volume_interval),
        }
        whole = {"sentence": self.sentence, **said, **gains, **ratio, **departures}
        found: dict[str, Any] = _finite(whole)
        return found


def judged(volume: Departure, tilt: Departure, bound: float) -> tuple[float, Verdict]:
    """Return the p of a map being right for new cases, and the verdict; `Audit` says what it means.

    Parameters
    ----------
    volume, tilt
        With the errors of the map.
    bound
        As of `audit_map`.
    """
    p_value = min(1.0, *(one.p_value / s for one, s in zip((volume, tilt), SHARES, strict=True)))
    if p_value < SIZE:
        return p_value, "refit"
    low, high = map(relative, volume.interval(LEVEL))
    within = max(-low, high, *map(abs, tilt.interval(LEVEL))) <= bound
    return p_value, "keep" if within else "too few cases"


def relative(log_ratio: float) -> float:
    """Return the relative error of a logarithm of a ratio."""
    return math.expm1(min(log_ratio, 700.0))


def signed(share: float) -> str:
    """Return a relative error as text."""
    return f"{share:+.0%}" if share < 10 else "more than +1000%"


def _p(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value >= 0.001 else "below .001"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
