"""Settings of hypothesis, and what several packages' tests start from."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import device_libraries
import pytest
from hypothesis import settings

import twintrack
from twintrack.datasets.phantom import PhantomSpec, write_cohort

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


@pytest.fixture(scope="session")
def pristine_cohort(tmp_path_factory) -> Path:
    """Folder of a phantom cohort of six cases; tests that change files take `cohort`, a copy."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, PhantomSpec(shape=(24, 24, 20), raters=3, seed=3), 6)
    return folder


@pytest.fixture
def cohort(pristine_cohort, tmp_path) -> Path:
    return Path(shutil.copytree(pristine_cohort, tmp_path / "cohort"))


@pytest.fixture(scope="session")
def command() -> list[str]:
    """What starts the command line in another process."""
    return [sys.executable, "-c", "from twintrack.cli import main; main()"]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment in which another process finds this very package."""
    return {**os.environ, "PYTHONPATH": str(Path(twintrack.__file__).parents[1])}
