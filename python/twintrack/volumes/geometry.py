"""A volume with its place in space, and the check that two volumes share it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError

# ITK counts x and y towards left and posterior, NIfTI towards right and anterior.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

HEADER_PARTS = ("spacing", "origin", "direction")


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D array and where it lies.

    Attributes
    ----------
    array
        Shape (x, y, z) in the axis order of NIfTI files, the file's dtype and memory order
        (x fastest in NIfTI, MetaImage and nnU-Net files).
    affine
        (4, 4) float64, voxel index to millimetres in RAS+ (NIfTI's convention), or None where
        the file stores no geometry (.npy, .npz without a segmentation beside it).
    path
        The file it was read from; used in messages.
    header
        The NIfTI header it was read with, kept so that an output can repeat its codes and units.
    notes
        What to tell of the file though it can be used.
    stated
        Whether the file states where its voxels lie, and not only how large they are.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64] | None = None
    path: Path | None = None
    header: Any = None
    notes: tuple[str, ...] = ()
    stated: bool = True

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels along each axis; ValueError if unknown."""
        x, y, z = (float(length) for length in np.linalg.norm(self._axes(), axis=0))
        return (x, y, z)

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³; ValueError if unknown."""
        return float(abs(np.linalg.det(self._axes())))

    def _axes(self) -> NDArray[np.float64]:
        if self.affine is None:
            raise InputError(
                "states no voxel size; .npy files do not, nor do .npz files without a "
                "segmentation beside them, nor .nrrd files without spacings",
                file=str(self),
            )
        return self.affine[:3, :3]

    def __str__(self) -> str:
        return "an array without a file" if self.path is None else str(self.path)


def check_same_geometry(
    reference: Volume,
    other: Volume,
    tolerance: float = 1e-3,
    ignore: Collection[str] = (),
) -> None:
    """Raise if voxel (i, j, k) of `other` is not the same place as that of `reference`.

    Parameters
    ----------
    reference, other
        Volumes to compare. Where one has no affine, only the shapes are compared.
    tolerance
        Largest difference allowed in any component of spacing (mm), origin (mm) and direction
        (unit vectors along the array axes).
    ignore
        Header parts not to compare, among "spacing", "origin" and "direction". The shape is
        always compared.

    Raises
    ------
    ValueError
        Naming both files, each part that differs, by how much, and the override.
    """
    unknown = set(ignore) - set(HEADER_PARTS)
    if unknown:
        raise InputError(
            f"the header parts are {HEADER_PARTS}", argument="ignore", value=sorted(unknown)
        )
    if reference.array.shape != other.array.shape:
        raise InputError(
            f"shape {other.array.shape} differs from {reference.array.shape} of {reference}",
            file=str(other),
            advice="resample one onto the other's grid",
        )
    if reference.affine is None or other.affine is None:
        return

    expected, found = _parts(reference.affine), _parts(other.affine)
    faults = []
    for part in HEADER_PARTS:
        if part in ignore:
            continue
        difference = float(np.max(np.abs(expected[part] - found[part])))
        if not difference <= tolerance:  # also true of NaN
            unit = "" if part == "direction" else " mm"
            faults.append(
                f"{part} {_show(found[part])}{unit} instead of {_show(expected[part])}{unit} "
                f"(off by up to {difference:.4g}{unit})"
            )
    if faults:
        raise InputError(
            f"geometry differs from {reference}: {'; '.join(faults)}",
            file=str(other),
            advice="if only the header is wrong and the voxels do correspond, pass "
            "ignore_header=True (--ignore-header on the command line); otherwise resample it onto "
            "the other's grid",
        )


def affine_of_axes(
    matrix: NDArray[np.float64], origin: NDArray[np.float64], space: Sequence[int]
) -> NDArray[np.float64]:
    """Return the (4, 4) affine of three axes of an image that has n of them, at least three.

    Parameters
    ----------
    matrix, origin
        (n, n) and (n,): one column an axis, from index to mm.
    space
        The three axes, and so the rows that are theirs.

    Raises
    ------
    InputError
        Other axes lead into these rows, or these axes into other rows.
    """
    others = [axis for axis in range(len(matrix)) if axis not in space]
    if matrix[np.ix_(space, others)].any() or matrix[np.ix_(others, space)].any():
        raise InputError(f"its directions turn the axes {tuple(space)} into others")
    affine = np.eye(4)
    affine[:3, :3] = matrix[np.ix_(space, space)]
    affine[:3, 3] = origin[list(space)]
    return affine


def ghost(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of any shape that takes no memory, for checks of shape and dtype."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def with_first_planes(slabs: Iterable[NDArray[Any]]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield consecutive slabs (x, y, planes), each after the index of its first plane."""
    first = 0
    for slab in slabs:
        yield first, slab
        first += slab.shape[2]


def _parts(affine: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        direction = np.where(spacing > 0, affine[:3, :3] / spacing, 0.0)
    return {"spacing": spacing, "origin": affine[:3, 3], "direction": direction}


def _show(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values.T.ravel()) + ")"
