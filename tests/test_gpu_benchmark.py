"""Every row of the benchmark for devices runs, on stand-ins for the libraries (see conftest)."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from device_libraries import STAND_INS, StandIn

from twintrack.backend import cuda_module

pytest.importorskip("scipy")


@pytest.mark.parametrize("kind", STAND_INS)
@pytest.mark.parametrize("distribution", ["uniform", "fp16"])
def test_rows_run_and_stay_on_the_device(emulation, monkeypatch, kind, distribution):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    gpu = importlib.import_module("gpu")
    fetched = []
    real = cuda_module().fetch
    monkeypatch.setattr(cuda_module(), "fetch", lambda *a: fetched.append(a[1]) or real(*a))
    with_sums = set()
    names = []
    for work in gpu.works(4000, distribution, StandIn(kind, monkeypatch).put):
        work.ours()
        assert work.traffic > 0
        names.append(work.name)
        if fetched:
            with_sums.add(work.name)
            fetched.clear()
    assert len(set(names)) == len(names) == (10 if distribution == "uniform" else 5)
    # The one row whose figures need the scores themselves says so.
    assert with_sums == {name for name in names if "summed by NumPy" in name}
