"""Grids of voxels in space: which volumes lie on one, up to crop, flip and order of axes.

Voxels are only ever copied, never resampled. Two grids are one where every voxel of one lies within
a twentieth of a voxel of a voxel of the other: headers are rounded by the programs that write them.
The middle of a volume and the voxels about it are judged apart, for a spacing that is rounded also
moves the middle, as the origin lies in a corner.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from nibabel.orientations import aff2axcodes, apply_orientation
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.volumes.axis_order import AS_IT_IS, Orientation
from twintrack.volumes.geometry import Volume, check_same_geometry

TOLERANCE = 0.05
"""Mean distance of voxels that are said to be the same, in voxels, along any axis."""

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

    @property
    def keeps_planes(self) -> bool:
        """Whether planes of the last axis are planes of the grid's last axis, in the same order."""
        return tuple(self.turn[2]) == (2, 1)

    def own_voxel(self, voxel: Sequence[int]) -> tuple[int, ...]:
        """Return the index in the volume's own array of a voxel of the grid."""
        own = []
        for becomes, flip in self.turn:
            at = voxel[int(becomes)] - self.start[int(becomes)]
            own.append(at if flip > 0 else self.shape[int(becomes)] - 1 - at)
        return tuple(own)

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
        In voxels of the grid: of the middle of the volume, and of its corners from where they would
        be if the middle were in its place. An affine map is furthest from another one in a corner.
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
    middle = off.mean(axis=0)
    if not max(np.abs(middle).max(), np.abs(off - middle).max()) <= tolerance:
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


def place_together(
    volumes: Sequence[Volume], ignore_header: bool = False, axes_of_most: bool = False
) -> list[Placement]:
    """Return where volumes lie on the grid of the first of them that states its place.

    Parameters
    ----------
    volumes
        Only shapes and headers are looked at. One that does not state its place, as a NumPy array
        or a NIfTI file with both codes 0, lies where the stated ones of its shape do.
    ignore_header
        Compare the shapes only, for files whose voxels correspond though their headers differ.
    axes_of_most
        Take the grid of the first of those whose axes run as those of most do, so that the axes do
        not depend on how one file is stored.

    Raises
    ------
    InputError
        A volume lies on another grid, or beside all of the first one; shows both grids.
    """
    stated = [None if ignore_header else stated_affine(volume) for volume in volumes]
    known = [k for k, affine in enumerate(stated) if affine is not None]
    first = known[0] if known else 0
    reference, grid = volumes[first], stated[first]
    found: dict[int, Placement] = {}
    for k in known:
        affine = stated[k]
        assert grid is not None and affine is not None  # noqa: S101, PT018 - known ones have one
        placement = place_on_grid(grid, affine, volumes[k].array.shape)
        if placement is None:
            _check_rounded(reference, volumes[k])
            placement = found[first]
        if k != first and not _overlap(placement, found[first]):
            raise InputError(
                f"lies beside {reference}, without a voxel in common "
                f"({_grids(reference, volumes[k])})",
                file=str(volumes[k]),
            )
        found[k] = placement
    if axes_of_most and known:
        turns = [found[k].turn.tolist() for k in known]
        chosen = known[turns.index(max(turns, key=turns.count))]
        if found[chosen].turned:
            ordered = [chosen, *(k for k in range(len(volumes)) if k != chosen)]
            again = place_together([volumes[k] for k in ordered])
            return [again[ordered.index(k)] for k in range(len(volumes))]
    for k, volume in enumerate(volumes):
        if k not in found:
            found[k] = _like_others(volume, [(volumes[j], found[j]) for j in known], reference)
    return [found[k] for k in range(len(volumes))]


def grid_of_box(
    volume: Volume, placement: Placement, first: Sequence[int]
) -> NDArray[np.float64] | None:
    """Return the affine of a box of the grid that a volume lies on; None if it has none."""
    if volume.affine is None:
        return None
    # Three steps along the axes of the grid, as seen from the volume.
    corners = np.array(
        [placement.own_voxel(np.add(first, step)) for step in (*np.eye(3, dtype=int), (0, 0, 0))]
    )
    at = corners @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    affine = np.eye(4)
    affine[:3, :3] = (at[:3] - at[3]).T
    affine[:3, 3] = at[3]
    return affine


def stated_affine(volume: Volume) -> NDArray[np.float64] | None:
    """Return the affine if the file states it; of a NIfTI file without codes it is a guess."""
    header = volume.header
    if not volume.stated:
        return None
    if header is not None and header["sform_code"] <= 0 and header["qform_code"] <= 0:
        return None
    return volume.affine


def _like_others(
    volume: Volume, placed: Sequence[tuple[Volume, Placement]], reference: Volume
) -> Placement:
    """Return the placement of a volume that states none: that of the others of its shape."""
    shape = volume.array.shape
    same = [placement for other, placement in placed if other.array.shape == shape]
    if not same and (placed or shape != reference.array.shape):
        raise InputError(
            f"shape {shape} differs from {reference.array.shape} of {reference}, and the file does "
            "not state where its voxels lie",
            file=str(volume),
        )
    if any((p.start, p.turn.tolist()) != (same[0].start, same[0].turn.tolist()) for p in same):
        raise InputError(
            "does not state where its voxels lie, and files of its shape lie in different places",
            file=str(volume),
        )
    x, y, z = shape
    return same[0] if same else Placement(AS_IT_IS, (0, 0, 0), (x, y, z))


def _overlap(a: Placement, b: Placement) -> bool:
    return all(
        max(low, other) < min(stop, end)
        for low, other, stop, end in zip(a.start, b.start, a.stop, b.stop, strict=True)
    )


def _check_rounded(reference: Volume, other: Volume) -> None:
    """Raise unless both have one shape, and headers that differ by roundings to a thousandth mm.

    Over hundreds of voxels such a rounding is more than a tenth of a voxel.
    """
    if reference.array.shape == other.array.shape:
        with contextlib.suppress(InputError):
            check_same_geometry(reference, other)
            return
    raise _of_another_grid(reference, other)


def _of_another_grid(reference: Volume, other: Volume) -> InputError:
    """Say how two grids differ, and how to ignore it where only the header can be wrong."""
    advice = "resample one onto the grid of the other"
    if _differ_in_header_alone(reference, other):
        advice += (
            ", or pass ignore_header=True (--ignore-header on the command line) if only the header "
            "is wrong and the voxels do correspond"
        )
    return InputError(
        f"lies on another grid than {reference} ({_grids(reference, other)})",
        file=str(other),
        advice=advice,
    )


def _differ_in_header_alone(reference: Volume, other: Volume) -> bool:
    a, b = reference.affine, other.affine
    if reference.array.shape != other.array.shape or a is None or b is None:
        return False
    return bool(aff2axcodes(a) == aff2axcodes(b))


def _grids(reference: Volume, other: Volume) -> str:
    return f"{_described(other)} instead of {_described(reference)}"


def _described(volume: Volume) -> str:
    """Return shape, voxel size, origin and directions of axes."""
    affine = volume.affine
    assert affine is not None  # noqa: S101 - only grids that are stated are compared
    x, y, z = volume.array.shape
    sizes = " x ".join(f"{size:.6g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
    origin = ", ".join(f"{at:.6g}" for at in affine[:3, 3])
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes = "; ".join(", ".join(f"{at:.4g}" for at in axis) for axis in unit.T)
    return f"{x} x {y} x {z} voxels of {sizes} mm from ({origin}), axes ({axes})"
