"""The file of ``twintrack fit --band``, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twintrack.calibration.map_band import MapBand
    from twintrack.cli.reporting import Report

_FEW = 1.5  # effective patients


def write_band(path: Path, band: MapBand) -> None:
    """Write a band to a CSV file with the columns score, map, low and high."""
    from twintrack.files import csv_text, write_text

    columns = (band.score, band.value, band.low, band.high)
    rows = ([repr(float(value)) for value in row] for row in zip(*columns, strict=True))
    write_text(path, csv_text(["score", "map", "low", "high"], rows))


def tell_band(report: Report, band: MapBand, path: Path) -> None:
    """Tell what kind of band it is, and how many patients it rests on."""
    report.result(
        f"Band of the map, {band.kind}: {band.level:.0%} at each score by itself",
        [
            ("patients", f"{band.groups:,}"),
            ("n_eff", f"{band.effective_groups:.1f}, as the votes are divided between them"),
            ("written to", path),
        ],
        band=str(path),
        kind=band.kind,
        level=band.level,
        patients=band.groups,
        n_eff=band.effective_groups,
    )
    if band.effective_groups < _FEW:
        report.warn(
            f"n_eff is {band.effective_groups:.1f}: nearly all votes are of one patient, so the "
            "band can tell next to nothing; fit to more patients"
        )
