"""Settings of hypothesis, and the libraries of arrays on a device, for the whole suite."""

from __future__ import annotations

import sys

import device_libraries
import pytest
from hypothesis import settings

# The same examples in every run, and no deadlines: machines are shared, sanitizers are slow.
settings.register_profile("twintrack", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("twintrack")


@pytest.fixture
def emulation(monkeypatch):
    """The CUDA module whose kernels the CPU executes, in the place of the real one."""
    module = device_libraries.emulated_module()
    monkeypatch.setitem(sys.modules, "twintrack._cuda", module)
    return module


@pytest.fixture(
    params=[
        *device_libraries.STAND_INS,
        pytest.param("torch on a device", marks=pytest.mark.gpu),
        pytest.param("cupy on a device", marks=pytest.mark.gpu),
    ]
)
def library(request, monkeypatch):
    """An array library on a device, or its stand-in on the emulation."""
    if request.param in device_libraries.STAND_INS:
        request.getfixturevalue("emulation")
        return device_libraries.StandIn(request.param, monkeypatch)
    device = {
        "torch on a device": device_libraries.Torch,
        "cupy on a device": device_libraries.Cupy,
    }
    return device[request.param]()
