"""Arrays in CUDA memory: torch, CuPy, and whatever has ``__cuda_array_interface__``.

Arrays are used where they are. Work is queued on the stream that is current in the library of the
array, so it comes after what was queued there before; other streams that arrays of one call were
made on are waited for by the device, not by the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.backend import cuda_module
from twintrack.arrays.checks import mask_value, require_mask_dtype, require_output
from twintrack.arrays.libraries import (
    device_copy,
    device_empty_like,
    device_kind,
    plain_tensor,
    refuse_gradient,
    surely_a_mask,
)
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack import _cuda

SCORE_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class DeviceArray:
    """What kernels need to know of an array.

    Attributes
    ----------
    pointer : address of the first element
    dtype : as NumPy spells it, or "bfloat16"
    shape, strides : strides in bytes
    device : CUDA's number of the device
    stream : handle of the stream that the array's library works on; None if there is no other work
    name : what messages call it
    writable : whether its library lets it be written to
    """

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    device: int
    stream: int | None
    name: str
    writable: bool = True

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    @property
    def extent(self) -> tuple[int, int]:
        """First address and the one after the last, in bytes; equal if it is empty."""
        if 0 in self.shape:
            return self.pointer, self.pointer
        reach = [(n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        low = self.pointer + sum(r for r in reach if r < 0)
        return low, self.pointer + sum(r for r in reach if r > 0) + self.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether it is in C or in Fortran order without gaps."""
        axes = [(n, step) for n, step in zip(self.shape, self.strides, strict=True) if n > 1]

        def dense(axes: list[tuple[int, int]]) -> bool:
            steps = [
                self.itemsize * math.prod(n for n, _ in axes[k + 1 :]) for k in range(len(axes))
            ]
            return steps == [step for _, step in axes]

        return 0 in self.shape or dense(axes) or dense(axes[::-1])

    def split(self) -> list[DeviceArray]:
        """Return the arrays along the first axis."""
        if not self.shape:
            return []
        return [
            replace(
                self,
                pointer=self.pointer + i * self.strides[0],
                shape=self.shape[1:],
                strides=self.strides[1:],
                name=f"{self.name}[{i}]",
            )
            for i in range(self.shape[0])
        ]

    def fetched(self, stream: int) -> NDArray[Any]:
        """Return a copy in host memory with the same strides, after what is queued on `stream`.

        What lies between the elements is copied with them. bfloat16 is a 2-byte void dtype.
        """
        low, high = self.extent
        raw = cuda_module().fetch(low, high - low, self.device, stream)
        dtype = np.dtype("V2" if self.dtype == "bfloat16" else self.dtype)
        copied: NDArray[Any] = np.ndarray(self.shape, dtype, raw, self.pointer - low, self.strides)
        return copied

    def compiled(self) -> _cuda.Array:
        """Return it as the compiled module takes it."""
        made: _cuda.Array = cuda_module().Array(
            self.pointer, self.dtype, self.shape, self.strides, self.name
        )
        return made


@dataclass(frozen=True)
class DeviceCase:
    """The arrays of a case, on one device, and the stream to work on."""

    score: DeviceArray
    raters: list[DeviceArray]
    region: DeviceArray | None
    device: int
    stream: int

    def fetched(self) -> tuple[NDArray[Any], list[NDArray[Any]], NDArray[Any] | None]:
        """Return copies of score, raters and region in host memory."""
        region = None if self.region is None else self.region.fetched(self.stream)
        raters = [rater.fetched(self.stream) for rater in self.raters]
        return self.score.fetched(self.stream), raters, region

    def compiled(self) -> tuple[_cuda.Array, list[_cuda.Array], _cuda.Array | None]:
        """Return score, raters and region as the compiled module takes them."""
        region = None if self.region is None else self.region.compiled()
        return self.score.compiled(), [rater.compiled() for rater in self.raters], region


def device_array(array: Any, name: str) -> DeviceArray:
    """Return what kernels need to know of `array`.

    Raises
    ------
    TypeError
        If it lies in host memory or no kernel can read it.
    """
    kind = device_kind(array)
    if kind is None:
        raise TypeError(f"{name} is in host memory")
    if kind == "torch":
        return _of_torch(array, name)
    return _of_interface(array, name, kind)


def device_case(score: Any, raters: Any, region: Any | None) -> DeviceCase:
    """Return the arrays of a case, at least one of which is on a device.

    Parameters
    ----------
    score, raters, region
        As `ScoreTally.update` takes them.

    Raises
    ------
    TypeError
        If an array lies in host memory or has a dtype that it must not have.
    ValueError
        If the arrays lie on several devices, or there are no raters.
    """
    return _case(score, raters, region, None)[0]


def device_vessels(score: Any, raters: Any, vessels: Any) -> tuple[DeviceCase, DeviceArray]:
    """Return the arrays of a case and its map of vessels, at least one of which is on a device.

    Errors as for `device_case`.
    """
    case, found = _case(score, raters, None, vessels)
    assert found is not None  # noqa: S101 - it is given
    return case, found


def _case(
    score: Any, raters: Any, region: Any | None, vessels: Any | None
) -> tuple[DeviceCase, DeviceArray | None]:
    stacked = not isinstance(raters, (list, tuple))
    named = [("score", score)]
    named += (
        [("raters", raters)] if stacked else [(f"raters[{k}]", r) for k, r in enumerate(raters)]
    )
    optional = [(n, a) for n, a in (("region", region), ("vessels", vessels)) if a is not None]
    arrays = _on_one_device(named + optional)
    stream = _common_stream(arrays)
    given = {array.name: array for array in arrays[len(named) :]}
    arrays = arrays[: len(named)]
    first = arrays[0]
    _require_scores(first)
    masks = arrays[1].split() if stacked else arrays[1:]
    if not masks:
        raise InputError("raters is empty: at least one rater mask is needed")
    mask = given.get("region")
    if mask is not None:
        _require_mask(region, mask, stream)
    return DeviceCase(first, masks, mask, first.device, stream), given.get("vessels")


def device_result(score: Any, out: Any | None) -> tuple[DeviceArray, DeviceArray, Any, int]:
    """Return the views of a score and of where its map goes, that array, and the stream.

    `out` may be `score` itself. If it overlaps it in any other way, the view is that of a copy of
    the score; the copy is kept alive by what the third item holds.

    Raises
    ------
    TypeError, ValueError
        As for `device_case`, and if `out` cannot be written to.
    """
    if out is None:
        if device_kind(score) is None:
            raise TypeError("score is in host memory")
        out = device_empty_like(score)
    source, target = _on_one_device([("score", score), ("out", out)])
    _require_scores(source)
    _require_output(out, target)
    held = (out, score)
    same = source.pointer == target.pointer and source.strides == target.strides
    if not same and _overlap(source, target):
        copied = device_copy(score)
        source = device_array(copied, "score")
        held = (out, copied)
    return source, target, held, _common_stream([source, target])


def device_members(members: Sequence[Any], out: Any) -> tuple[list[DeviceArray], DeviceArray, int]:
    """Return the views of an ensemble's members and of its score, and the stream.

    Raises
    ------
    TypeError, ValueError
        As for `device_case`, and if `out` cannot be written to or overlaps a member.
    """
    named = [(f"members[{k}]", member) for k, member in enumerate(members)]
    *views, target = _on_one_device([*named, ("out", out)])
    for view in views:
        if view.dtype not in SCORE_DTYPES:
            raise TypeError(
                f"{view.name} has dtype {view.dtype}; it must be float16, bfloat16, float32 or "
                "float64"
            )
        if not view.shape:
            raise InputError(f"{view.name} is a single value; its first axis is that of channels")
        if _overlap(view, target):
            raise InputError(f"out overlaps {view.name} in memory")
    _require_output(out, target)
    return views, target, _common_stream([*views, target])


def device_part(array: DeviceArray, box: Sequence[tuple[int, int]]) -> DeviceArray:
    """Return the part of an array with indices from the first to before the second of each axis."""
    steps = zip(box, array.strides, strict=True)
    return replace(
        array,
        pointer=array.pointer + sum(start * stride for (start, _), stride in steps),
        shape=tuple(stop - start for start, stop in box),
    )


def _of_torch(tensor: Any, name: str) -> DeviceArray:
    import torch

    tensor = plain_tensor(tensor, name)
    size = tensor.element_size()
    device = tensor.device.index
    return DeviceArray(
        pointer=tensor.data_ptr(),
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        strides=tuple(stride * size for stride in tensor.stride()),
        device=device,
        stream=torch.cuda.current_stream(device).cuda_stream,
        name=name,
    )


def _of_interface(array: Any, name: str, kind: str) -> DeviceArray:
    interface = array.__cuda_array_interface__
    if interface.get("mask") is not None:
        raise TypeError(f"{name} has a mask of its own; pass the values, and region for the mask")
    dtype = np.dtype(interface["typestr"])
    if not dtype.isnative:
        raise TypeError(f"{name} has the byte order of another machine; pass a native copy")
    shape = tuple(int(n) for n in interface["shape"])
    strides = interface.get("strides")
    if strides is None:  # C order
        strides = [dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    pointer, read_only = interface["data"]
    pointer = int(pointer or 0)
    if kind == "cupy":
        import cupy

        device = int(array.device.id)
        stream = cupy.cuda.get_current_stream(device).ptr
    else:
        device = cuda_module().device_of(pointer)
        stream = interface.get("stream")  # 1 and 2 mean the same to CUDA
    return DeviceArray(
        pointer=pointer,
        dtype="bfloat16" if dtype == np.dtype("V2") else dtype.name,
        shape=shape,
        strides=tuple(int(stride) for stride in strides),
        device=device,
        stream=stream,
        name=name,
        writable=not read_only,
    )


def _on_one_device(named: Sequence[tuple[str, Any]]) -> list[DeviceArray]:
    # Names the first array on a device in messages about one that is not on the same.
    where, reference = next((n, a) for n, a in named if device_kind(a) is not None)
    home = device_array(reference, where).device
    arrays = []
    for name, array in named:
        if device_kind(array) is None:
            raise TypeError(
                f"{name} is in host memory but {where} is on cuda:{home}: move one to the other"
            )
        view = device_array(array, name)
        if view.device != home:
            raise InputError(
                f"{name} is on cuda:{view.device} but {where} is on cuda:{home}: "
                "the arrays of one call must lie on one device"
            )
        arrays.append(view)
    return arrays


def _common_stream(arrays: Sequence[DeviceArray | None]) -> int:
    # The first array's stream, or CUDA's default one, made to wait for those of the others.
    first = arrays[0]
    assert first is not None  # noqa: S101 - a score is always given
    chosen = first.stream or 0
    others = {a.stream for a in arrays if a is not None and a.stream is not None} - {chosen}
    for other in sorted(others):
        cuda_module().wait_for(chosen, other, first.device)
    return chosen


def _overlap(a: DeviceArray, b: DeviceArray) -> bool:
    (a_low, a_high), (b_low, b_high) = a.extent, b.extent
    return a_low < b_high and b_low < a_high


def _require_mask(region: Any, view: DeviceArray, stream: int) -> None:
    require_mask_dtype(view.dtype, "region")
    if view.dtype == "bool" or 0 in view.shape or surely_a_mask(region, view.dtype):
        return
    # What is wrong, and where, is looked for in host memory.
    mask_value(view.fetched(stream), lambda voxel: f"region{list(voxel)}")


def _require_output(out: Any, view: DeviceArray) -> None:
    refuse_gradient(out, view.name)
    require_output(view.name, view.shape, view.strides, view.itemsize, view.writable)


def _require_scores(score: DeviceArray) -> None:
    if score.dtype not in SCORE_DTYPES:
        raise TypeError(
            f"score has dtype {score.dtype}; scores are probabilities: "
            "float16, bfloat16, float32 or float64"
        )
