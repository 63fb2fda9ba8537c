"""How much memory a case will take, and which cases may be in memory together."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from twintrack.files import naming, split_suffix
from twintrack.volumes.channels import channel_count
from twintrack.volumes.class_probabilities import place_probabilities
from twintrack.volumes.nifti import read_nifti_header
from twintrack.volumes.numpy_files import open_array, read_npy
from twintrack.volumes.placed_files import read_header

# Tallies, tables and buffers of one case, whatever its size: measured below this.
_OVERHEAD = 48 << 20


class MemoryBudget:
    """Lets cases into memory as long as their estimates fit together into a limit.

    Cases are let in in the order in which they ask, so that a large one is not passed over for
    ever. One that is larger than the limit by itself waits until it is alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, size: int) -> int:
        """Wait until `size` bytes fit, and return what was taken: at most the limit."""
        size = min(size, self.limit)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(
                    lambda: self._queue[0] is ticket and self._used + size <= self.limit
                )
                self._used += size
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        return size

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    @contextlib.contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes fit, and hold them during the block."""
        taken = self.take(size)
        try:
            yield
        finally:
            self.give_back(taken)


def case_bytes(files: Mapping[str, Path], slab_voxels: int | None = None) -> int:
    """Estimate from the headers how much memory a case takes while it is worked on.

    Parameters
    ----------
    files
        Role ("score", "rater_1", "vessels", …) to file.
    slab_voxels
        Voxels of a slab where the files are gone through in slabs; None where they are loaded.

    Raises
    ------
    OSError, ValueError
        A header cannot be read; names the file.
    """
    total, voxels = _OVERHEAD, 0
    for path in files.values():
        count, resident, streamable = _volume_bytes(path)
        if slab_voxels is not None and streamable:
            count = min(count, slab_voxels)
            resident = min(resident, 16 * count)  # as stored, and scaled or summed over classes
        total += resident
        voxels = max(voxels, count)
    # A region mask, and a copy of the score or a conversion of a label map.
    return total + 5 * voxels


def count_voxels(path: Path) -> int:
    """Return the voxels that the header of a volume announces; raises as `case_bytes`."""
    return _volume_bytes(path)[0]


def _volume_bytes(path: Path) -> tuple[int, int, bool]:
    """Return the voxels of a file, the bytes they take, and whether it can be read in slabs.

    A mapped file takes none: its pages are dropped by the system when memory is needed.
    """
    suffix = split_suffix(path.name)[1]
    if suffix in (".nii", ".nii.gz"):
        header = read_nifti_header(path)
        stored = math.prod(header.shape)
        voxels = stored // channel_count(header.shape, None)
        scaled = 0 if header.slope is None else 4 * stored
        resident = scaled + (header.nbytes if header.compressed else 0)
        if len(header.shape) == 3:
            return voxels, resident, True
        return voxels, resident + 8 * voxels, False
    with naming(path):
        if suffix == ".npy":
            shape = read_npy(path).shape
            voxels = math.prod(shape) // channel_count(shape, None)
            return voxels, 0 if len(shape) < 4 else 8 * voxels, len(shape) < 4
    if suffix == ".npz":
        return _npz_bytes(path)
    if not suffix:
        return 0, 0, False  # reading it will say what is wrong
    found = read_header(path)
    voxels = found.array.size // channel_count(found.array.shape, found.channels)
    return voxels, found.array.nbytes + 8 * voxels * (found.array.size > voxels), False


def _npz_bytes(path: Path) -> tuple[int, int, bool]:
    """As `_volume_bytes`, of the array that is read: no more than two classes are in memory."""
    with open_array(path) as stored:
        shape, dtype = stored.shape, stored.dtype
    classes = shape[0] if len(shape) == 4 and shape[-1] > 1 else 1
    voxels = math.prod(shape) // max(classes, 1)
    streamable = len(shape) == 4 and not stored.fortran_order
    streamable = streamable and place_probabilities(path, shape[:0:-1]).keeps_planes
    return voxels, voxels * dtype.itemsize * min(classes, 2), streamable
