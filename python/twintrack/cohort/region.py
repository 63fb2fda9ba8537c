"""Which voxels of a case count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.volumes import Volume

RegionRule = Literal["roi", "box", "all"]

BOX_MARGIN = 20  # voxels


def annotated_box(
    raters: Sequence[NDArray[Any]], margin: int = BOX_MARGIN
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

    Raises
    ------
    ValueError
        No rater marks any voxel, or the shapes differ.
    """
    if not raters:
        raise ValueError("no raters, so there is no annotated box")
    shape = raters[0].shape
    marked = [np.zeros(length, np.bool_) for length in shape]
    for number, rater in enumerate(raters, start=1):
        if rater.shape != shape:
            raise ValueError(f"rater {number} has shape {rater.shape}, rater 1 has {shape}")
        slow, middle, fast = sorted(range(3), key=lambda axis: -abs(rater.strides[axis]))
        for index, slab in enumerate(rater.transpose(slow, middle, fast)):
            if slab.any():
                marked[slow][index] = True
                marked[middle] |= slab.any(axis=1)
                marked[fast] |= slab.any(axis=0)
    if not marked[0].any():
        raise ValueError("no rater marks any voxel, so there is no annotated box")
    bounds = [np.flatnonzero(axis)[[0, -1]].tolist() for axis in marked]
    x, y, z = (
        slice(max(first - margin, 0), min(last + margin + 1, length))
        for (first, last), length in zip(bounds, shape, strict=True)
    )
    return x, y, z


def as_mask(
    array: NDArray[Any], place: Volume, first: tuple[int, int, int] = (0, 0, 0)
) -> NDArray[np.bool_]:
    """Return 0 and 1 as booleans; an error names `place` and, from its `first` voxel, where."""
    mask: NDArray[np.bool_] = array.astype(np.bool_, copy=False)
    if not np.array_equal(array, mask):
        found = tuple(np.argwhere(array != mask)[0].tolist())
        voxel = tuple(a + b for a, b in zip(found, first, strict=True))
        raise ValueError(f"{place}: voxel {voxel} is {array[found]}; a mask is 0 or 1")
    return mask


def require_marked(marked: bool, place: Volume) -> None:
    """Raise unless some voxel of a mask is `marked`."""
    if not marked:
        raise ValueError(f"{place}: the mask is empty, so no voxel would count")
