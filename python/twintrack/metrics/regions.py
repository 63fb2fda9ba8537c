"""Regions that calibration can be measured in, besides the annotated box.

Most voxels of a CT are background that every rater and every model agrees on, and calibration
errors are averages over voxels: the region decides what they say. Any boolean mask serves, such as
a model's region of interest; these are the usual others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.host import rater_arrays, score_array
from twintrack.errors import InputError


def scored(score: ArrayLike) -> NDArray[np.bool_]:
    """Return the voxels with a score above 0, which is where a cropped model has looked."""
    array = score_array(score)
    if array.dtype.kind != "f":  # bfloat16: all bits but the sign
        array = array.view(np.uint16) & 0x7FFF
    return array > 0


def near_tumour(
    raters: ArrayLike | Sequence[ArrayLike],
    margin: float,
    spacing: Sequence[float] | None = None,
) -> NDArray[np.bool_]:
    """Return the voxels within a distance of any voxel that any rater marks.

    Parameters
    ----------
    raters : array (N, *shape) or sequence of N arrays of 0 and 1
    margin : float
        Largest Euclidean distance between voxel centres; 0 keeps the marked voxels alone.
    spacing : sequence of float, one an axis, optional
        Voxel size in the unit of `margin`; by default `margin` is in voxels.

    Returns
    -------
    (*shape) bool
        Nothing is near where nothing is marked.

    Raises
    ------
    ValueError
        If `margin` is negative or infinite, or `spacing` is not positive or has the wrong length.
    """
    from scipy.ndimage import distance_transform_edt, find_objects

    masks = rater_arrays(raters)
    shape = masks[0].shape
    if not 0 <= margin < np.inf:
        raise InputError(f"margin is {margin}; it must be 0 or more")
    sizes = np.ones(len(shape)) if spacing is None else np.asarray(spacing, np.float64)
    if sizes.shape != (len(shape),) or not np.all(sizes > 0):
        raise InputError(
            f"spacing is {spacing}; it must be one positive number for each of {len(shape)} axes"
        )
    marked = np.zeros(shape, np.bool_)
    for k, mask in enumerate(masks):
        if mask.shape != shape:
            raise InputError(f"raters[{k}] has shape {mask.shape} but raters[0] has shape {shape}")
        marked |= mask != 0
    if not marked.any():
        return marked
    # Distances are needed in the bounding box of what can be near alone.
    reach = [int(np.ceil(margin / size)) for size in sizes]
    inside = tuple(
        slice(max(part.start - by, 0), part.stop + by)
        for part, by in zip(find_objects(marked.view(np.uint8))[0], reach, strict=True)
    )
    distance = distance_transform_edt(~marked[inside], sampling=sizes)
    near = np.zeros(shape, np.bool_)
    near[inside] = distance <= margin
    return near
