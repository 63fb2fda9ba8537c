"""The file of ``twintrack fit --band``, and what is told of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twintrack.calibration.calibrator import Calibrator
    from twintrack.calibration.map_band import MapBand
    from twintrack.cli.reporting import Report

_FEW = 1.5  # effective patients
_LARGE = 1e9  # voxels


def write_band(path: Path, band: MapBand) -> None:
    """Write a band, at 1001 equally spaced scores, as CSV: columns score, map, low and high."""
    import numpy as np

    from twintrack.files import csv_text, write_text

    shown = np.isin(band.score, np.linspace(0, 1, 1001))
    columns = (values[shown] for values in (band.score, band.value, band.low, band.high))
    rows = ([repr(float(value)) for value in row] for row in zip(*columns, strict=True))
    write_text(path, csv_text(["score", "map", "low", "high"], rows))


def band_told(calibrator: Calibrator) -> str:
    """Return what the band of a calibrator is, for people."""
    band = calibrator.band_
    return "none" if band is None else f"{band.level:g} {band.kind} band of {band.groups} patients"


def tell_band(report: Report, band: MapBand, path: Path) -> None:
    """Tell what kind of band it is, and how many patients it rests on."""
    where = "at each score by itself" if band.kind == "pointwise" else "at all scores at once"
    low = high = None
    if band.volumes is not None:
        ends = band.volumes.interval(_LARGE, band.level)
        low, high = float(ends.low) / _LARGE, float(ends.high) / _LARGE
    report.result(
        f"Band of the map, {band.kind}: {band.level:.3g} {where}",
        [
            ("patients", f"{band.groups:,}"),
            ("n_eff", f"{band.effective_groups:.1f}, as the votes are divided between them"),
            *(
                []
                if low is None
                else [("volumes", f"{low:.2g} to {high:.2g} times a large predicted one")]
            ),
            ("written to", path),
        ],
        band=str(path),
        kind=band.kind,
        level=band.level,
        patients=band.groups,
        n_eff=band.effective_groups,
        volume_low=low,
        volume_high=high if high is not None and math.isfinite(high) else None,
    )
    if band.effective_groups < _FEW:
        report.warn(
            f"n_eff is {band.effective_groups:.1f}: nearly all votes are of one patient, so the "
            "band can tell next to nothing; fit to more patients"
        )


def warn_of_box(report: Report, calibrator: Calibrator) -> None:
    """Warn where volumes were compared in another part of the scores than they are predicted in."""
    band = calibrator.band_
    if band is not None and band.volumes is not None and "box" in calibrator.region_:
        report.warn(
            "the map was fitted in boxes around the annotations, and volumes were compared there: "
            "the intervals of volumes say nothing of what is predicted outside of such boxes"
        )
