"""Writing volumes: geometry kept, scores optionally quantised, files replaced when whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.host import refuse_masked
from twintrack.errors import InputError
from twintrack.files import WRITTEN_SUFFIXES, split_suffix
from twintrack.volumes.geometry import Volume
from twintrack.volumes.metaimage import write_metaimage
from twintrack.volumes.nifti import write_nifti

# Slabs thick enough that a C-ordered array is read in whole cache lines.
_BLOCK_BYTES = 1 << 24

# Largest |read − written| for scores in [0, 1], over what float32 itself rounds away (6e-8).
QUANTISATION_ERROR = {"float32": 0.0, "float64": 0.0, "uint8": 0.5 / 255, "uint16": 0.5 / 65535}


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
    suffix = split_suffix(path.name)[1]
    if suffix not in WRITTEN_SUFFIXES:
        raise InputError("volumes are written as .nii.gz, .nii or .mha", file=path)
    place = like if isinstance(like, Volume) else Volume(array, np.asarray(like, np.float64))
    if place.affine is None:
        raise InputError(
            f"{place} has no geometry to keep; put nnU-Net's segmentation beside the .npz "
            "or pass a (4, 4) affine",
            file=path,
        )
    if array.ndim != 3 or array.shape != place.array.shape:
        raise InputError(
            f"array of shape {array.shape}, but {place.array.shape} of {place}", file=path
        )
    if place.affine.shape != (4, 4):
        raise InputError(f"affine of shape {place.affine.shape}, not (4, 4)", file=path)

    stored, levels = _storage(path, array.dtype, dtype)
    if suffix == ".mha":
        if levels:
            raise InputError(f"MetaImage has no scale factor; write {dtype} as .nii.gz", file=path)
        whole = np.concatenate(list(_blocks(path, array, stored, levels)), axis=2)
        write_metaimage(path, whole, place.affine)
    else:
        blocks = _blocks(path, array, stored, levels)
        write_nifti(path, blocks, array.shape, stored, 1 / levels if levels else 1, place)
    return QUANTISATION_ERROR[stored.name] if levels else 0.0


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
    path: Path, array: NDArray[Any], stored: np.dtype[Any], levels: int
) -> Iterator[NDArray[Any]]:
    """Yield `array` as stored, in slabs along the last axis."""
    step = max(1, _BLOCK_BYTES * array.shape[2] // max(1, array.size * stored.itemsize))
    for start in range(0, array.shape[2], step):
        block = array[..., start : start + step]
        if levels:
            outside = ~((block >= 0) & (block <= 1))  # NaN as well
            _refuse(path, block, outside, start, f"cannot be stored as {stored}: not in [0, 1]")
            scaled = np.multiply(block, levels, dtype=max(block.dtype, np.dtype(np.float32)))
            yield np.rint(scaled, out=scaled).astype(stored)
        else:
            if stored.kind in "iu" and not np.can_cast(block.dtype, stored):
                limits = np.iinfo(stored)
                outside = (block < limits.min) | (block > limits.max)
                _refuse(path, block, outside, start, f"does not fit {stored}")
            yield block.astype(stored, copy=False)


def _refuse(
    path: Path, block: NDArray[Any], outside: NDArray[np.bool_], start: int, why: str
) -> None:
    if outside.any():
        i, j, k = (int(index) for index in np.argwhere(outside)[0])
        raise InputError(
            f"voxel ({i}, {j}, {k + start}) is {block[i, j, k]}, which {why}", file=path
        )
