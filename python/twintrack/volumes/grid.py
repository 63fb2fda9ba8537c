"""Grids of voxels in space: which volumes lie on one, up to crop, flip and order of axes.

Voxels are only ever copied, never resampled. Two grids are one where every voxel of one lies within
a twentieth of a voxel of a voxel of the other: headers are rounded by the programs that write them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from twintrack.volumes.axis_order import AS_IT_IS, Orientation

TOLERANCE = 0.05
"""Largest distance between voxels that are said to be the same, in voxels, along any axis."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the voxels of a volume lie on another grid.

    Attributes
    ----------
    turn
        Turns the array to the axes of the grid; see `twintrack.volumes.axis_order`.
    start
        Index on the grid of the turned array's first voxel; negative before the grid's own first.
    shape
        Of the turned array.
    """

    turn: Orientation
    start: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def stop(self) -> tuple[int, int, int]:
        """One past the last index on the grid."""
        x, y, z = (a + n for a, n in zip(self.start, self.shape, strict=True))
        return x, y, z

    @property
    def turned(self) -> bool:
        """Whether an axis has another direction or place than on the grid."""
        return not np.array_equal(self.turn, AS_IT_IS)

    def box_in(self, first: Sequence[int]) -> Box:
        """Return the slices that it fills of an array whose first voxel has this index."""
        x, y, z = (
            slice(a - b, a - b + n) for a, b, n in zip(self.start, first, self.shape, strict=True)
        )
        return x, y, z

    def turned_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of the array with the axes of the grid."""
        view: NDArray[Any] = apply_orientation(array, self.turn) if self.turned else array
        return view


def place_on_grid(
    grid: NDArray[np.float64],
    affine: NDArray[np.float64],
    shape: Sequence[int],
    tolerance: float = TOLERANCE,
) -> Placement | None:
    """Return where the voxels of a volume lie on a grid; None if they lie between its voxels.

    Parameters
    ----------
    grid
        (4, 4), index on the grid to millimetres. It has no end: a volume may be larger than the one
        that it is of, or lie beside it.
    affine, shape
        Of the volume.
    tolerance
        In voxels of the grid. An affine map is furthest from another one in a corner, so corners
        are looked at.
    """
    try:
        to_grid = np.linalg.solve(grid, affine)
    except np.linalg.LinAlgError:  # a spacing of 0
        return None
    if not np.isfinite(to_grid).all() or np.abs(to_grid).max() > 1 << 40:
        return None
    axes = np.rint(to_grid[:3, :3])
    is_turn = (np.abs(axes).sum(axis=0) == 1).all() and (np.abs(axes).sum(axis=1) == 1).all()
    if not is_turn:
        return None
    origin = np.rint(to_grid[:3, 3])
    corners = np.array(list(itertools.product(*((0, n) for n in shape))))
    off = corners @ to_grid[:3, :3].T + to_grid[:3, 3] - (corners @ axes.T + origin)
    if np.abs(off).max() > tolerance:
        return None
    becomes = np.abs(axes).argmax(axis=0)  # of each axis of the array
    flips = axes[becomes, range(3)]
    start, length = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis, target in enumerate(becomes):
        length[target] = shape[axis]
        start[target] = origin[target] - (shape[axis] - 1 if flips[axis] < 0 else 0)
    x, y, z = (int(i) for i in start)
    return Placement(
        np.column_stack([becomes, flips]).astype(np.float64),
        (x, y, z),
        (int(length[0]), int(length[1]), int(length[2])),
    )


def common_box(
    placements: Sequence[Placement],
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the smallest box of a grid that holds some volumes: its first index, and its shape."""
    first = np.min([placement.start for placement in placements], axis=0)
    x, y, z = np.max([placement.stop for placement in placements], axis=0) - first
    return (int(first[0]), int(first[1]), int(first[2])), (int(x), int(y), int(z))


def copied_to_box(
    array: NDArray[Any], placement: Placement, first: Sequence[int], shape: tuple[int, int, int]
) -> NDArray[Any]:
    """Return the voxels of a box of the grid, 0 where the volume has none.

    A view of the array where the box is the volume and no axis is turned; else a copy, x fastest in
    memory unless the array is in C order.
    """
    source = placement.turned_array(array)
    if source.shape == shape and tuple(first) == placement.start:
        return source
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous and not placement.turned else "F"
    # numpy.zeros takes no memory for pages that nothing is written to.
    copied = np.zeros(shape, array.dtype, order)
    inside = [
        (max(a, b), min(a + n, b + m))
        for a, n, b, m in zip(placement.start, placement.shape, first, shape, strict=True)
    ]
    if all(low < high for low, high in inside):
        target = tuple(
            slice(low - b, high - b) for (low, high), b in zip(inside, first, strict=True)
        )
        taken = tuple(
            slice(low - a, high - a) for (low, high), a in zip(inside, placement.start, strict=True)
        )
        copied[target] = source[taken]
    return copied
