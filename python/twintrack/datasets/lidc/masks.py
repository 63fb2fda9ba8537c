"""The outlines of a nodule, filled: a mask per reader."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twintrack.datasets.lidc.database import SLICE_PIXELS
from twintrack.datasets.lidc.nodules import LidcNodule
from twintrack.errors import InputError


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
        raise InputError(f"margin must be finite and at least 0 mm, got {margin}")
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


def _even_slices(nodule: LidcNodule, low: int, high: int) -> tuple[int, int, float]:
    """First and last slice of the evenly spaced run that holds slices low to high, and its step."""
    steps = np.diff(nodule.slice_positions)
    step = float(np.median(steps))
    # Break b lies between slices b and b + 1.
    breaks = np.flatnonzero(np.abs(steps - step) > 0.01 * step)
    inner = breaks[(breaks >= low) & (breaks < high)]
    if inner.size:
        z = nodule.slice_positions[inner[0] : inner[0] + 2]
        raise InputError(
            f"the slices at z = {z[0]} and {z[1]} mm are not {step} mm apart as in "
            "the rest of the scan; leave this nodule out",
            case=nodule.case,
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
