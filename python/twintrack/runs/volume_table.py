"""volumes.csv: the volumes that calibrated scores predict, with the intervals of the raters'.

A row per case, sorted by name: ``case``, ``voxels`` (the sum of the calibrated score), ``mm3``, and
where the calibrator has a band with volumes, ``voxels_low``, ``voxels_high``, ``mm3_low`` and
``mm3_high``: limits, with the band's probability, of the volume that raters mark on average. Cells
are empty for volumes that an earlier version has written, and ``inf`` where nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibrator import Calibrator
from twintrack.files import csv_text, write_text
from twintrack.runs.result_folder import cell_text
from twintrack.runs.store import Store

NAME = "volumes.csv"

_VOXEL = 1 << 36  # what a score of 1 adds: the sum over 2^27 voxels keeps within 64 bits
_SLAB = 1 << 20


class PredictedVolume:
    """The sum of calibrated scores that come in slabs: in no order is it another."""

    def __init__(self) -> None:
        self._whole = 0

    def add(self, score: NDArray[Any]) -> None:
        """Add an array (x, y, planes)."""
        step = max(1, _SLAB * score.shape[2] // max(1, score.size))
        for first in range(0, score.shape[2], step):
            slab = score[..., first : first + step]
            scaled = np.multiply(slab, _VOXEL, dtype=np.result_type(slab, np.float32))
            self._whole += int(np.rint(scaled, out=scaled).astype(np.int64).sum())

    @property
    def voxels(self) -> float:
        """The sum."""
        return self._whole / _VOXEL

    def record(self, voxel_volume: float) -> dict[str, float]:
        """Return what a case's record has of it."""
        return {"predicted_volume": self.voxels, "voxel_volume": voxel_volume}


def recorded(
    stores: Iterable[Store], places: Callable[[Store, str], Mapping[str, Path]]
) -> dict[str, Mapping[str, Any]]:
    """Return what the records of stores say of the cases whose files are at their `places`."""
    found: dict[str, Mapping[str, Any]] = {}
    for store in stores:
        for case in store.cases():
            entry = store.find(case)
            if entry is not None and entry.is_at(places(store, case)):
                found.setdefault(case, entry.result)
    return found


def write_volumes(
    folder: Path, found: Mapping[str, Mapping[str, Any]], calibrator: Calibrator
) -> None:
    """Write the file into a folder, of the cases of `recorded`."""
    band = calibrator.band_
    spread = None if band is None else band.volumes
    header, rows = ["case"], []
    for unit in ("voxels", "mm3"):
        header += [unit] if spread is None else [unit, f"{unit}_low", f"{unit}_high"]
    for case, result in sorted(found.items()):
        row = [cell_text(case)]
        predicted = result.get("predicted_volume")
        for size in (1.0, result.get("voxel_volume")):
            if predicted is None or size is None:
                row += [""] * (1 if spread is None else 3)
                continue
            row.append(repr(predicted * size))
            if spread is not None and band is not None:
                limits = spread.interval(predicted * size, band.level, size)
                row += [repr(float(limits.low)), repr(float(limits.high))]
        rows.append(row)
    write_text(folder / NAME, csv_text(header, rows))
