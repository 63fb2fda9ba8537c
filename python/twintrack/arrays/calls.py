"""The arrays of a call that writes a result, converted once: a `HostCall` or a `DeviceCall`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.backend import on_device
from twintrack.arrays.checks import dtype_name, require_output, require_scores
from twintrack.arrays.device import DeviceArray, common_stream, device_array, on_one_device
from twintrack.arrays.host import output_array, score_array, to_numpy
from twintrack.arrays.libraries import (
    device_copy,
    device_kind,
    empty_like,
    library_of,
    refuse_gradient,
    zeros,
)
from twintrack.errors import InputError

# Steps after which NumPy gives up looking for an element that two arrays share.
_SEARCH = 100_000


@dataclass(frozen=True, eq=False)
class HostCall:
    """Views of arrays in host memory.

    Attributes
    ----------
    inputs
        What is read.
    out
        What is written.
    result
        `out` as the caller has it, or gets it.
    """

    inputs: list[NDArray[Any]]
    out: NDArray[Any]
    result: Any


@dataclass(frozen=True, eq=False)
class DeviceCall:
    """The same on a device, with the stream to work on; `held` keeps the memory of the inputs."""

    inputs: list[DeviceArray]
    out: DeviceArray
    result: Any
    stream: int
    held: Any

    @property
    def device(self) -> int:
        """CUDA's number of the device."""
        return self.out.device


Call: TypeAlias = HostCall | DeviceCall
View: TypeAlias = NDArray[Any] | DeviceArray


def open_score(score: Any, out: Any | None = None) -> Call:
    """Return a score and where its map goes: to an array like it, if not to `out`.

    `out` may be `score` itself. If it overlaps it in any other way, a copy of the score is read.

    Raises
    ------
    TypeError, ValueError
        As `open_case` for a score, and if `out` cannot be written to or lies elsewhere.
    """
    if on_device(score=score, out=out):
        result = empty_like(score) if out is None else out
        source, target = on_one_device([("score", score), ("out", result)])
        require_scores(source.dtype, "score")
        _require_output(result, target)
        held = score
        same = source.pointer == target.pointer and source.strides == target.strides
        if not same and _overlap(source, target):
            held = device_copy(score)
            source = device_array(held, "score")
        return DeviceCall([source], target, result, common_stream([source, target]), held)
    read = score_array(score)
    if out is None:
        out = empty_like(score) if library_of(score) == "torch" else np.empty_like(read)
    written = output_array(out)
    same = read.ctypes.data == written.ctypes.data and read.strides == written.strides
    if not same and _overlap(read, written):
        read = read.copy()
    return HostCall([read], written, out)


def open_members(
    members: Sequence[Any], out: Any | None = None, shape: tuple[int, ...] | None = None
) -> Call:
    """Return the members of an ensemble, and where their score goes.

    Parameters
    ----------
    members
        Arrays, channels first.
    out
        Where to write; None for a new float32 array of the members' library.
    shape
        Of a new array, which is then 0; by default it is like a channel of the first member.

    Raises
    ------
    TypeError, ValueError
        There are none, or one has no dtype of scores or no axis of channels; `out` cannot be
        written to, lies elsewhere or overlaps a member.
    """
    there = on_device(members=members, out=out)
    if len(members) == 0:
        raise InputError("members is empty: at least one array is needed")
    if out is None:
        out = _new_score(members[0], shape)
    named = [(f"members[{k}]", member) for k, member in enumerate(members)]
    if there:
        *inputs, target = on_one_device([*named, ("out", out)])
        _require_members(inputs, target)
        _require_output(out, target)
        return DeviceCall(inputs, target, out, common_stream([*inputs, target]), members)
    arrays = [to_numpy(member, name) for name, member in named]
    written = output_array(out)
    _require_members(arrays, written)
    return HostCall(arrays, written, out)


def view_of(array: Any, name: str) -> View:
    """Return what is known of an array's memory, wherever it is."""
    return to_numpy(array, name) if device_kind(array) is None else device_array(array, name)


def share_memory(a: View, b: View) -> bool:
    """Whether an element of one may be an element of the other."""
    if isinstance(a, DeviceArray) or isinstance(b, DeviceArray):
        return _overlap(a, b)
    try:
        return np.shares_memory(a, b, max_work=_SEARCH)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _overlap(a: View, b: View) -> bool:
    """Whether there are addresses between the first and the last element of both."""
    if isinstance(a, DeviceArray) and isinstance(b, DeviceArray):
        (a_low, a_high), (b_low, b_high) = a.extent, b.extent
        return a_low < b_high and b_low < a_high
    both = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return both and np.may_share_memory(a, b)


def _new_score(member: Any, shape: tuple[int, ...] | None) -> Any:
    """Return a float32 array: zeros of a shape, or like a channel of a member."""
    if library_of(member) is None and device_kind(member) is None:
        first = to_numpy(member, "members[0]")
        return np.empty_like(first[0], np.float32) if shape is None else np.zeros(shape, "f4")
    return empty_like(member[0], float32=True) if shape is None else zeros(member, shape)


def _require_members(members: Sequence[View], out: View) -> None:
    for k, member in enumerate(members):
        require_scores(dtype_name(member.dtype), f"members[{k}]", "it must be")
        if not member.shape:
            raise InputError(f"members[{k}] is a single value; its first axis is that of channels")
        if _overlap(member, out):
            raise InputError(f"out overlaps members[{k}] in memory")


def _require_output(out: Any, view: DeviceArray) -> None:
    refuse_gradient(out, view.name)
    require_output(view.name, view.shape, view.strides, view.itemsize, view.writable)
