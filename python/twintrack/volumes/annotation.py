"""Annotations: files of 0 and 1, or those voxels of other files that carry chosen labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.volumes.channels import volume_of
from twintrack.volumes.nrrd import read_nrrd, segments
from twintrack.volumes.reading import slices_of
from twintrack.volumes.slabs import VolumeSlabs, open_slabs

_MOST_NAMED = 20  # labels in a message


UNSEEN = 255
"""What `open_annotation` gives where a rater did not look, if labels are chosen."""


def open_annotation(
    path: Path, label: Sequence[str] = (), ignore_label: int | None = None
) -> VolumeSlabs:
    """Open an annotation, as 0 and 1 where labels are chosen and else as it is stored.

    Parameters
    ----------
    path
        Any volume.
    label
        Values that are the tumour, as "2"; of the segments of a ``.seg.nrrd`` file also names.
        Without one the file has to hold 0 and 1, which is checked where it is used.
    ignore_label
        Value of voxels that the rater did not look at. They have it still if no label is chosen,
        else they are `UNSEEN`.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `open_slabs`; and a label is no whole number, nor the name of a segment of the file.
    """
    if not label:
        return open_slabs(path, ())
    if segments(path):
        return _segments(path, label)
    values = [_value(text, path) for text in label]
    if ignore_label is None:
        return open_slabs(path, ()).changed(
            lambda slabs: _chosen(slabs, values), np.dtype(np.bool_)
        )

    def marked(slabs: Iterable[NDArray[Any]]) -> Iterator[NDArray[np.uint8]]:
        for slab in slabs:
            (chosen,) = _chosen([slab], values)
            yield np.where(slab == ignore_label, np.uint8(UNSEEN), chosen)

    return open_slabs(path, ()).changed(marked, np.dtype(np.uint8))


def labels_found(path: Path) -> str:
    """Return the labels that a file holds, for messages: "0, 1, 2"; reads it."""
    found: set[float] = set()
    for slab in open_slabs(path, ()).slabs(32):
        found |= set(np.unique(slab).tolist())
        if len(found) > _MOST_NAMED:
            return ", ".join(f"{value:g}" for value in sorted(found)[:_MOST_NAMED]) + ", …"
    return ", ".join(f"{value:g}" for value in sorted(found))


def _chosen(slabs: Iterable[NDArray[Any]], values: Sequence[int]) -> Iterator[NDArray[np.bool_]]:
    for slab in slabs:
        chosen = slab == values[0]
        for value in values[1:]:
            chosen |= slab == value
        yield chosen


def _segments(path: Path, label: Sequence[str]) -> VolumeSlabs:
    """Join the segments of a name, or of a value that lies in one layer alone."""
    there = segments(path)
    stored = read_nrrd(path)
    axis = stored.channels
    layers = stored.array[np.newaxis] if axis is None else np.moveaxis(stored.array, axis, 0)
    mask = np.zeros(layers.shape[1:], np.bool_, "F")
    for text in label:
        chosen = [s for s in there if s.name == text] or [s for s in there if str(s.value) == text]
        if len(chosen) != 1 or chosen[0].layer >= len(layers):
            names = ", ".join(f"{s.name} ({s.value})" for s in there)
            found = "several segments" if len(chosen) > 1 else "no segment"
            raise InputError(f"label {text!r} is {found} of it; it has {names}", file=path)
        mask |= layers[chosen[0].layer] == chosen[0].value
    volume = volume_of(replace(stored, array=mask, channels=None), path, ())
    return VolumeSlabs(volume, slices_of(volume.array), [], lambda: volume)


def _value(text: str, path: Path) -> int:
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise InputError(
            f"label {text!r} is no whole number, and the file names no segments", file=path
        )
    return int(text)
