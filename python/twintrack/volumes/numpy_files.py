"""NumPy files: .npy arrays, .npz archives, and nnU-Net's class probabilities. Never unpickled."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.files import naming
from twintrack.volumes.channels import check_channels, merge_rule
from twintrack.volumes.streams import (
    MAX_DEFLATE_RATIO,
    MAX_TRAILING,
    ByteStream,
    native,
    plain,
    unzip,
)

# The names that nnU-Net gives to its class probabilities: version 2, version 1.
NNUNET_KEYS = ("probabilities", "softmax")

_LONGEST_TEXT = 1 << 10  # bytes


def read_npy(path: Path) -> NDArray[Any]:
    """Map an .npy file into memory, copy-on-write; axes as stored.

    Raises
    ------
    ValueError
        Truncated, not .npy, one axis or not real numbers; the message names `path`.
    """
    with naming(path):
        with path.open("rb") as file:
            _read_npy_header(ByteStream(plain(file)))  # NumPy takes the memory that it announces
        # Unlike numpy.load, open_memmap never goes by the content to another format.
        with np.errstate(over="raise"):
            array: NDArray[Any] = np.asarray(np.lib.format.open_memmap(path, mode="c"))
        _check_dtype(array.dtype)
        _check_axes(array.shape)
        return native(array)


def read_npz(path: Path, classes: Sequence[int], key: str | None = None) -> NDArray[Any]:
    """Read one array of an .npz archive.

    Parameters
    ----------
    path
        Archive written by ``numpy.savez`` or ``numpy.savez_compressed``.
    classes
        Which channels to merge when the array has four axes; see `merge_rule`. Of one channel that
        one is taken, whatever they are. () where the array must be one volume.
    key
        Name of the array; None takes nnU-Net's ``probabilities`` or ``softmax``, else the only
        array of the archive.

    Returns
    -------
    array
        Two or three axes: as stored, (x, y, z). Four axes: nnU-Net's (class, z, y, x), returned as
        the sum over `classes`, or as the highest of several regions, with axes (x, y, z), x fastest
        in memory; no more than two classes are in memory at a time. A sum of several classes that
        passes 1 by no more than the rounding of its terms is set to 1.

    Raises
    ------
    ValueError
        Truncated, corrupt (also by its CRC-32), no such array or class, an array of objects, or
        several classes and nothing that tells how to merge them; the message names `path`.
    """
    with open_array(path, key) as stored:
        _check_dtype(stored.dtype)
        array: NDArray[Any]
        if len(stored.shape) != 4:
            _check_axes(stored.shape, 3)
            array = stored.read()
        elif classes:
            classes = stored.check_classes(classes)
            array = merge_rule(path, classes)(_read_classes(stored, classes)).T
        else:
            array = _one_volume(stored)
        stored.stream.drain()
        return array


def count_classes(path: Path) -> int:
    """Return the number of classes of an .npz of class probabilities; 1 of a single volume.

    Raises
    ------
    ValueError
        Corrupt, or several arrays of which none is nnU-Net's; the message names `path`.
    """
    with open_array(path) as stored:
        return stored.shape[0] if len(stored.shape) == 4 else 1


def read_arrays(path: Path, largest: int) -> dict[str, NDArray[Any]]:
    """Read every array of an .npz archive of numbers and short texts.

    What ``dict(numpy.load(path))`` gives, four times as fast and safe with files of any origin:
    nothing is unpickled, and no memory is taken for what a file of this size cannot hold.

    Parameters
    ----------
    path
        Archive written by ``numpy.savez`` or ``numpy.savez_compressed``.
    largest
        The most bytes that its arrays may take together.

    Raises
    ------
    ValueError
        Truncated, corrupt (also by its CRC-32), larger than `largest`, or an array of objects; the
        message names `path`.
    """
    arrays: dict[str, NDArray[Any]] = {}
    left = largest
    with naming(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            stored = _open_entry(file, entry)
            dtype = stored.dtype
            if dtype.kind not in "biufU" or dtype.itemsize > _LONGEST_TEXT:
                raise InputError(f"{entry.filename!r} holds {dtype}; numbers are expected")
            left -= math.prod(stored.shape) * dtype.itemsize
            if left < 0:
                raise InputError(f"its arrays take more than the {largest:,} bytes that they may")
            arrays[entry.filename.removesuffix(".npy")] = stored.read()
            stored.stream.drain()
    return arrays


class StoredArray(NamedTuple):
    """An array in an archive, open for reading; `stream` is at its first number."""

    stream: ByteStream
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    def read(self) -> NDArray[Any]:
        """Read all of it."""
        array = self.stream.read_array(math.prod(self.shape), self.dtype)
        return array.reshape(self.shape, order="F" if self.fortran_order else "C")

    def check_classes(self, classes: Sequence[int]) -> tuple[int, ...]:
        """Return which classes to read; raises unless it holds the probabilities of these."""
        if self.dtype.kind != "f":
            raise InputError(
                f"class probabilities of type {self.dtype}; they must be floating point"
            )
        if min(self.shape) < 1:
            raise InputError(f"class probabilities of shape {self.shape} hold no voxels")
        return check_channels(classes, self.shape[0])


@contextmanager
def open_array(path: Path, key: str | None = None) -> Iterator[StoredArray]:
    """Open the array of an archive that `read_npz` reads; raises as it does."""
    with naming(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        yield _open_entry(file, _find_entry(archive, key))


def _open_entry(file: BinaryIO, entry: zipfile.ZipInfo) -> StoredArray:
    stream = ByteStream(unzip(file, entry))
    shape, fortran_order, dtype = _read_npy_header(stream)
    if dtype.hasobject:
        raise InputError(f"{entry.filename!r} holds Python objects, which are never unpickled")
    announced = math.prod(shape) * dtype.itemsize
    there = os.fstat(file.fileno()).st_size
    if announced > min(entry.file_size, there * MAX_DEFLATE_RATIO):
        raise InputError(
            f"corrupt: {entry.filename!r} announces {shape} numbers of {dtype}, {announced:,} "
            f"bytes, which its {entry.file_size:,} bytes in a file of {there:,} cannot hold"
        )
    if entry.file_size > announced + MAX_TRAILING:
        raise InputError(
            f"corrupt: {entry.filename!r} has {entry.file_size:,} bytes, but its header announces "
            f"{announced:,}"
        )
    return StoredArray(stream, shape, fortran_order, dtype)


def _find_entry(archive: zipfile.ZipFile, key: str | None) -> zipfile.ZipInfo:
    entries = {
        entry.filename.removesuffix(".npy"): entry
        for entry in archive.infolist()
        if entry.filename.endswith(".npy")
    }
    if key is None:
        candidates = [name for name in NNUNET_KEYS if name in entries] or list(entries)
        if len(candidates) == 1:
            return entries[candidates[0]]
        raise InputError(f"name one of its arrays with key=: {sorted(entries)}")
    if key not in entries:
        raise InputError(f"has no array {key!r}, only {sorted(entries)}")
    return entries[key]


def _read_npy_header(stream: ByteStream) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(stream)
    if version not in read_header:
        raise InputError(f"npy format {version} is not for plain numbers")
    shape, fortran_order, dtype = read_header[version](stream)
    if min(shape, default=0) < 0:
        raise InputError(f"corrupt: its header announces the shape {shape}")
    return shape, fortran_order, dtype


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(f"holds numbers of type {dtype}; store real numbers of 1-8 bytes")


def _check_axes(shape: tuple[int, ...], most: int | None = None) -> None:
    if len(shape) < 2 or len(shape) > (most or len(shape)) or min(shape) < 1:
        raise InputError(f"has the shape {shape}; one 3-D volume (x, y, z) is needed")


def _one_volume(stored: StoredArray) -> NDArray[Any]:
    """Read (1, z, y, x), which nnU-Net's axes are, or (x, y, z, 1)."""
    shape = stored.shape
    if min(shape) < 1 or 1 not in (shape[0], shape[-1]):
        raise InputError(
            f"has the shape {shape}, several volumes in one; one 3-D volume is needed",
            advice="write each into a file of its own",
        )
    array = stored.read()
    return array[0].T if shape[0] == 1 else array[..., 0]


def _read_classes(stored: StoredArray, classes: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield the (z, y, x) probabilities of each wanted class."""
    if stored.fortran_order:  # the classes of a voxel lie side by side: all of them must be read
        whole = stored.read()
        yield from (np.ascontiguousarray(whole[label]) for label in sorted(classes))
        return
    shape = stored.shape[1:]
    for label in range(max(classes) + 1):
        if label in classes:
            yield stored.stream.read_array(math.prod(shape), stored.dtype).reshape(shape)
        else:
            stored.stream.skip(math.prod(shape) * stored.dtype.itemsize)
