"""MetaImage files, .mha and .mhd, through SimpleITK (``pip install 'twintrack[mha]'``)."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.files import naming, replacing
from twintrack.volumes.geometry import Volume
from twintrack.volumes.streams import MAX_DEFLATE_RATIO

# ITK counts x and y towards left and posterior, NIfTI towards right and anterior.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_metaimage(path: Path) -> Volume:
    """Read a MetaImage file; axes (x, y, z), x fastest in memory, affine in RAS+.

    Raises
    ------
    ImportError
        SimpleITK is not installed.
    ValueError
        Truncated, corrupt, not three axes or not real numbers; the message names `path`.
    """
    sitk = _simpleitk(path)
    affine = read_metaimage_header(path)[1]
    with naming(path):
        array: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
        return Volume(array, affine, path)


def read_metaimage_header(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Read shape and affine (RAS+, mm) without the voxels."""
    sitk = _simpleitk(path)
    with naming(path):
        file_size = path.stat().st_size  # a missing file is named by this, not by ITK
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        shape = tuple(int(length) for length in reader.GetSize())
        pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        if len(shape) != 3 or reader.GetNumberOfComponents() != 1 or "complex" in pixel:
            raise ValueError(f"{shape} pixels of type {pixel!r}; one 3-D volume is needed")
        # One byte a voxel at least. An .mhd keeps its voxels in another file.
        if path.suffix.lower() == ".mha" and math.prod(shape) > file_size * MAX_DEFLATE_RATIO:
            raise ValueError(f"corrupt: {shape} voxels do not fit into {file_size:,} bytes")
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
        affine[:3, 3] = reader.GetOrigin()
        return shape, _LPS_TO_RAS @ affine


def write_metaimage(path: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write a compressed MetaImage file; `array` has axes (x, y, z)."""
    sitk = _simpleitk(path)
    image = sitk.GetImageFromArray(array.T)
    lps = _LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    with naming(path):
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    with replacing(path, array.nbytes) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OSError(errno.EIO, str(error).splitlines()[-1].strip()) from error


def _simpleitk(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            f"{path}: MetaImage files need SimpleITK: pip install 'twintrack[mha]'"
        ) from error
    return SimpleITK
