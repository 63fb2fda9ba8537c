"""Intervals of the predicted volumes among the figures of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from twintrack.calibration.calibrator import Calibrator
from twintrack.runs.result_folder import Row

INTERVAL = ("predicted_volume_low", "predicted_volume_high")
"""Their columns: absent where the calibrator has no band with volumes, nan where one is infinite.

They are limits, with the band's probability, of ``rater_volume``.
"""


def volume_options(calibrator: Calibrator | None) -> dict[str, Any]:
    """Return what the intervals depend on besides the map, as "volumes"; nothing if there are none.

    Another band without another interval is none of it.
    """
    band = None if calibrator is None else calibrator.band_
    if band is None or band.volumes is None:
        return {}
    return {"volumes": {"level": band.level, **asdict(band.volumes)}}


def interval_figures(
    calibrator: Calibrator | None, predicted: float, voxel_volume: float
) -> dict[str, float]:
    """Return the interval of a case by column; nothing if there is none."""
    band = None if calibrator is None else calibrator.band_
    if band is None or band.volumes is None:
        return {}
    ends = band.volumes.interval(predicted, band.level, voxel_volume)
    return dict(zip(INTERVAL, (float(ends.low), float(ends.high)), strict=True))


def volumes_held(rows: Iterable[Row]) -> dict[str, int] | None:
    """Count the cases that have an interval, and those whose rater volume is in it.

    None if no case has one.
    """
    known = []
    for row in rows:
        low, high, volume = (row.get(name) for name in (*INTERVAL, "rater_volume"))
        if low is not None and high is not None and volume is not None and not math.isnan(volume):
            known.append(low <= volume and not volume > high)  # NaN is infinite
    return {"cases": len(known), "held": sum(known)} if known else None
