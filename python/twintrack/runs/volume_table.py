"""volumes.csv: the volumes that calibrated scores predict, with the intervals of the raters'.

A row per case, sorted by name: ``case``, ``voxels`` (the sum of the calibrated score), ``mm3``, and
where the calibrator has a band with volumes, ``voxels_low``, ``voxels_high``, ``mm3_low`` and
``mm3_high``: limits, with the band's probability, of the volume that raters mark on average. Cells
are empty for volumes that an earlier version has written, and ``inf`` where nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibrator import Calibrator
from twintrack.files import csv_text, write_text
from twintrack.runs.result_folder import cell_text
from twintrack.runs.store import Store

NAME = "volumes.csv"

VOXEL = 1 << 36
"""What a score of 1 adds to `whole_volume`: a slab of 2^27 voxels, and a case of any size, fit."""


def whole_volume(score: NDArray[Any]) -> int:
    """Return the sum of calibrated scores as a whole number: in no order is it another."""
    scaled = np.multiply(score, VOXEL, dtype=np.result_type(score, np.float32))
    return int(scaled.astype(np.int64).sum())


def write_volumes(folder: Path, stores: Sequence[Store], calibrator: Calibrator) -> None:
    """Write the volumes that are in a folder, as the records of its stores have them."""
    found: dict[str, Any] = {}
    for store in stores:
        for case in store.cases():
            entry = store.find(case)
            place = folder / f"{case}{store.options['ending']}"
            if entry is not None and entry.is_at({"volume": place}):
                found.setdefault(case, entry.result)
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
