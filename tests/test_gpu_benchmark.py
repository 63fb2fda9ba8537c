"""Every row of the benchmark for devices runs, on stand-ins for the libraries (see conftest)."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from device_libraries import STAND_INS, StandIn

from twintrack.arrays.backend import cuda_module

pytest.importorskip("scipy")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize("kind", STAND_INS)
def test_rows_run_and_stay_on_the_device(emulation, monkeypatch, benchmark, kind):
    inputs = benchmark("gpu_inputs").Copied(StandIn(kind, monkeypatch).put)
    fetched = []
    real = cuda_module().fetch
    monkeypatch.setattr(cuda_module(), "fetch", lambda *a: fetched.append(a[1]) or real(*a))
    asked = SimpleNamespace(voxels=[4000], distributions=["uniform", "fp16"], ct=(32, 32, 32))
    with_sums = set()
    names = []
    for voxels, distribution, work in benchmark("gpu").rows(asked, inputs):
        work.ours()
        assert work.traffic > 0
        names.append((voxels, distribution, work.name))
        if fetched:
            with_sums.add(work.name)
            fetched.clear()
    assert len(set(names)) == len(names) == 6 + 5 + 4
    # The one row whose figures need the scores themselves says so.
    assert with_sums == {name for _, _, name in names if "summed by NumPy" in name}


@pytest.mark.torch
@pytest.mark.parametrize(
    "distribution", ["uniform", "background", "ensemble3", "saturated3", "fp16"]
)
def test_what_torch_makes_is_distributed_as_on_the_host(benchmark, distribution):
    pytest.importorskip("torch", exc_type=ImportError)
    voxels = 1 << 20
    inputs = benchmark("gpu_inputs")
    made, host = inputs.Torch("cpu"), inputs.Copied(lambda array: array)
    ours, theirs = made.scores(voxels, distribution), host.scores(voxels, distribution)
    assert str(ours.dtype) == f"torch.{theirs.dtype}"
    # Between the piles that means of networks make. 2^20 voxels in 256 runs: the share of a kind of
    # run is right to some hundredths.
    at = np.linspace(0, 1, 41) + 0.0125
    below = [np.searchsorted(np.sort(one), at) / voxels for one in (ours.double().numpy(), theirs)]
    np.testing.assert_allclose(*below, atol=0.05)
    masks, expected = made.masks(ours), host.masks(theirs)
    assert len(masks) == len(expected)
    squares = ours.double().square().mean().item()
    for mask in masks:
        assert mask.unique().tolist() == [0, 1]
        assert mask.double().mean().item() == pytest.approx(squares, abs=3e-3)
