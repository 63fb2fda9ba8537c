"""Images with their geometry, and the resampling for the coarse network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from twintrack.arrays.host import refuse_masked
from twintrack.errors import InputError
from twintrack.volumes import Volume, check_same_geometry, read_volume

Triple = tuple[float, float, float]

_SPACING_ROUNDING = 1e-5  # of float32 numbers, nine of which make the affine


@dataclass(frozen=True, eq=False)
class Image:
    """The channels of one case on one grid.

    Attributes
    ----------
    channels
        C arrays (x, y, z) of one shape, in the dtype of their files.
    place
        A volume of the same shape: geometry, and the header that outputs repeat.
    """

    channels: tuple[NDArray[Any], ...]
    place: Volume

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        x, y, z = self.channels[0].shape
        return x, y, z

    @property
    def spacing(self) -> Triple:
        """Voxel size in mm along x, y, z, to the last bit as nnU-Net has it.

        The affine's, up to rounding: an oblique one does not give back the number that it was made
        from. Where a length × spacing ÷ network spacing lies at a half, that decides between two
        sizes of the network's grid, and so between two scores.
        """
        size = self.place.spacing
        if self.place.header is not None:
            stated = tuple(float(length) for length in self.place.header.get_zooms()[:3])
            if np.allclose(stated, size, rtol=_SPACING_ROUNDING, atol=0):  # stored as float32
                x, y, z = stated
                return x, y, z
        x, y, z = (float(f"{length:.12g}") for length in size)  # MetaImage: written as text
        return x, y, z

    def patient_axes(self) -> tuple[int, int, int]:
        """Return which patient axis each array axis runs along.

        0 is left-right, 1 front-back, 2 head-feet; of an oblique axis the closest.
        """
        x, y, z = (int(axis) for axis in io_orientation(self.place.affine)[:, 0])
        return x, y, z

    def canonical(self) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """Return which array axis to take as x, y, z for RAS, and which of these to flip."""
        turned = io_orientation(self.place.affine)[:, 1] < 0
        x, y, z = (int(axis) for axis in np.argsort(self.patient_axes()))
        return (x, y, z), (turned[x], turned[y], turned[z])


def read_image(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Image:
    """Read the channels of a case, one file each.

    Raises
    ------
    FileNotFoundError, OSError
        A file is missing or cannot be read.
    ValueError
        A file is corrupt, not one 3-D volume, not finite, without a usable place in space, or on
        another grid than the first.
    """
    files = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not files:
        raise InputError("an image needs at least one file")
    volumes = [read_volume(Path(file), ()) for file in files]
    for volume in volumes[1:]:
        check_same_geometry(volumes[0], volume)
    check_place(volumes[0])
    image = Image(tuple(volume.array for volume in volumes), volumes[0])
    for volume in volumes:
        check_finite(volume.array, str(volume))
    return image


def as_image(array: NDArray[Any], affine: NDArray[np.float64] | None) -> Image:
    """Take an array (x, y, z), or (C, x, y, z), and its voxel index to mm RAS+ affine as an image.

    Raises
    ------
    ValueError
        Wrong number of axes, an empty array, no affine or an unusable one, a voxel that is not
        finite.
    """
    refuse_masked(array, "image")
    array = np.asarray(array)
    if array.ndim not in (3, 4) or not array.size or array.dtype.kind not in "iuf":
        raise InputError(
            f"image has shape {array.shape} and dtype {array.dtype}; it must be real numbers "
            "(x, y, z), or (C, x, y, z) for several channels"
        )
    channels = tuple(array) if array.ndim == 4 else (array,)
    if affine is None:
        raise InputError(
            "affine is None; an array needs it, for the networks look at voxels of a known size: "
            "numpy.eye(4) are voxels of 1 mm"
        )
    matrix = np.asarray(affine, np.float64)
    if not _usable(matrix):
        raise InputError(f"affine is {matrix.tolist()}; it must be an invertible (4, 4) matrix")
    for channel in channels:
        check_finite(channel, "image")
    return Image(channels, Volume(channels[0], matrix))


def check_place(volume: Volume) -> None:
    """Raise if the header says no place at all: distances in it would mean nothing."""
    if volume.affine is None:
        raise InputError(
            "says nothing of the voxels' size and place, which the networks need; give "
            "the image as NIfTI or MetaImage",
            file=str(volume),
        )
    if not _usable(volume.affine):
        raise InputError(
            f"its header maps voxels to millimetres by {volume.affine[:3].tolist()}, "
            "which no image can have; mend its sform and qform (MetaImage: spacing and direction)",
            file=str(volume),
        )


def _usable(affine: NDArray[np.float64]) -> bool:
    return affine.shape == (4, 4) and bool(np.isfinite(affine).all() and np.linalg.det(affine))


def spacing_note(volume: Volume) -> str | None:
    """Return what to say of a NIfTI header that gives two voxel sizes, or None if it gives one.

    The affine's is used here: outputs and distances follow it. nnU-Net's readers, SimpleITK's and
    nibabel's, follow pixdim, except for an image that `NibabelIOWithReorient` has to turn.
    """
    if volume.header is None:
        return None
    pixdim = tuple(float(length) for length in volume.header.get_zooms()[:3])
    if np.allclose(pixdim, volume.spacing, rtol=0.01):
        return None
    ours, theirs = (" x ".join(f"{x:.4g}" for x in sizes) for sizes in (volume.spacing, pixdim))
    return (
        f"{volume}: its header gives voxels of {ours} mm by its sform, which are used, and of "
        f"{theirs} mm by pixdim, which nnU-Net uses: the networks see it in another size than in "
        "nnU-Net; mend the header if pixdim is right"
    )


def check_finite(array: NDArray[Any], name: str) -> None:
    """Raise for the first voxel that is not finite; it would make the whole patch so."""
    if array.dtype.kind != "f":
        return
    for index in range(array.shape[2]):
        slab = array[..., index]
        # A sum is finite only if everything is; the exact look is needed for large values alone.
        if not np.isfinite(slab.sum(dtype=np.float64)):
            wrong = np.argwhere(~np.isfinite(slab))
            if len(wrong):
                i, j = (int(value) for value in wrong[0])
                raise InputError(
                    f"voxel ({i}, {j}, {index}) is {slab[i, j]}; images must be finite", file=name
                )


def resample_image(
    array: NDArray[Any], spacing: Sequence[float], new_spacing: Sequence[float]
) -> NDArray[np.float32]:
    """Resample (z, y, x) by cubic B-splines, as PANORAMA's baseline does for its coarse network.

    The first voxels' centres coincide; ``round(length × spacing / new_spacing)`` voxels an axis.
    Beyond the last voxel's centre the lowest value of the image is filled in.
    """
    import SimpleITK as sitk  # noqa: N813 - its usual name

    image = sitk.GetImageFromArray(np.ascontiguousarray(array, np.float32))
    image.SetSpacing([float(value) for value in reversed(list(spacing))])
    resample = sitk.ResampleImageFilter()
    resample.SetSize(list(reversed(_new_shape(array.shape, spacing, new_spacing))))
    resample.SetOutputSpacing([float(value) for value in reversed(list(new_spacing))])
    resample.SetInterpolator(sitk.sitkBSpline)
    resample.SetDefaultPixelValue(float(array.min()))
    result: NDArray[np.float32] = sitk.GetArrayFromImage(resample.Execute(image))
    return result


def resample_labels(
    array: NDArray[Any], spacing: Sequence[float], new_spacing: Sequence[float]
) -> NDArray[Any]:
    """Give each voxel of `resample_image`'s grid the label of the nearest voxel."""
    picks = [
        np.clip(np.rint(np.arange(count) * (new / old)), 0, length - 1).astype(np.intp)
        for count, length, old, new in zip(
            _new_shape(array.shape, spacing, new_spacing),
            array.shape,
            spacing,
            new_spacing,
            strict=True,
        )
    ]
    labels: NDArray[Any] = array[np.ix_(*picks)]
    return labels


def _new_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> list[int]:
    return [
        max(1, round(length * old / new))
        for length, old, new in zip(shape, spacing, new_spacing, strict=True)
    ]
