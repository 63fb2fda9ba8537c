"""MetaImage files, .mha and .mhd, through SimpleITK (``pip install 'twintrack[mha]'``)."""

from __future__ import annotations

import errno
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.files import is_file, naming, replacing
from twintrack.volumes.geometry import Volume
from twintrack.volumes.streams import (
    MAX_DEFLATE_RATIO,
    MAX_TRAILING,
    ByteStream,
    plain,
    zlib_inflate,
)

# ITK counts x and y towards left and posterior, NIfTI towards right and anterior.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_LONGEST_LINE, _LARGEST_HEADER = 1 << 16, 1 << 20  # bytes


def read_metaimage(path: Path) -> Volume:
    """Read a MetaImage file; axes (x, y, z), x fastest in memory, affine in RAS+.

    The voxels are inflated here: ITK returns whatever is in memory when they are damaged.

    Raises
    ------
    ImportError
        SimpleITK is not installed.
    ValueError
        Truncated, corrupt, not three axes or not real numbers; the message names `path`.
    """
    shape, affine, dtype = _read_header(path)
    with naming(path):
        fields, start = _read_fields(path)
        place = fields["ElementDataFile"]
        if fields.get("BinaryData", "True").lower() == "false":
            raise ValueError("its numbers are written as text; save it with BinaryData = True")
        data = path if place.upper() == "LOCAL" else path.with_name(place)
        if not is_file(data):
            raise ValueError(f"its voxels are in another file, {place!r}, which is not there")
        nbytes = math.prod(shape) * dtype.itemsize
        size = data.stat().st_size
        skipped = int(fields.get("HeaderSize", 0))
        if skipped and data != path:
            start = size - nbytes if skipped < 0 else skipped
        msb = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
        compressed = fields.get("CompressedData", "False").lower() == "true"
        if not 0 <= start <= size - (nbytes if not compressed else 0):
            raise ValueError(f"truncated: {nbytes:,} bytes of voxels are not in {data.name}")
        if compressed and nbytes > size * MAX_DEFLATE_RATIO:
            raise ValueError(
                f"corrupt: {nbytes:,} bytes cannot be in {size:,} bytes of {data.name}"
            )
        with data.open("rb") as file:
            file.seek(start)
            stream = ByteStream(zlib_inflate(file) if compressed else plain(file))
            array = stream.read_array(
                math.prod(shape), dtype.newbyteorder(">" if msb.lower() == "true" else "<")
            )
            if compressed:
                stream.drain(MAX_TRAILING)
        return Volume(array.reshape(shape, order="F"), affine, path)


def read_metaimage_header(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Read shape and affine (RAS+, mm) without the voxels."""
    return _read_header(path)[:2]


def files_read(path: Path) -> list[Path]:
    """Return the file that holds the voxels, if it is another one and there."""
    with naming(path):
        data = path.with_name(_read_fields(path)[0]["ElementDataFile"])
    return [data] if data.name.upper() != "LOCAL" and is_file(data) else []


def _read_header(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64], np.dtype[Any]]:
    sitk = _simpleitk(path)
    with naming(path):
        file_size = path.stat().st_size  # a missing file is named by this, not by ITK
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        shape = tuple(int(length) for length in reader.GetSize())
        pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        number = re.fullmatch(r"(\d+)-bit (unsigned integer|signed integer|float)", pixel)
        if len(shape) != 3 or min(shape) < 1 or reader.GetNumberOfComponents() != 1 or not number:
            raise ValueError(f"{shape} pixels of type {pixel!r}; one 3-D volume is needed")
        # One byte a voxel at least. An .mhd keeps its voxels in another file.
        if path.suffix.lower() == ".mha" and math.prod(shape) > file_size * MAX_DEFLATE_RATIO:
            raise ValueError(f"corrupt: {shape} voxels do not fit into {file_size:,} bytes")
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
        affine[:3, 3] = reader.GetOrigin()
        kind = {"unsigned integer": "u", "signed integer": "i", "float": "f"}[number[2]]
        return shape, _LPS_TO_RAS @ affine, np.dtype(f"{kind}{int(number[1]) // 8}")


def _read_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's lines ``key = value`` and the byte at which they end."""
    with path.open("rb") as file:
        fields: dict[str, str] = {}
        while "ElementDataFile" not in fields:
            line = file.readline(_LONGEST_LINE)
            if not line.endswith(b"\n") or file.tell() > _LARGEST_HEADER:
                raise ValueError("corrupt: its header does not end with ElementDataFile = …")
            key, _, value = line.decode("utf-8", "replace").partition("=")
            fields[key.strip()] = value.strip()
        return fields, file.tell()


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
