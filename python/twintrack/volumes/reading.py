"""Reading volumes whatever their format."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.files import split_suffix
from twintrack.volumes import nnunet_files, placed_files
from twintrack.volumes.channels import Stored, channel_count, volume_of
from twintrack.volumes.class_probabilities import (
    compare_with_segmentation,
    place_beside,
    place_probabilities,
)
from twintrack.volumes.geometry import Volume
from twintrack.volumes.nrrd import segments
from twintrack.volumes.numpy_files import count_classes, open_array, read_npy, read_npz

_CHUNK = 1 << 20


def read_volume(
    path: str | os.PathLike[str], tumour: Sequence[int] = (1,), key: str | None = None
) -> Volume:
    """Read a volume, with the dtype and memory order of its file.

    Parameters
    ----------
    path
        ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd``, ``.nrrd``, ``.nhdr``, ``.npy`` or ``.npz``.
        Uncompressed ``.nii`` and ``.npy`` files are memory-mapped, copy-on-write.
    tumour
        Channels to add up if `path` holds the probabilities of classes; of several regions the
        highest counts, as nnU-Net's ``dataset.json`` beside it tells (see `merge_rule`). A single
        channel is the score itself. `volume_of` says which axis is that of the channels. () where
        several channels are an error, as in annotations and images.

        An ``.npz`` has axes (class, z, y, x), as nnU-Net writes them. The geometry is that of the
        segmentation beside it (``CASE.nii.gz`` beside ``CASE.npz``), with which the score is
        compared. The order of its axes is that of nnU-Net's reader (see `reader_of`), turned back
        here to the axes of the segmentation. The ``.pkl`` beside it is never opened.
    key
        Name of the array in an ``.npz``; see `read_npz`.

    Returns
    -------
    volume
        Axes (x, y, z) as nibabel orders them. Stored integers with a scale factor become
        float32; nothing else changes its type.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Truncated or corrupt, an unknown format, not one volume of real numbers, or channels of
        which it is not known which axis they are; class
        probabilities whose axes run in an order that is not known, or that fit their segmentation
        clearly better in another one. The message names the file.
    ImportError
        A MetaImage file, and SimpleITK is not installed.
    """
    path = Path(path)
    suffix = split_suffix(path.name)[1]
    if suffix == ".npy":
        return volume_of(Stored(read_npy(path), lambda _: None), path, tumour)
    if suffix == ".npz":
        return _read_npz(path, tumour, key)
    stored, names = placed_files.read_placed(path), segments(path)
    advice = "choose with --label among its segments: " + ", ".join(s.name for s in names)
    return volume_of(stored, path, tumour, advice if names else "")


def count_channels(path: Path) -> int:
    """Return how many channels a score is merged of, as far as shapes tell: 1 of a single volume.

    So it is 1 of a file that cannot be read: who reads it is told what is wrong.

    Raises
    ------
    ValueError
        An ``.npz`` is corrupt, or has several arrays of which none is nnU-Net's.
    """
    suffix = split_suffix(path.name)[1]
    if suffix == ".npz":
        return count_classes(path)
    with contextlib.suppress(OSError, ValueError, ImportError):
        if suffix == ".npy":
            return channel_count(read_npy(path).shape, None)
        stored = placed_files.read_header(path)
        return channel_count(stored.array.shape, stored.channels)
    return 1


def files_read(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files besides `path` that decide what `read_volume` makes of it.

    Of a MetaImage or NRRD file those that hold its voxels, of an ``.npz`` the segmentation and the
    JSON files of nnU-Net beside it; only files that are there. Of a file that cannot be read none:
    who reads it is told what is wrong.
    """
    path = Path(path)
    with contextlib.suppress(OSError, ValueError):
        if split_suffix(path.name)[1] == ".npz":
            beside = nnunet_files.files_read(path)
            return beside + [file for opened in beside for file in files_read(opened)]
        return placed_files.files_read(path)
    return []


def read_score(
    path: str | os.PathLike[str], tumour: Sequence[int] = (1,), key: str | None = None
) -> Volume:
    """Read a tumour probability: floating point, meant to lie in [0, 1].

    Range and NaN are checked where the score is used, in the pass that reads every voxel anyway.

    Raises
    ------
    ValueError
        As `read_volume`; and the file holds unscaled integers, that is a segmentation.
    """
    volume = read_volume(path, tumour, key)
    require_score_type(volume)
    return volume


def require_score_type(volume: Volume) -> None:
    """Raise InputError unless a volume holds floating-point numbers."""
    if volume.array.dtype.kind != "f":
        raise InputError(
            f"holds {volume.array.dtype} without a scale factor: a segmentation, not a "
            "score. Give the probabilities (nnU-Net: --save_probabilities writes CASE.npz)",
            file=str(volume),
        )


def read_labels(path: str | os.PathLike[str], key: str | None = None) -> Volume:
    """Read a rater's or region's annotation in the dtype of its file (int16, float64, …).

    The label values are checked where they are used, in the pass that reads every voxel anyway.
    """
    return read_volume(path, tumour=(), key=key)


def read_label_map(path: str | os.PathLike[str], key: str | None = None) -> Volume:
    """Read a label map, such as the vessels, as uint8.

    Raises
    ------
    ValueError
        As `read_volume`; and a value that is not an integer in 0…255, with its voxel.
    """
    volume = read_labels(path, key)
    return replace(volume, array=labels_of(volume.array, volume))


def labels_of(array: NDArray[Any], place: Volume, first: int = 0) -> NDArray[np.uint8]:
    """Return the labels of a map, or of its planes from `first` on, as uint8.

    Raises
    ------
    InputError
        A value is not an integer in 0…255; names its voxel in `place`.
    """
    if array.dtype in (np.uint8, np.bool_):
        return array.view(np.uint8)
    labels = np.empty_like(array, dtype=np.uint8, subok=False)
    for source, target in zip(_chunks(array), _chunks(labels), strict=True):
        with np.errstate(invalid="ignore"):  # NaN becomes some integer and then differs
            np.copyto(target, source, casting="unsafe")
        if not np.array_equal(source, target):
            raise _first_fault(array, place, first)
    return labels


def _chunks(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Cut `array` into views of about a million voxels along its slowest axis."""
    slowest = int(np.argmax(array.strides))
    rows = np.moveaxis(array, slowest, 0)
    step = max(1, _CHUNK * len(rows) // array.size)
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def _first_fault(array: NDArray[Any], place: Volume, first: int) -> InputError:
    rule = "labels are the integers 0 to 255"
    for k in range(array.shape[2]):
        slab = array[..., k]
        wrong = np.argwhere(~((slab >= 0) & (slab <= 255) & (slab == np.rint(slab))))
        if len(wrong):
            i, j = wrong[0]
            value = slab[i, j].item()
            return InputError(rule, file=place.path, voxel=(i, j, k + first), value=value)
    raise AssertionError("called without a fault")


def _read_npz(path: Path, tumour: Sequence[int], key: str | None) -> Volume:
    with open_array(path, key) as opened:
        stored = opened.shape
    if len(stored) != 4 or not tumour:
        return _with_geometry_beside(read_npz(path, tumour, key), path)
    placement = place_probabilities(path, stored[:0:-1])
    array = placement.turned(read_npz(path, tumour, key))
    comparison = compare_with_segmentation(
        path,
        placement,
        tumour,
        stored[0],
        slices_of(array),
        lambda segmentation: slices_of(read_volume(segmentation, ()).array),
    )
    notes: tuple[str, ...] = ()
    if comparison is not None:
        planes = array.shape[2]
        for _ in comparison.slabs(depths_of(planes, max(1, _CHUNK * planes // array.size))):
            pass
        notes = tuple(comparison.notes)
    return Volume(array, placement.affine, path, placement.header, notes)


def depths_of(planes: int, most: int) -> list[int]:
    """Divide planes into slabs of `most` planes and one of what is left."""
    return [min(most, planes - first) for first in range(0, planes, most)]


def slices_of(array: NDArray[Any]) -> Callable[[Sequence[int]], Iterator[NDArray[Any]]]:
    """Return what yields consecutive slabs (x, y, planes) of an array, of so many planes each."""

    def slices(depths: Sequence[int]) -> Iterator[NDArray[Any]]:
        first = 0
        for depth in depths:
            yield array[..., first : first + depth]
            first += depth

    return slices


def _with_geometry_beside(array: NDArray[Any], path: Path) -> Volume:
    """Give a volume that is stored as (x, y, z), or (x, y), the geometry of a segmentation."""
    volume = volume_of(Stored(array, lambda _: None), path, ())
    beside = place_beside(path)
    if beside is None:
        return volume
    if beside.array.shape != volume.array.shape:
        raise InputError(
            f"shape {volume.array.shape} (x, y, z) differs from {beside.array.shape} of the "
            f"segmentation {beside}; resample one onto the other's grid",
            file=path,
        )
    return replace(beside, array=volume.array, path=path)
