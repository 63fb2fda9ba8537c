"""Which axes of a file are x, y and z and which one holds channels, and one volume of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.volumes.geometry import Volume
from twintrack.volumes.nnunet_files import holds_regions

_CHUNK = 1 << 20

# Probabilities of classes add up to 1, within what storing them in 8 bits takes away.
_SUM_TOLERANCE = 0.05

# Where they add up to 1 along no axis, a first axis that is so much shorter than the last one holds
# the channels.
_MUCH_SHORTER = 4

_LARGEST_SUM = 1 + 1e-3


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds, its axes as they are stored.

    Attributes
    ----------
    array
        Of any number of axes; one without values where the header alone was read.
    affine_of
        Takes the three axes that are x, y, z, counted without that of the channels where the format
        itself says which one that is. Returns the (4, 4) index to mm in RAS+, None if not stated.
    header
        The NIfTI header.
    channels
        The axis that the format itself says holds channels; None where it does not.
    step
        Distance of the values that can be stored; 0 for floating point.
    stated
        As in `Volume`.
    """

    array: NDArray[Any]
    affine_of: Callable[[Sequence[int]], NDArray[np.float64] | None]
    header: Any = None
    channels: int | None = None
    step: float = 0.0
    stated: bool = True


class _Reading(NamedTuple):
    """One way to take the axes of an array; all others have length 1."""

    space: tuple[int, int, int]
    channel: int


def volume_of(stored: Stored, path: Path, tumour: Sequence[int], advice: str = "") -> Volume:
    """Return the one volume (x, y, z) that a file holds, or that its channels are merged into.

    Axes of length 1 are added or taken away until three are left. Where more are, one of them holds
    channels: the one that the format names; else the last or the first, along which the
    probabilities of classes add up to 1; else the last one if it is shorter than the first, or the
    first one if it is at most a quarter of the last.

    Parameters
    ----------
    stored, path
        What the file holds, and its name for messages.
    tumour
        Channels to merge into one score, as `merge_rule` does; of one channel that one is the
        score. () where one volume is wanted and several are an error.
    advice
        What to do where there are several.

    Raises
    ------
    InputError
        Several volumes where one is wanted, or of integers, or another number of axes; channels
        that do not exist, may be on two axes, or add up to more than 1.
    """
    array = _spread(stored)
    shape = array.shape
    if len(shape) == 3:
        return _volume(stored, path, array, (0, 1, 2))
    if stored.channels is None:
        readings = _readings(shape)
    else:
        readings = [_Reading((0, 1, 2), 3)] if len(shape) == 4 else []
    single = [reading for reading in readings if shape[reading.channel] == 1]
    may_be_merged = bool(tumour and readings and array.dtype.kind == "f")
    if not may_be_merged and not single:
        kind = f" of {array.dtype}, which is no probability" if tumour and readings else ""
        raise InputError(
            f"has the shape {_shown(stored, shape)}, several volumes in one{kind}; one 3-D volume "
            "is needed",
            file=path,
            advice=advice or "write each into a file of its own",
        )
    if not may_be_merged:
        return _volume(stored, path, _channel(array, single[0], 0), single[0].space)
    reading, adds_up = _score_reading(array, readings, path)
    if shape[reading.channel] == 1:
        return _volume(stored, path, _channel(array, reading, 0), reading.space, shape)
    merged = _merged(stored, array, reading, path, tumour, adds_up)
    first = shape if reading.channel < 3 else None
    return _volume(stored, path, merged, reading.space, first)


def channel_count(shape: Sequence[int], certain: int | None) -> int:
    """Return how many channels an array of this shape most likely has, judged by it alone."""
    if certain is not None:
        return shape[certain]
    lengths = list(shape)
    while len(lengths) > 3 and lengths[-1] == 1:
        lengths.pop()
    readings = _readings(tuple(lengths)) if len(lengths) > 3 else []
    return min((lengths[reading.channel] for reading in readings), default=1)


def merge_rule(
    path: Path, classes: Sequence[int], adds_up: bool = False, step: float = 0.0
) -> Callable[[Iterator[NDArray[Any]]], NDArray[Any]]:
    """Return what makes one score of the probabilities of `classes`, as the pipeline does.

    Classes are added up; of regions the highest probability counts, for they may overlap.

    Parameters
    ----------
    path
        The ``dataset.json`` beside it tells which they are.
    classes
        Channels.
    adds_up
        Whether all channels of the file add up to 1, so that without a ``dataset.json`` they are
        classes.
    step
        Distance of the values that can be stored; see `Stored`.

    Raises
    ------
    ValueError
        There are several, and nothing tells which they are.
    """

    def added(terms: Iterator[NDArray[Any]]) -> NDArray[Any]:
        return _sum_classes(terms, step)

    if len(classes) == 1:
        return added
    regions = holds_regions(path)
    if regions is None and not adds_up:
        raise InputError(
            f"nothing tells whether tumour={tuple(classes)} are classes, whose probabilities add "
            "up, or regions, of which the highest counts; put nnU-Net's dataset.json beside it"
        )
    return _highest if regions else added


def check_channels(classes: Sequence[int], count: int) -> tuple[int, ...]:
    """Return which of `count` channels to merge, in their order; raises unless there are such.

    A single channel is the score itself, whatever is asked for.
    """
    if not classes or len(set(classes)) < len(classes):
        raise InputError(f"tumour={tuple(classes)} must list each tumour class once")
    if count == 1:
        return (0,)
    for label in classes:
        if not 0 <= label < count:
            raise InputError(f"tumour={tuple(classes)}: class {label} is not in 0..{count - 1}")
    return tuple(sorted(classes))


def _spread(stored: Stored) -> NDArray[Any]:
    """Return the array with three axes, or with four or more of which the last is not 1 long.

    Where the format says which axis holds channels that one is the last.
    """
    array, known = stored.array, stored.channels
    if known is not None:
        array = np.moveaxis(array, known, -1)
        while array.ndim < 4:
            array = np.expand_dims(array, array.ndim - 1)
        while array.ndim > 4 and array.shape[-2] == 1:
            array = array[..., 0, :]
    while array.ndim < 3:
        array = array[..., np.newaxis]
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _readings(shape: tuple[int, ...]) -> list[_Reading]:
    """Return the ways to take four axes or more: channels last, as NIfTI has them, and first."""
    found = []
    n = len(shape)
    if all(length == 1 for length in shape[3:-1]):
        found.append(_Reading((0, 1, 2), n - 1))
    if all(length == 1 for length in shape[: n - 4]):
        found.append(_Reading((n - 3, n - 2, n - 1), n - 4))
    return found


def _score_reading(
    array: NDArray[Any], readings: Sequence[_Reading], path: Path
) -> tuple[_Reading, bool]:
    """Return which axis holds the channels of a score, and whether they add up to 1."""
    lengths = array.shape
    adding = [r for r in readings if lengths[r.channel] > 1 and _adds_up(array, r.channel)]
    if len(adding) == 1:
        return adding[0], True
    if len(readings) == 1:
        return readings[0], False
    last, first = readings
    if not adding and lengths[last.channel] < lengths[first.channel]:
        return last, False
    if not adding and _MUCH_SHORTER * lengths[first.channel] <= lengths[last.channel]:
        return first, False
    ways = " or ".join(
        f"{lengths[r.channel]} of {tuple(lengths[axis] for axis in r.space)} voxels"
        for r in readings
    )
    raise InputError(
        f"its shape {lengths} may be that of {ways}, and probabilities add up to 1 along "
        f"{'both' if adding else 'neither'} of the axes that may hold channels",
        file=path,
        advice="save the score alone, with three axes (x, y, z)",
    )


def _adds_up(array: NDArray[Any], axis: int) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        total = array.sum(axis=axis, dtype=np.float32)
        return bool(np.abs(total - 1, out=total).max() <= _SUM_TOLERANCE)


def _merged(
    stored: Stored,
    array: NDArray[Any],
    reading: _Reading,
    path: Path,
    tumour: Sequence[int],
    adds_up: bool,
) -> NDArray[Any]:
    try:
        tumour = check_channels(tumour, array.shape[reading.channel])
        merge = merge_rule(path, tumour, adds_up, stored.step)
    except ValueError as error:
        raise InputError.of(error, file=path) from error
    terms = (np.array(_channel(array, reading, k), order="F") for k in tumour)
    merged = merge(terms)
    if len(tumour) > 1 and merged.max() > _LARGEST_SUM:
        x, y, z = (int(i) for i in np.unravel_index(np.argmax(merged), merged.shape))
        raise InputError(
            f"its channels {tuple(tumour)} add up to more than 1, as probabilities of "
            "classes do not",
            file=path,
            voxel=(x, y, z),
            value=float(merged[x, y, z]),
            advice="choose one of them with --tumour (in Python tumour=), or put a dataset.json "
            "beside the file that says that they are regions",
        )
    return merged


def _channel(array: NDArray[Any], reading: _Reading, number: int) -> NDArray[Any]:
    at: list[Any] = [0] * array.ndim
    for axis in reading.space:
        at[axis] = slice(None)
    at[reading.channel] = number
    channel: NDArray[Any] = array[tuple(at)]
    return channel


def _volume(
    stored: Stored,
    path: Path,
    array: NDArray[Any],
    space: tuple[int, int, int],
    first: Sequence[int] | None = None,
) -> Volume:
    """Return the volume; `first` is the shape where the channels are taken to be the first axis."""
    notes = () if first is None else (f"its shape {tuple(first)} is read as (channel, x, y, z)",)
    if min(array.shape) < 1:
        raise InputError(f"has the shape {stored.array.shape}: no voxels", file=path)
    return Volume(array, stored.affine_of(space), path, stored.header, notes, stated=stored.stated)


def _shown(stored: Stored, shape: tuple[int, ...]) -> str:
    return f"{shape[:-1]} x {shape[-1]} channels" if stored.channels is not None else str(shape)


def _highest(terms: Iterator[NDArray[Any]]) -> NDArray[Any]:
    highest = next(terms)
    for term in terms:
        np.maximum(highest, term, out=highest)
    return highest


def _sum_classes(terms: Iterator[NDArray[Any]], step: float) -> NDArray[Any]:
    total = next(terms)
    # Softmax is computed in float32 or less, whatever it is stored in.
    rounding = max(float(np.finfo(dtype).eps) for dtype in (total.dtype, np.float32))
    count = 1
    for term in terms:
        if total.dtype == np.float16:  # 16 bits would lose small terms beside large ones
            total = total.astype(np.float32)
        total += term
        count += 1
    if count > 1:
        limit = 1 + count * (rounding + step / 2)
        flat = total.reshape(-1, order="A")
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            np.copyto(part, 1, where=(part > 1) & (part <= limit))
    return total
