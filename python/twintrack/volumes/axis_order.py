"""In which order and direction the axes of an array run, and how to turn them.

An orientation is an (n, 2) array as nibabel has it: for each axis of the array that is turned, the
axis that it becomes, and −1 if it is flipped, else 1.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    io_orientation,
    ornt2axcodes,
    ornt_transform,
)
from numpy.typing import NDArray

from twintrack.errors import InputError

Orientation = NDArray[np.float64]

AS_IT_IS: Orientation = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])


def from_ras(affine: NDArray[np.float64]) -> Orientation:
    """Return what turns an array with axes R, A, S to the axes of a file with this affine.

    SimpleITK's ``DICOMOrient(image, "RAS")`` and nibabel's ``as_reoriented`` take the same axes as
    the closest ones of an oblique image.

    Raises
    ------
    ValueError
        The affine maps voxels to no place in space.
    """
    if not (np.isfinite(affine).all() and np.linalg.det(affine[:3, :3])):
        raise InputError(f"maps voxels to millimetres by {affine[:3].tolist()}")
    turn: Orientation = ornt_transform(AS_IT_IS, io_orientation(affine))
    return turn


def turned(array: NDArray[Any], orientation: Orientation) -> NDArray[Any]:
    """Return the turned array, a view where nothing has to move; else x is fastest in memory."""
    if np.array_equal(orientation, AS_IT_IS):
        return array
    return np.asfortranarray(apply_orientation(array, orientation))


def joined(first: Orientation, then: Orientation) -> Orientation:
    """Return the one turn that does what two do one after the other."""
    middle = first[:, 0].astype(np.intp)
    return np.column_stack([then[middle, 0], first[:, 1] * then[middle, 1]])


def all_orders(shape: tuple[int, ...]) -> list[Orientation]:
    """Return all turns, up to 48, after which an array has the same shape; `AS_IT_IS` is first."""
    return [
        np.column_stack([axes, flips]).astype(np.float64)
        for axes in itertools.permutations(range(3))
        if all(shape[axis] == shape[becomes] for axis, becomes in enumerate(axes))
        for flips in itertools.product((1, -1), repeat=3)
    ]


def sources(
    voxels: NDArray[np.intp], orientation: Orientation, shape: tuple[int, ...]
) -> NDArray[np.intp]:
    """Return where the values of some voxels (n, 3) of a turned array lay before it was turned.

    `shape` is that of the array, the same before and after.
    """
    columns = []
    for axis, (becomes, flip) in enumerate(orientation):
        index = voxels[:, int(becomes)]
        columns.append(index if flip > 0 else shape[axis] - 1 - index)
    return np.column_stack(columns)


def axis_codes(orientation: Orientation, affine: NDArray[np.float64]) -> str:
    """Return where the axes of an array point that `orientation` turns to a file's, as "LPS"."""
    return "".join(str(code) for code in ornt2axcodes(joined(orientation, io_orientation(affine))))
