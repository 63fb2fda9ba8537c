"""NIfTI-1 and NIfTI-2 single files, .nii and .nii.gz."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.files import naming, replacing
from twintrack.volumes.channels import Stored
from twintrack.volumes.geometry import Volume
from twintrack.volumes.streams import (
    MAX_DEFLATE_RATIO,
    MAX_TRAILING,
    ByteStream,
    gunzip,
    gzip_into,
    native,
    plain,
)

_PIECE = 1 << 20

# Extensions before the voxels are text and settings.
_LAST_OFFSET = 1 << 26

# What rounding to three digits makes of 1.
_LONGEST_QUATERNION = 1.002

# Typed as Any: nibabel's header classes are not annotated.
_HEADER_CLASSES: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)

_GEOMETRY_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI header says about its voxels.

    Attributes
    ----------
    shape
        Axis lengths: x, y, z, and those after them up to the last that is not 1.
    dtype
        Type of the stored numbers, in the file's byte order.
    offset
        Byte at which the voxels start in the uncompressed file.
    slope, intercept
        Value = slope × stored + intercept; None, None where the stored numbers are the values.
    affine
        Voxel index to mm, RAS+: the sform if it has a code, else the qform, else the spacing.
    nifti
        The nibabel header itself.
    compressed
        Whether the file is gzip.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float | None
    intercept: float | None
    affine: NDArray[np.float64]
    nifti: Any
    compressed: bool

    def scaled(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return the values of stored numbers, in place where they are of that type."""
        if self.slope is None or self.intercept is None:
            return stored
        dtype = np.dtype(np.float64 if stored.dtype == np.float64 else np.float32)
        out = stored if stored.dtype == dtype else None
        values: NDArray[Any] = np.multiply(stored, dtype.type(self.slope), out=out, dtype=dtype)
        if self.intercept:
            values += dtype.type(self.intercept)
        return values

    def stored(self, array: NDArray[Any]) -> Stored:
        """Return an array of this shape as what the file holds."""
        is_scaled = self.dtype.kind != "f" and self.slope is not None
        step = abs(self.slope or 0.0) if is_scaled else 0.0
        return Stored(array, lambda _: self.affine, self.nifti, step=step)

    @property
    def nbytes(self) -> int:
        """Bytes that the voxels take in the uncompressed file."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_nifti(path: Path, header: NiftiHeader | None = None) -> Stored:
    """Read a NIfTI file whole, with as many axes as its header has; `header` of `open_nifti`.

    Stored numbers keep their dtype (in native byte order) and their order in memory, x fastest.
    Numbers with a scale factor become float32, or float64 if they are stored as such. An
    uncompressed file is memory-mapped, copy-on-write: nothing is read before it is used, and
    writing into the array does not change the file. Whether a file is compressed is read from
    its first bytes, not from its name.

    Raises
    ------
    ValueError
        Truncated, corrupt (also by its gzip CRC-32), not NIfTI or not real numbers; the message
        names `path`. Memory is allocated only after the size that the header announces has proved
        possible for the size of the file.
    """
    header = open_nifti(path) if header is None else header
    if header.compressed:
        (planes,) = nifti_slabs(path, header, [math.prod(header.shape[2:])])
        array = planes.reshape(header.shape, order="F")
    else:
        with naming(path):
            mapped = np.memmap(path, np.uint8, "c", header.offset, (header.nbytes,))
            stored = np.asarray(mapped).view(header.dtype)
            stored = native(np.require(stored, requirements=["ALIGNED"]))
            array = header.scaled(stored).reshape(header.shape, order="F")
    return header.stored(array)


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header alone; of a compressed file only the first piece is inflated."""
    with naming(path), path.open("rb") as file:
        return _read_header(*_open_stream(file))


def open_nifti(path: Path) -> NiftiHeader:
    """Read the header of a file that is large enough for its voxels, as far as that can be told."""
    header = read_nifti_header(path)
    with naming(path):
        _check_size(header, path.stat().st_size)
    return header


def nifti_slabs(path: Path, header: NiftiHeader, depths: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield slabs (x, y, planes) of a file that was opened, of so many planes each."""
    x, y = header.shape[:2]
    with naming(path), path.open("rb") as file:
        _, stream = _open_stream(file)
        stream.skip(header.offset)
        for depth in depths:
            stored = stream.read_array(x * y * depth, header.dtype)
            yield header.scaled(stored).reshape((x, y, depth), order="F")
        stream.drain(MAX_TRAILING)


@contextmanager
def nifti_writer(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], slope: float, like: Volume
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Give what writes blocks of voxels as one NIfTI-1 file; gzip if the name ends in .gz.

    It takes consecutive slabs along the last axis, of type `dtype`; x is fastest in the file.

    Parameters
    ----------
    path
        Replaced when the new file is whole.
    slope
        Scale factor to store; 1 when the numbers are the values.
    like
        Source of the geometry: the codes and units of its header, else its affine.
    """
    with naming(path):
        prefix = _header_bytes(shape, dtype, slope, like)
    size = len(prefix) + math.prod(shape) * dtype.itemsize
    compressed = path.name.lower().endswith(".gz")
    with (
        replacing(path, size) as temporary,
        temporary.open("xb") as file,
        gzip_into(file.write) if compressed else nullcontext(file.write) as put,
    ):
        put(memoryview(prefix))

        def write(block: NDArray[Any]) -> None:
            data = block.ravel(order="F").view(np.uint8).data
            for start in range(0, len(data), _PIECE):
                # Pieces that the compressor takes out of the cache.
                put(data[start : start + _PIECE])

        yield write


def _open_stream(file: BinaryIO) -> tuple[bool, ByteStream]:
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return compressed, ByteStream(gunzip(file) if compressed else plain(file))


def _read_header(compressed: bool, stream: ByteStream) -> NiftiHeader:
    start = stream.read(4)
    for make_header in _HEADER_CLASSES:
        size = make_header.sizeof_hdr
        for endianness in ("<", ">"):
            if start == struct.pack(f"{endianness}i", size):
                block = start + stream.read(size - 4)
                if len(block) < size:
                    raise InputError(f"truncated: {len(block)} bytes of its {size}-byte header")
                return _parse_header(make_header(block, endianness), compressed)
    found = f"it starts with the bytes {start.hex(' ')}" if start else "it is empty"
    raise InputError(f"not a NIfTI file: {found}")


def _parse_header(nifti: Any, compressed: bool) -> NiftiHeader:
    if nifti["magic"].item() != nifti.single_magic:
        raise InputError(
            f"its magic is {nifti['magic'].item()!r}, not {nifti.single_magic!r}; "
            "convert .hdr/.img pairs to one .nii file"
        )
    lengths = [int(length) for length in nifti.get_data_shape()]
    if min(lengths, default=0) < 1:
        raise InputError(
            f"its header announces the shape {tuple(lengths)}; one 3-D volume is needed"
        )
    flat = len(lengths) < 3
    lengths += [1] * (3 - len(lengths))  # axes left out have length 1
    while len(lengths) > 3 and lengths[-1] == 1:
        lengths.pop()
    dtype = nifti.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"voxels of type {dtype} cannot be used; store real numbers of 1-8 bytes")
    slope, intercept = nifti.get_slope_inter()
    if (slope, intercept) == (1, 0):
        slope, intercept = None, None
    return NiftiHeader(
        shape=tuple(lengths),
        dtype=dtype,
        offset=_offset(nifti),
        slope=slope,
        intercept=intercept,
        affine=_affine(nifti, flat),
        nifti=nifti,
        compressed=compressed,
    )


def _affine(nifti: Any, flat: bool) -> NDArray[np.float64]:
    """Return the affine; mends a header of two axes, and a quaternion that rounding made too long.

    nibabel refuses such a quaternion; ITK takes it for the turn by 180 degrees that it is.
    """
    fields = ("quatern_b", "quatern_c", "quatern_d")
    quaternion = np.array([float(nifti[field]) for field in fields])
    length = float(np.linalg.norm(quaternion))
    if 1 + nifti.quaternion_threshold <= length**2 <= _LONGEST_QUATERNION**2:
        for field, value in zip(fields, quaternion, strict=True):
            nifti[field] = value / length
    elif not length <= _LONGEST_QUATERNION and nifti["qform_code"] > 0 >= nifti["sform_code"]:
        raise InputError(
            f"corrupt: its quaternion {tuple(quaternion.tolist())} has the length {length:.6g}, "
            "and a rotation has 1 at most"
        )
    affine = np.asarray(nifti.get_best_affine(), np.float64)
    if flat and not affine[:3, 2].any():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1)
        nifti.set_sform(affine)
    return affine


def _offset(nifti: Any) -> int:
    offset = float(nifti["vox_offset"])
    if not math.isfinite(offset):
        raise InputError(f"corrupt: its header puts the voxels at byte {offset}")
    return int(offset) or int(nifti.single_vox_offset)


def _check_size(header: NiftiHeader, file_size: int) -> None:
    if not header.nifti.sizeof_hdr <= header.offset <= _LAST_OFFSET:
        raise InputError(
            f"corrupt: its header puts the voxels at byte {header.offset:,}; they start between "
            f"{header.nifti.sizeof_hdr} and {_LAST_OFFSET:,}"
        )
    needed = header.offset + header.nbytes
    if needed > (file_size * MAX_DEFLATE_RATIO if header.compressed else file_size):
        raise InputError(
            f"truncated or corrupt: {header.shape} voxels of {header.dtype} from byte "
            f"{header.offset} on take {needed:,} bytes, which a{' gzip' * header.compressed} file "
            f"of {file_size:,} bytes cannot hold"
        )


def _header_bytes(
    shape: tuple[int, ...], dtype: np.dtype[Any], slope: float, like: Volume
) -> bytes:
    if max(shape) > 32767:
        raise InputError(f"shape {shape}: an axis of a NIfTI-1 file has at most 32767 voxels")
    nifti = _HEADER_CLASSES[0]()
    nifti.set_data_shape(shape)
    nifti.set_data_dtype(dtype)
    nifti.set_slope_inter(slope, 0)
    if like.header is not None:
        nifti["pixdim"][:4] = like.header["pixdim"][:4]
        for field in _GEOMETRY_FIELDS:
            nifti[field] = like.header[field]
    else:
        nifti.set_qform(like.affine, code="scanner")  # sets the spacing as well
        nifti.set_sform(like.affine, code="scanner")
        nifti.set_xyzt_units("mm")
    buffer = io.BytesIO()
    nifti.write_to(buffer)
    return buffer.getvalue()
