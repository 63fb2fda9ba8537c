"""A volume with its place in space, and the check that two volumes share it."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError

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
    """

    array: NDArray[Any]
    affine: NDArray[np.float64] | None = None
    path: Path | None = None
    header: Any = None
    notes: tuple[str, ...] = ()

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
                "segmentation beside them",
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


def find_part(
    whole: Volume, part: Volume, tolerance: float = 0.05
) -> tuple[slice, slice, slice] | None:
    """Return the box of `whole` whose voxels are those of `part`, a crop of it.

    Parameters
    ----------
    whole, part
        Volumes to compare; only their shapes and affines are looked at.
    tolerance
        Largest distance, along any axis and in voxels of `whole`, between a voxel of `part` and
        that of `whole` that it is said to be. So spacing and directions agree, and the offset is a
        whole number of voxels.

    Returns
    -------
    box
        One slice an axis, inside `whole`. None if the shapes are equal, if a file does not say
        where its voxels lie, or if the voxels are not those of such a box.
    """
    shape, length = part.array.shape, whole.array.shape
    from_whole, from_part = _stated_affine(whole), _stated_affine(part)
    if shape == length or from_whole is None or from_part is None:
        return None
    try:
        to_whole = np.linalg.solve(from_whole, from_part)
    except np.linalg.LinAlgError:  # a spacing of 0
        return None
    if not np.isfinite(to_whole).all():
        return None
    start = np.rint(to_whole[:3, 3])
    # An affine map is furthest from another one in a corner; n, for there may be one plane only.
    corners = np.array(list(itertools.product(*((0, n) for n in shape))))
    off = corners @ to_whole[:3, :3].T + to_whole[:3, 3] - (corners + start)
    if np.abs(off).max() > tolerance or (start < 0).any() or (start + shape > length).any():
        return None
    x, y, z = (slice(int(a), int(a) + n) for a, n in zip(start, shape, strict=True))
    return x, y, z


def paste(part: Volume, box: tuple[slice, slice, slice], whole: Volume) -> Volume:
    """Return `part` on the grid of `whole`: its array in `box`, 0 elsewhere.

    The array has the dtype and memory order of `part`, and the path is its own: it is what messages
    have to name.
    """
    order: Literal["F", "C"] = "F" if part.array.flags.f_contiguous else "C"
    # numpy.zeros takes no memory for pages that nothing is written to.
    array = np.zeros(whole.array.shape, part.array.dtype, order)
    array[box] = part.array
    return Volume(array, whole.affine, part.path, whole.header, part.notes)


def _stated_affine(volume: Volume) -> NDArray[np.float64] | None:
    """Return the affine if the file states it; of a NIfTI file without codes it is a guess."""
    header = volume.header
    if header is not None and header["sform_code"] <= 0 and header["qform_code"] <= 0:
        return None
    return volume.affine


def _parts(affine: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        direction = np.where(spacing > 0, affine[:3, :3] / spacing, 0.0)
    return {"spacing": spacing, "origin": affine[:3, 3], "direction": direction}


def _show(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values.T.ravel()) + ")"
