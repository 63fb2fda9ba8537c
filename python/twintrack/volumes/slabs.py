"""Volumes read forwards, a few planes at a time, for those that are larger than memory."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.files import naming, split_suffix
from twintrack.volumes.class_probabilities import compare_with_segmentation, place_probabilities
from twintrack.volumes.geometry import Volume
from twintrack.volumes.nifti import _check_size, _scaled, read_nifti_header
from twintrack.volumes.numpy_files import (
    _check_classes,
    _find_entry,
    merge_rule,
    open_entry,
)
from twintrack.volumes.reading import depths_of, read_volume, slices_of
from twintrack.volumes.streams import MAX_TRAILING, ByteStream, gunzip, plain

# Takes how many planes each slab has; together they are all planes.
Read = Callable[[Sequence[int]], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class VolumeSlabs:
    """A volume that is read from its first plane to its last, as often as wanted.

    Attributes
    ----------
    place
        Shape, dtype and geometry; its array has no values of its own and takes no memory.
    notes
        What to tell of the file though it can be used, as far as it has been read: all of it when
        the last slab has been taken and asked for another one.
    """

    place: Volume
    _read: Read
    notes: list[str] = field(default_factory=list)

    def slabs(self, planes: int) -> Iterator[NDArray[Any]]:
        """Yield arrays (x, y, `planes`), the last one with what is left.

        Raises
        ------
        ValueError
            Truncated or corrupt; found out when the place is reached, checksums at the end.
        """
        return self._read(depths_of(self.place.array.shape[2], planes))

    def changed(
        self,
        change: Callable[[Iterator[NDArray[Any]]], Iterator[NDArray[Any]]],
        dtype: np.dtype[Any],
    ) -> VolumeSlabs:
        """Return the volume of slabs that `change` makes of each reading; of the same sizes."""
        own = self.place
        place = Volume(_ghost(own.array.shape, dtype), own.affine, own.path, own.header)
        return VolumeSlabs(place, lambda depths: change(self._read(depths)))

    def cropped(self, box: tuple[slice, slice, slice], place: Volume) -> VolumeSlabs:
        """Return the part of the volume inside `box`; `place` is another volume of that part.

        The planes before and behind it are read too, as checksums need them.
        """
        x, y, z = box
        before = z.start
        behind = self.place.array.shape[2] - z.stop

        def read(depths: Sequence[int]) -> Iterator[NDArray[Any]]:
            most = max(depths)
            first, last = depths_of(before, most), depths_of(behind, most)
            slabs = self._read([*first, *depths, *last])
            for number, slab in enumerate(slabs):
                if len(first) <= number < len(first) + len(depths):
                    yield slab[x, y]

        own = self.place
        shape = place.array.shape
        return VolumeSlabs(
            Volume(_ghost(shape, own.array.dtype), place.affine, own.path, own.header), read
        )


def open_slabs(path: str | os.PathLike[str], tumour: Sequence[int] = (1,)) -> VolumeSlabs:
    """Open a volume to be read in slabs, with the values that `read_volume` gives.

    NIfTI, compressed or not, and nnU-Net's class probabilities take the memory of a slab; an .npy
    file is mapped. Other files are read whole, and so are class probabilities if nnU-Net's reader
    has stored other planes than the file, or in another order.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        As `read_volume`, as far as the header tells.
    """
    path = Path(path)
    suffix = split_suffix(path.name)[1]
    if suffix in (".nii", ".nii.gz"):
        return _nifti(path)
    if suffix == ".npz":
        found = _class_probabilities(path, tuple(tumour))
        if found is not None:
            return found
    volume = read_volume(path, tumour)
    return VolumeSlabs(volume, slices_of(volume.array), list(volume.notes))


def _nifti(path: Path) -> VolumeSlabs:
    header = read_nifti_header(path)
    x, y, _ = header.shape
    with naming(path), path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        _check_size(header, path.stat().st_size, compressed)

    def read(depths: Sequence[int]) -> Iterator[NDArray[Any]]:
        with naming(path), path.open("rb") as file:
            stream = ByteStream(gunzip(file) if compressed else plain(file))
            stream.skip(header.offset)
            for depth in depths:
                stored = stream.read_array(x * y * depth, header.dtype)
                yield _scaled(stored, header).reshape((x, y, depth), order="F")
            stream.drain(MAX_TRAILING)

    dtype = _scaled(np.empty(0, header.dtype.newbyteorder("=")), header).dtype
    return VolumeSlabs(Volume(_ghost(header.shape, dtype), header.affine, path, header.nifti), read)


def _class_probabilities(path: Path, classes: tuple[int, ...]) -> VolumeSlabs | None:
    """Open nnU-Net's (class, z, y, x); None if the archive holds something else."""
    with contextlib.ExitStack() as files:
        files.enter_context(naming(path))
        _, shape, fortran_order, dtype = _open_array(path, files)
        if len(shape) != 4 or fortran_order:
            return None
        _check_classes(shape, dtype, classes)
        merge = merge_rule(path, classes)
    placement = place_probabilities(path, shape[:0:-1])
    if not placement.keeps_planes:
        return None
    y, x = shape[2:]

    def open_class(label: int, files: contextlib.ExitStack) -> ByteStream:
        stream = _open_array(path, files)[0]
        stream.skip(label * math.prod(shape[1:]) * dtype.itemsize)
        return stream

    def read(depths: Sequence[int]) -> Iterator[NDArray[Any]]:
        with naming(path), contextlib.ExitStack() as files:
            streams = [open_class(label, files) for label in sorted(classes)]
            for depth in depths:
                terms = (
                    stream.read_array(depth * y * x, dtype).reshape(depth, y, x)
                    for stream in streams
                )
                yield placement.turned(merge(terms).T)
            streams[-1].drain()  # the furthest; its checksum is that of the whole entry

    merged = merge(np.zeros((1, 1, 1), dtype.newbyteorder("=")) for _ in classes)
    place = Volume(_ghost(placement.shape, merged.dtype), placement.affine, path, placement.header)
    comparison = compare_with_segmentation(
        path, placement, classes, shape[0], read, lambda beside: open_slabs(beside)._read
    )
    if comparison is None:
        return VolumeSlabs(place, read)
    return VolumeSlabs(place, comparison.slabs, comparison.notes)


def _open_array(
    path: Path, files: contextlib.ExitStack
) -> tuple[ByteStream, tuple[int, ...], bool, np.dtype[Any]]:
    file = files.enter_context(path.open("rb"))
    archive = files.enter_context(zipfile.ZipFile(file))
    return open_entry(file, _find_entry(archive, None))


def _ghost(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of any shape that takes no memory, for checks of shape and dtype."""
    return np.broadcast_to(np.zeros((), dtype), shape)
