"""Array libraries that keep arrays on a CUDA device, real ones and stand-ins.

The stand-ins keep theirs in host memory. Together with the CUDA module compiled for the CPU
(cpp/tests/emulation) they run all of the Python layer without a device.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from twintrack.arrays.checks import as_numbers

EMULATED = (
    Path(__file__).parents[1]
    / "build/cpp/emulated_cuda"
    / f"_cuda{importlib.machinery.EXTENSION_SUFFIXES[0]}"
)
BFLOAT16 = np.dtype("V2")
STAND_INS = ("other", "cupy", "torch")


def emulated_module() -> ModuleType:
    if not EMULATED.exists():
        pytest.skip(f"{EMULATED} is not there; `make test` builds it")
    # Not the name of the real module: if that was imported before, pybind11 would give it again.
    spec = importlib.util.spec_from_file_location("emulated._cuda", EMULATED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def room_for(values):
    """Bytes of memory from the lowest element to the highest, and where the first one lies."""
    reach = [(n - 1) * step for n, step in zip(values.shape, values.strides, strict=True)]
    if values.size == 0:
        return 0, 0
    low = -sum(step for step in reach if step < 0)
    return low + sum(step for step in reach if step > 0) + values.itemsize, low


def copy_with_strides(values):
    size, first = room_for(values)
    made = np.ndarray(values.shape, values.dtype, np.zeros(size, np.uint8), first, values.strides)
    made[...] = values
    return made


class _Array:
    """A NumPy array that says that it lies on a device."""

    def __init__(self, values, device=0):
        self.values = values
        self.number = device

    def __getitem__(self, index):
        return type(self)(self.values[index], self.number)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __setitem__(self, index, value):
        self.values[index.values if isinstance(index, _Array) else index] = value

    @property
    def shape(self):
        return self.values.shape

    # What torch and CuPy are asked for to look at a mask.
    __hash__ = None

    def __ne__(self, other):
        return type(self)(as_numbers(self.values) != other)

    def __and__(self, other):
        return type(self)(self.values & other.values)

    # What they are asked for to look at scores outside [0, 1].
    def __lt__(self, other):
        return type(self)(as_numbers(self.values) < other)

    def __le__(self, other):
        return type(self)(as_numbers(self.values) <= other)

    def __gt__(self, other):
        return type(self)(as_numbers(self.values) > other)

    def __ge__(self, other):
        return type(self)(as_numbers(self.values) >= other)

    def sum(self):
        return self.values.sum()

    def any(self):
        return self.values.any()

    def max(self):
        return as_numbers(self.values).max()


class InterfaceArray(_Array):
    """Of a library that TwinTrack does not know by name."""

    @property
    def device(self):
        return self.number

    def __init__(self, values, device=0, stream=None, maker=True):
        super().__init__(values, device)
        self.stream = stream
        if maker:
            self.__array_namespace__ = lambda: SimpleNamespace(
                float32="float32",
                empty_like=lambda a, dtype=None: InterfaceArray(np.empty_like(a.values, dtype)),
                zeros=lambda shape, dtype, device: InterfaceArray(np.zeros(shape, dtype), device),
                asarray=lambda a, copy: InterfaceArray(a.values.copy()),
            )

    @property
    def __cuda_array_interface__(self):
        inner = self.values.__array_interface__
        return {
            "shape": inner["shape"],
            "typestr": inner["typestr"],
            "strides": inner["strides"],
            "data": inner["data"],
            "version": 3,
            "stream": self.stream,
        }


class CupyArray(_Array):
    __cuda_array_interface__ = InterfaceArray.__cuda_array_interface__
    stream = None

    @property
    def device(self):
        guard = nullcontext()
        guard.id = self.number
        return guard

    def copy(self):
        return CupyArray(self.values.copy(), self.number)


CupyArray.__module__ = "cupy"


class Tensor(_Array):
    layout = "strided"

    @property
    def device(self):
        return SimpleNamespace(type="cuda", index=self.number)

    @property
    def dtype(self):
        return "torch." + ("bfloat16" if self.values.dtype == BFLOAT16 else self.values.dtype.name)

    requires_grad = False

    def detach(self):
        return self

    def is_neg(self):
        return False

    def clone(self):
        return Tensor(self.values.copy(), self.number)

    def element_size(self):
        return self.values.itemsize

    def stride(self):
        return tuple(step // self.values.itemsize for step in self.values.strides)

    def data_ptr(self):
        return self.values.ctypes.data


Tensor.__module__ = "torch"


class StandIn:
    """A library in host memory; `stream` is its current stream on every device."""

    stream = 0

    def __init__(self, kind, monkeypatch):
        self.make = {"other": InterfaceArray, "cupy": CupyArray, "torch": Tensor}[kind]
        if kind == "cupy":
            made = SimpleNamespace(
                empty_like=lambda a, dtype=None: CupyArray(
                    np.empty_like(a.values, dtype), a.number
                ),
                zeros=lambda shape, dtype: CupyArray(np.zeros(shape, dtype)),
                cuda=SimpleNamespace(
                    get_current_stream=lambda device: SimpleNamespace(ptr=self.stream)
                ),
            )
            monkeypatch.setitem(sys.modules, "cupy", made)
        if kind == "torch":
            made = SimpleNamespace(
                strided="strided",
                float32="float32",
                empty_like=lambda a, dtype=None: Tensor(np.empty_like(a.values, dtype), a.number),
                zeros=lambda shape, dtype, device: Tensor(np.zeros(shape, dtype), device.index),
                cuda=SimpleNamespace(
                    current_stream=lambda device: SimpleNamespace(cuda_stream=self.stream)
                ),
            )
            monkeypatch.setitem(sys.modules, "torch", made)

    def put(self, values):
        """A copy on a device, with the same strides."""
        return self.make(copy_with_strides(values))

    def get(self, array):
        return array.values


class Torch:
    def __init__(self):
        self.torch = pytest.importorskip("torch", exc_type=ImportError)
        if not self.torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")

    def put(self, values):
        if any(stride < 0 for stride in values.strides):
            values = values.copy()  # torch has no such strides
        layout = self._empty_as(values)
        bits = values.view(np.int16) if values.dtype == BFLOAT16 else values
        host = self.torch.as_tensor(np.ascontiguousarray(bits))
        layout.copy_(host.view(self.torch.bfloat16) if values.dtype == BFLOAT16 else host)
        return layout

    def _empty_as(self, values):
        name = "bfloat16" if values.dtype == BFLOAT16 else values.dtype.name
        dtype = getattr(self.torch, name)
        steps = tuple(stride // values.itemsize for stride in values.strides)
        return self.torch.empty_strided(values.shape, steps, dtype=dtype, device="cuda")

    def get(self, array):
        if array.dtype == self.torch.bfloat16:
            return array.cpu().view(self.torch.int16).numpy().view(BFLOAT16)
        return array.cpu().numpy()


class Cupy:
    def __init__(self):
        self.cupy = pytest.importorskip("cupy", exc_type=ImportError)
        if self.cupy.cuda.runtime.getDeviceCount() == 0:
            pytest.skip("CuPy sees no CUDA device")

    def put(self, values):
        if values.dtype == BFLOAT16:
            pytest.skip("CuPy has no bfloat16 of its own")
        size, first = room_for(values)
        room = self.cupy.empty(size, np.uint8)
        made = self.cupy.ndarray(
            values.shape, values.dtype, memptr=room.data + first, strides=values.strides
        )
        made[...] = self.cupy.asarray(np.ascontiguousarray(values))
        return made

    def get(self, array):
        return array.get()
