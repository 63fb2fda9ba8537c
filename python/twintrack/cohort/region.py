"""Which voxels of a case count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.checks import mask_value
from twintrack.errors import InputError
from twintrack.volumes import Volume
from twintrack.volumes.slabs import VolumeSlabs, open_slabs

RegionRule = Literal["roi", "box", "all"]

BOX_MARGIN = 20  # voxels


def annotated_box(
    raters: Sequence[NDArray[Any]], margin: int = BOX_MARGIN, *, unseen: int | None = None
) -> tuple[slice, slice, slice]:
    """Return the box in which the benchmark measures calibration.

    It is the bounding box of the union of all annotations, grown by `margin` voxels on every side
    and clamped to the volume: ``slice(max(first - margin, 0), min(last + margin + 1, length))``
    along each axis. The official evaluator stops at ``last + margin``, one voxel short, and does
    not clamp the start, so that its box is usually empty when a tumour is near the low border.

    Parameters
    ----------
    raters
        Annotations of one shape (x, y, z); whatever is not 0 is marked.
    margin
        In voxels.
    unseen
        Value of voxels that a rater did not look at: they are not marked.

    Raises
    ------
    ValueError
        No rater marks any voxel, or the shapes differ.
    """
    if not raters:
        raise InputError("no raters, so there is no annotated box")
    shape = raters[0].shape
    marked = [np.zeros(length, np.bool_) for length in shape]
    for number, rater in enumerate(raters, start=1):
        if rater.shape != shape:
            raise InputError(f"rater {number} has shape {rater.shape}, rater 1 has {shape}")
        slow, middle, fast = sorted(range(3), key=lambda axis: -abs(rater.strides[axis]))
        for index, plane in enumerate(rater.transpose(slow, middle, fast)):
            slab = plane if unseen is None else (plane != 0) & (plane != unseen)
            if slab.any():
                marked[slow][index] = True
                marked[middle] |= slab.any(axis=1)
                marked[fast] |= slab.any(axis=0)
    if not marked[0].any():
        raise InputError("no rater marks any voxel, so there is no annotated box")
    bounds = [np.flatnonzero(axis)[[0, -1]].tolist() for axis in marked]
    x, y, z = (
        slice(max(first - margin, 0), min(last + margin + 1, length))
        for (first, last), length in zip(bounds, shape, strict=True)
    )
    return x, y, z


def open_mask(path: Path) -> VolumeSlabs:
    """Open the mask of a region: a boolean volume.

    All of the file is looked at, also where only a part of it is used.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `open_slabs`. Reading it raises ValueError if it holds more than 0 and one other value;
        names the voxel.
    """
    stored = open_slabs(path, ())
    return stored.changed(lambda slabs: _masks(slabs, stored.place), np.dtype(np.bool_))


def _masks(slabs: Iterable[NDArray[Any]], place: Volume) -> Iterator[NDArray[np.bool_]]:
    """Yield consecutive slabs of a mask as booleans."""
    value = None
    first = 0

    def where(voxel: tuple[int, ...]) -> str:
        z, y, x = voxel
        return f"{place}: voxel {(x, y, z + first)}"

    for slab in slabs:
        value = mask_value(slab.T, where, value)  # the first voxel is then that of the file
        yield slab.astype(np.bool_, copy=False)
        first += slab.shape[2]


def require_marked(marked: bool, place: Volume) -> None:
    """Raise unless some voxel of a mask is `marked`."""
    if not marked:
        raise InputError("the mask is empty, so no voxel would count", file=str(place))
