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
from twintrack.arrays.libraries import device_kind, plain_tensor
from twintrack.arrays.traced import refuse_traced
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack import _cuda


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
        # Only looked at, as one of its axes, never read: the dummy holds one element.
        dummy = np.empty(1, f"V{self.itemsize}")
        return np.lib.stride_tricks.as_strided(dummy, self.shape, self.strides).flags.forc

    def split(self) -> list[DeviceArray]:
        """Return the arrays along the first axis."""
        return [
            replace(
                self,
                pointer=self.pointer + i * self.strides[0],
                shape=self.shape[1:],
                strides=self.strides[1:],
                name=f"{self.name}[{i}]",
            )
            for i in range(self.shape[0] if self.shape else 0)
        ]

    def __getitem__(self, box: Sequence[slice]) -> DeviceArray:
        """Return the part inside of slices without steps, one an axis, as NumPy reads them."""
        ranges = [range(n)[part] for n, part in zip(self.shape, box, strict=True)]
        steps = zip(ranges, self.strides, strict=True)
        return replace(
            self,
            pointer=self.pointer + sum(part.start * stride for part, stride in steps),
            shape=tuple(len(part) for part in ranges),
        )

    def fetched(self, stream: int) -> NDArray[Any]:
        """Return a copy in host memory with the same strides, after what is queued on `stream`.

        What lies between the elements is copied with them. bfloat16 is a 2-byte void dtype.
        """
        low, high = self.extent
        raw = cuda_module().fetch(low, high - low, self.device, stream)
        dtype = np.dtype("V2" if self.dtype == "bfloat16" else self.dtype)
        return np.asarray(np.ndarray(self.shape, dtype, raw, self.pointer - low, self.strides))

    def compiled(self) -> _cuda.Array:
        """Return it as the compiled module takes it."""
        made: _cuda.Array = cuda_module().Array(
            self.pointer, self.dtype, self.shape, self.strides, self.name
        )
        return made


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


def _of_torch(tensor: Any, name: str) -> DeviceArray:
    import torch

    refuse_traced(tensor, name)
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


def on_one_device(named: Sequence[tuple[str, Any]]) -> list[DeviceArray]:
    """Return the views of arrays, at least one of which is on a device.

    Raises
    ------
    TypeError
        One lies in host memory, or no kernel can read it.
    ValueError
        They lie on several devices.
    """
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


def common_stream(arrays: Sequence[DeviceArray]) -> int:
    """Return the first array's stream, or CUDA's default one, made to wait for the others'."""
    chosen = arrays[0].stream or 0
    others = {array.stream for array in arrays if array.stream is not None} - {chosen}
    for other in sorted(others):
        cuda_module().wait_for(chosen, other, arrays[0].device)
    return chosen
