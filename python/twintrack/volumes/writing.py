"""Writing volumes: geometry kept, scores optionally quantised, files replaced when whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.host import refuse_masked
from twintrack.errors import InputError
from twintrack.files import WRITTEN_SUFFIXES, split_suffix
from twintrack.volumes.geometry import Volume
from twintrack.volumes.metaimage import write_metaimage
from twintrack.volumes.nifti import nifti_writer

# Slabs thick enough that a C-ordered array is read in whole cache lines.
_BLOCK_BYTES = 1 << 24

# Largest |read − written| for scores in [0, 1], over what float32 itself rounds away (6e-8).
QUANTISATION_ERROR = {"float32": 0.0, "float64": 0.0, "uint8": 0.5 / 255, "uint16": 0.5 / 65535}


def check_format(ending: str, dtype: str) -> None:
    """Raise unless scores can be written so: see `write_volume`."""
    for name, value, known in (
        ("ending", ending, WRITTEN_SUFFIXES),
        ("dtype", dtype, QUANTISATION_ERROR),
    ):
        if value not in known:
            raise InputError(f"it is one of {', '.join(known)}", argument=name, value=value)
    if ending == ".mha" and dtype.startswith("uint"):
        raise InputError(f"MetaImage (.mha) has no scale factor; write {dtype} as .nii.gz")


def write_volume(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    like: Volume | NDArray[np.float64],
    dtype: str | None = None,
) -> float:
    """Write a score or a label map.

    Parameters
    ----------
    path
        ``.nii``, ``.nii.gz`` or ``.mha``. An existing file is replaced when the new one is whole.
    array
        Shape (x, y, z), any memory order. Floating point: a score. Boolean or integer: labels,
        written as their values.
    like
        Where the voxels lie: a volume of the same shape, whose sform, qform, codes and units are
        repeated, or a (4, 4) affine from voxel index to mm, RAS+.
    dtype
        For scores "float32" (the default), "float64", or "uint8" or "uint16": the integers
        round(score × 255) or round(score × 65535) with scl_slope = 1/255 or 1/65535, so that any
        NIfTI reader gives scores back. For labels an integer type; the default is their own.

    Returns
    -------
    error
        The largest error that the storage type brings to a score: 0.5/255, 0.5/65535, or 0 for
        floating point (which rounds to its own precision) and labels.

    Raises
    ------
    ValueError
        Unknown format or dtype, `like` without geometry or of another shape, a score outside
        [0, 1] that is to be stored as integers, or a label that `dtype` cannot hold.
    OSError
        Writing failed, for instance on a full disk: nothing is left behind, an existing file is
        unharmed, and the message names the file and the space needed.
    """
    refuse_masked(array, "array")
    path = Path(path)
    place = like if isinstance(like, Volume) else Volume(array, np.asarray(like, np.float64))
    if array.ndim != 3 or array.shape != place.array.shape:
        raise InputError(
            f"array of shape {array.shape}, but {place.array.shape} of {place}", file=path
        )
    stored, levels = _storage(path, array.dtype, dtype)
    with _writer(path, place, stored, levels) as write:
        write(array)
    return QUANTISATION_ERROR[stored.name] if levels else 0.0


def slab_writer(
    path: str | os.PathLike[str],
    like: Volume,
    dtype: str | None = None,
    *,
    source: np.dtype[Any] | None = None,
) -> AbstractContextManager[Callable[[NDArray[Any]], None]]:
    """Give what writes a volume slab by slab; the file is the one that `write_volume` writes.

    It takes arrays (x, y, planes), from the first plane to the last. The file appears when the
    block ends well.

    Parameters
    ----------
    path
        As in `write_volume`; ``.mha`` takes the memory of the whole volume.
    like
        Shape and geometry.
    dtype
        As in `write_volume`.
    source
        Type of the slabs, by default that of `like`.

    Raises
    ------
    ValueError, OSError
        As `write_volume`, also while slabs are written.
    """
    path = Path(path)
    return _writer(path, like, *_storage(path, source or like.array.dtype, dtype))


@contextmanager
def _writer(
    path: Path, like: Volume, stored: np.dtype[Any], levels: int
) -> Iterator[Callable[[NDArray[Any]], None]]:
    suffix = split_suffix(path.name)[1]
    if suffix not in WRITTEN_SUFFIXES:
        raise InputError("volumes are written as .nii.gz, .nii or .mha", file=path)
    if like.affine is None:
        raise InputError(
            f"{like} has no geometry to keep; put nnU-Net's segmentation beside the .npz "
            "or pass a (4, 4) affine",
            file=path,
        )
    if like.affine.shape != (4, 4):
        raise InputError(f"affine of shape {like.affine.shape}, not (4, 4)", file=path)
    if suffix == ".mha" and levels:
        raise InputError(f"MetaImage has no scale factor; write {stored} as .nii.gz", file=path)
    first, shape = 0, like.array.shape
    with (
        _metaimage_writer(path, shape, stored, like.affine)
        if suffix == ".mha"
        else nifti_writer(path, shape, stored, 1 / levels if levels else 1, like)
    ) as put:

        def write(slab: NDArray[Any]) -> None:
            nonlocal first
            for block in _blocks(path, slab, first, stored, levels):
                put(block)
            first += slab.shape[2]

        yield write


@contextmanager
def _metaimage_writer(
    path: Path, shape: tuple[int, ...], stored: np.dtype[Any], affine: NDArray[np.float64]
) -> Iterator[Callable[[NDArray[Any]], None]]:
    whole, first = np.empty(shape, stored, order="F"), 0

    def write(block: NDArray[Any]) -> None:
        nonlocal first
        whole[..., first : first + block.shape[2]] = block
        first += block.shape[2]

    yield write
    write_metaimage(path, whole, affine)


def _storage(path: Path, source: np.dtype[Any], dtype: str | None) -> tuple[np.dtype[Any], int]:
    """Choose the stored type, and the number of steps that the integers make from 0 to 1."""
    if source.kind == "f":
        name = dtype or "float32"
        if name not in QUANTISATION_ERROR:
            raise InputError(
                f"dtype={name!r}; scores are stored as {', '.join(QUANTISATION_ERROR)}", file=path
            )
        return np.dtype(name), {"uint8": 255, "uint16": 65535}.get(name, 0)
    stored = np.dtype(dtype or ("uint8" if source.kind == "b" else source.name))
    if source.kind not in "biu" or stored.kind not in "iu":
        raise InputError(f"cannot store {source} as {stored}; labels are integers", file=path)
    return stored, 0


def _blocks(
    path: Path, slab: NDArray[Any], first: int, stored: np.dtype[Any], levels: int
) -> Iterator[NDArray[Any]]:
    """Yield a slab as stored, in blocks along the last axis; `first` is its first plane."""
    step = max(1, _BLOCK_BYTES * slab.shape[2] // max(1, slab.size * stored.itemsize))
    for start in range(0, slab.shape[2], step):
        block = slab[..., start : start + step]
        if levels:
            outside = ~((block >= 0) & (block <= 1))  # NaN as well
            _refuse(path, block, outside, first + start, f"not in [0, 1], as {stored} needs it")
            scaled = np.multiply(block, levels, dtype=max(block.dtype, np.dtype(np.float32)))
            yield np.rint(scaled, out=scaled).astype(stored)
        else:
            if stored.kind in "iu" and not np.can_cast(block.dtype, stored):
                limits = np.iinfo(stored)
                outside = (block < limits.min) | (block > limits.max)
                _refuse(path, block, outside, first + start, f"does not fit {stored}")
            yield block.astype(stored, copy=False)


def _refuse(
    path: Path, block: NDArray[Any], outside: NDArray[np.bool_], first: int, wrong: str
) -> None:
    if outside.any():
        i, j, k = (int(index) for index in np.argwhere(outside)[0])
        raise InputError(wrong, file=path, voxel=(i, j, k + first), value=block[i, j, k].item())
