"""Volumes read forwards, a few planes at a time, for those that are larger than memory."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.bounds import set_roundings, told
from twintrack.files import naming, split_suffix
from twintrack.volumes.channels import merge_rule, volume_of
from twintrack.volumes.class_probabilities import compare_with_segmentation, place_probabilities
from twintrack.volumes.geometry import Volume, ghost, with_first_planes
from twintrack.volumes.grid import Placement, copied_to_box
from twintrack.volumes.nifti import NiftiHeader, nifti_slabs, open_nifti, read_nifti
from twintrack.volumes.numpy_files import open_array
from twintrack.volumes.reading import (
    depths_of,
    labels_of,
    read_volume,
    require_score_type,
    slices_of,
)
from twintrack.volumes.streams import ByteStream

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
    _whole: Callable[[], Volume] | None = None

    def whole(self) -> Volume:
        """Return the volume in memory, or mapped into it; raises as `slabs`."""
        if self._whole is not None:
            return self._whole()
        (array,) = self.slabs(self.place.array.shape[2])
        return replace(self.place, array=array, notes=tuple(self.notes))

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
        place = replace(self.place, array=ghost(self.place.array.shape, dtype))

        def whole() -> Volume:
            volume = self.whole()
            (array,) = change(iter([volume.array]))
            return replace(volume, array=array)

        return VolumeSlabs(place, lambda depths: change(self._read(depths)), self.notes, whole)

    def placed(self, placement: Placement, first: Sequence[int], place: Volume) -> VolumeSlabs:
        """Return the voxels of a box of the grid that the volume lies on, 0 where it has none.

        Planes that lie outside of the box are read too, as checksums need them. A volume whose
        planes are none of the grid is read whole.

        Parameters
        ----------
        placement
            Where the volume lies on the grid.
        first
            Index on the grid of the first voxel of the box.
        place
            Another volume of that box: its shape and affine are taken.
        """
        own, shape = self.place, place.array.shape
        x, y, z = shape
        if not placement.turned and placement.start == tuple(first) and placement.shape == shape:
            return self

        def moved(plane: int, planes: int) -> Placement:
            sx, sy, _ = placement.start
            return Placement(placement.turn, (sx, sy, plane), (*placement.shape[:2], planes))

        def whole() -> Volume:
            volume = self.whole()
            array = copied_to_box(volume.array, placement, first, (x, y, z))
            return Volume(array, place.affine, own.path, own.header, volume.notes)

        def read(depths: Sequence[int]) -> Iterator[NDArray[Any]]:
            most, offset = max(depths), placement.start[2] - first[2]
            ends = np.cumsum([0, *depths])
            # The planes of each slab that the volume has, and those before and behind the box.
            own_ends = np.clip(ends - offset, 0, placement.shape[2])
            before, behind = int(own_ends[0]), placement.shape[2] - int(own_ends[-1])
            inside = [int(n) for n in np.diff(own_ends)]
            lead, rest = depths_of(before, most), depths_of(behind, most)
            slabs = self._read([*lead, *(n for n in inside if n), *rest])
            for _ in lead:
                next(slabs)
            for start, depth, planes, low in zip(ends, depths, inside, own_ends, strict=False):
                corner = (*first[:2], int(start) + first[2])
                if planes:
                    at = moved(int(low) + placement.start[2], planes)
                    yield copied_to_box(next(slabs), at, corner, (x, y, depth))
                else:
                    yield np.zeros((x, y, depth), own.array.dtype, "F")
            for _ in slabs:
                pass

        there = Volume(ghost(shape, own.array.dtype), place.affine, own.path, own.header)
        if not placement.keeps_planes:
            return VolumeSlabs(
                there, lambda ends: slices_of(whole().array)(ends), self.notes, whole
            )
        return VolumeSlabs(there, read, self.notes, whole)


def open_slabs(path: str | os.PathLike[str], tumour: Sequence[int] = (1,)) -> VolumeSlabs:
    """Open a volume to be read in slabs, with the values that `read_volume` gives.

    NIfTI of three axes, compressed or not, and nnU-Net's class probabilities take the memory of a
    slab; an .npy file is mapped. Other files are read whole, and so are class probabilities if
    nnU-Net's reader has stored other planes than the file, or in another order.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        As `read_volume`, as far as the header tells.
    """
    path = Path(path)
    suffix = split_suffix(path.name)[1]
    if suffix in (".nii", ".nii.gz"):
        header = open_nifti(path)
        if len(header.shape) == 3:
            return _nifti(path, header)
    if suffix == ".npz" and tumour:
        found = _class_probabilities(path, tuple(tumour))
        if found is not None:
            return found
    volume = read_volume(path, tumour)
    return VolumeSlabs(volume, slices_of(volume.array), list(volume.notes), lambda: volume)


def open_score(path: str | os.PathLike[str], tumour: Sequence[int] = (1,)) -> VolumeSlabs:
    """Open a score, as `read_score` reads it.

    Slabs, which are in the cache, have roundings outside [0, 1] set to the bound; `whole` leaves
    them to who uses it, for a look at a volume in memory takes time.
    """
    score = open_slabs(path, tumour)
    require_score_type(score.place)
    notes, own = score.notes, list[str]()

    def bounded(slabs: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        total = 0
        for slab in slabs:
            within, count = set_roundings(slab)
            total += count
            yield within
        # What is told is of the last reading, and of all of it.
        notes[:] = [note for note in notes if note not in own] + ([told(total)] if total else [])
        own[:] = [told(total)]

    return replace(score.changed(bounded, score.place.array.dtype), _whole=score.whole)


def open_label_map(path: str | os.PathLike[str]) -> VolumeSlabs:
    """Open a label map, as `read_label_map` reads it."""
    stored = open_slabs(path, ())

    def as_labels(slabs: Iterator[NDArray[Any]]) -> Iterator[NDArray[np.uint8]]:
        for first, slab in with_first_planes(slabs):
            yield labels_of(slab, stored.place, first)

    return stored.changed(as_labels, np.dtype(np.uint8))


def _nifti(path: Path, header: NiftiHeader) -> VolumeSlabs:
    dtype = header.scaled(np.empty(0, header.dtype.newbyteorder("="))).dtype
    place = volume_of(header.stored(ghost(header.shape, dtype)), path, ())
    return VolumeSlabs(
        place,
        functools.partial(nifti_slabs, path, header),
        [],
        lambda: volume_of(read_nifti(path, header), path, ()),
    )


def _class_probabilities(path: Path, classes: tuple[int, ...]) -> VolumeSlabs | None:
    """Open nnU-Net's (class, z, y, x); None if the archive holds something else."""
    with open_array(path) as stored:
        shape, dtype = stored.shape, stored.dtype
        if len(shape) != 4 or stored.fortran_order:
            return None
        classes = stored.check_classes(classes)
        merge = merge_rule(path, classes)
    placement = place_probabilities(path, shape[:0:-1])
    if not placement.keeps_planes:
        return None
    y, x = shape[2:]

    def open_class(label: int, files: contextlib.ExitStack) -> ByteStream:
        stream = files.enter_context(open_array(path)).stream
        stream.skip(label * math.prod(shape[1:]) * dtype.itemsize)
        return stream

    def read(depths: Sequence[int]) -> Iterator[NDArray[Any]]:
        with naming(path), contextlib.ExitStack() as files:
            streams = [open_class(label, files) for label in classes]
            for depth in depths:
                terms = (
                    stream.read_array(depth * y * x, dtype).reshape(depth, y, x)
                    for stream in streams
                )
                yield placement.turned(merge(terms).T)
            streams[-1].drain()  # the furthest; its checksum is that of the whole entry

    merged = merge(np.zeros((1, 1, 1), dtype.newbyteorder("=")) for _ in classes)
    place = Volume(ghost(placement.shape, merged.dtype), placement.affine, path, placement.header)
    comparison = compare_with_segmentation(
        path, placement, classes, shape[0], read, lambda beside: open_slabs(beside, ())._read
    )
    if comparison is None:
        return VolumeSlabs(place, read, [], lambda: read_volume(path, classes))
    whole = lambda: read_volume(path, classes)  # noqa: E731
    return VolumeSlabs(place, comparison.slabs, comparison.notes, whole)
