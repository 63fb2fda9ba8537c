"""Prints, for a CUDA device, each kernel's share of the bandwidth at which the device copies.

    python benchmarks/gpu.py                                     # 10^7 to 10^9 voxels, and a CT
    python benchmarks/gpu.py --voxels 1e8 --json benchmarks/results/gpu.json

Arrays are made on the device before anything is measured. A time is the median between two CUDA
events around a call, the wait for its word on invalid voxels included; before every call a buffer
several times as large as the second-level cache is written, so that no input is found there. GB/s
are the bytes that a work must touch, once each, over its time. The limit is measured: a copy from
device memory to device memory of as many bytes. Peers run on the same tensors in the same way. The
file of --json is written anew after every row, so that what was measured stays if the run is ended.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
from gpu_inputs import Inputs, Torch, ct_shape, nbytes
from rows.calibration.apply import knots_of
from rows.calibration.fit import BINS
from rows.ensemble.ensemble import CLASSES, MEMBERS, NETWORK_SPACING, TUMOUR, Export
from suite.inputs import DISTRIBUTIONS, RATERS, ct_case

from twintrack import (
    CalibrationMap,
    Calibrator,
    ExportGeometry,
    ScoreTally,
    ensemble_score,
    evaluate,
    export_score,
)
from twintrack.metrics import CaseTally
from twintrack.metrics.vascular import VESSELS, contact_degrees

PACKAGES = ("twintrack", "torch", "cupy-cuda13x", "torchmetrics")
LEAST_REPEATS = 3
COLUMNS = ("work", "voxels", "scores", "ours", "GB/s", "limit GB/s", "of limit", "goal", "peers")


@dataclass(frozen=True)
class Work:
    """One row: what we do, the bytes it must touch, and what does the same."""

    name: str
    goal: str
    traffic: int
    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]


def main() -> None:
    arguments = parse()
    torch = device_torch()
    if arguments.probe:
        CalibrationMap([0.0, 1.0], [0.0, 0.5])(Torch().scores(10_000, "uniform"))
        return
    properties = torch.cuda.get_device_properties(0)
    print(
        f"{properties.name}, {properties.multi_processor_count} multiprocessors, "
        f"CUDA {torch.version.cuda}; {measure.machine(PACKAGES)}"
    )
    for name in arguments.distributions:
        print(f"{name}: {DISTRIBUTIONS[name]}")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    results = []
    for voxels, distribution, work in rows(arguments, Torch()):
        result = {
            "work": work.name,
            "goal": work.goal,
            "voxels": voxels,
            "distribution": distribution,
            "traffic": work.traffic,
            "seconds": seconds_of(work.ours, arguments.repeats, arguments.budget),
            "limit": copy_seconds(work.traffic, arguments.repeats, arguments.budget),
            "peers": {
                name: peer_seconds(peer, arguments.repeats, arguments.budget)
                for name, peer in work.peers.items()
            },
        }
        results.append(result)
        print(f"| {' | '.join(cells(result))} |", flush=True)
        if arguments.json:
            device = {"device": properties.name, "machine": measure.machine(PACKAGES)}
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps({**device, "results": results}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", nargs="*", type=measure.count, default=[10**7, 10**8, 10**9])
    parser.add_argument(
        "--distributions", nargs="+", choices=DISTRIBUTIONS, default=[*DISTRIBUTIONS]
    )
    parser.add_argument(
        "--ct", type=ct_shape, default=(512, 512, 160), help="voxels of the CT along x, y, z"
    )
    parser.add_argument("--repeats", type=int, default=21, help="timed runs of each side")
    parser.add_argument(
        "--budget", type=float, default=1.0, help="seconds after which a side is run no more"
    )
    parser.add_argument(
        "--probe", action="store_true", help="call one kernel and measure nothing: does it work?"
    )
    parser.add_argument("--json", type=Path, help="file for the results in full")
    return parser.parse_args()


def device_torch() -> Any:
    try:
        import torch
    except ImportError:
        sys.exit("benchmarks/gpu.py needs torch: pip install --group gpu")
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device; torch sees none")
    return torch


def rows(arguments: argparse.Namespace, inputs: Inputs) -> Iterator[tuple[int, str, Work]]:
    """Voxels, distribution and work of every row; only the inputs of one are held at a time."""
    for voxels in arguments.voxels:
        for distribution in arguments.distributions:
            for work in works(voxels, distribution, inputs):
                yield voxels, distribution, work
    for made_by in (ct_works, ensemble_works):
        for work in made_by(arguments.ct, inputs):
            yield math.prod(arguments.ct), "a CT", work


def works(voxels: int, distribution: str, inputs: Inputs) -> Iterator[Work]:
    """The rows on scores and masks without a shape."""
    score = inputs.scores(voxels, distribution)
    itemsize = 2 if distribution == "fp16" else 4
    fitted = knots_of(inputs.sample(score))
    yield apply_work(score, inputs.empty_like(score), 8 * itemsize, voxels, fitted)
    if itemsize == 4:
        double = inputs.as_float64(score)
        yield apply_work(double, inputs.empty_like(double), 64, voxels, fitted)
        del double
    yield from case_works(score, inputs.masks(score), (itemsize + RATERS) * voxels)


def case_works(score: Any, raters: list[Any], read: int) -> Iterator[Work]:
    """What counts the voxels of a case, all of which raters may have marked."""
    tally = ScoreTally(RATERS)
    yield Work(
        "tally of a fit",
        "≥ 40%",
        read,
        lambda: tally.update(score, raters),
        {"CuPy argsort and cumsum": lambda: sorted_sums(score, raters)},
    )
    yield Work(
        "fit, to the map",
        "",
        read,
        lambda: Calibrator(bins=BINS).fit(score, raters),
        {"torchmetrics ECE of each rater": lambda: torchmetrics_ece(score, raters)},
    )
    yield Work(
        "tally of an evaluation",
        "≥ 60%",
        read,
        lambda: CaseTally(RATERS).update(score, raters),
        {},
    )
    yield Work(
        "evaluate, corrected",
        "≥ 60%, ≥ 20×",
        read,
        lambda: evaluate(score, raters, protocol="corrected"),
        {"torchmetrics ECE of each rater": lambda: torchmetrics_ece(score, raters)},
    )


def ct_works(shape: tuple[int, int, int], inputs: Inputs) -> Iterator[Work]:
    """What looks at where voxels lie, on a phantom CT."""
    case = ct_case(shape)
    score, vessels = inputs.put(case.score), inputs.put(case.vessels)
    raters = [inputs.put(mask) for mask in case.raters]
    yield Work(
        "contact angles of a CT",
        "",
        case.vessels.nbytes,  # far from the vessels nothing else is read
        lambda: contact_degrees(score, raters, vessels, VESSELS),
        {},
    )
    yield Work(
        "evaluate a CT, official, its scores summed by NumPy",
        "",
        nbytes([case.score, *case.raters, case.vessels]),
        lambda: evaluate(score, raters, vessels),
        {},
    )


def ensemble_works(shape: tuple[int, int, int], inputs: Inputs) -> Iterator[Work]:
    """What makes the score of such a CT."""
    export = Export().prepare({"shape": shape})
    geometry = ExportGeometry.from_nnunet(export.properties(), NETWORK_SPACING)
    members = [inputs.put(member) for member in export.members]
    out = inputs.put(np.empty(export.shape, np.float32))
    yield Work(
        f"export, {MEMBERS} × {CLASSES} classes, float16",
        "≥ 50%",
        nbytes(export.members) + 4 * math.prod(export.shape),
        lambda: export_score(members, geometry, TUMOUR, calibrator=export.map, out=out),
        {},
    )
    on_grid = [np.resize(member, (CLASSES, *export.shape)) for member in export.members]
    same = [inputs.put(member) for member in on_grid]
    yield Work(
        f"merge, {MEMBERS} × {CLASSES} classes, float16, on one grid",
        "≥ 50%",
        nbytes(on_grid) + 4 * math.prod(export.shape),
        lambda: ensemble_score(same, TUMOUR, calibrator=export.map, out=out),
        {"torch softmax and mean": lambda: torch_softmax(same)},
    )


def torch_softmax(members: list[Any]) -> Any:
    return sum(member.float().softmax(0)[TUMOUR] for member in members) / len(members)


def apply_work(score: Any, out: Any, bits: int, voxels: int, fitted: CalibrationMap) -> Work:
    """Into an array that is there: what an inference service does."""
    return Work(
        f"apply, float{bits}, into out",
        "≥ 80%",
        2 * bits // 8 * voxels,
        lambda: fitted(score, out=out),
        {"CuPy interp": lambda: cupy_interp(score, fitted)},
    )


def cupy_interp(score: Any, fitted: CalibrationMap) -> Any:
    import cupy

    x, y = cupy.asarray(fitted.x), cupy.asarray(fitted.y)
    return cupy.interp(cupy.from_dlpack(score), x, y)


def sorted_sums(score: Any, raters: list[Any]) -> Any:
    """What a fit by sorting does on the device before its bins are summed."""
    import cupy

    votes = sum(cupy.from_dlpack(rater) for rater in raters)
    at = cupy.from_dlpack(score)
    order = cupy.argsort(at)
    cuts = (np.arange(1, BINS + 1) * at.size) // BINS - 1
    score_sums = cupy.cumsum(at[order], dtype=np.float64)[cuts]
    return score_sums, cupy.cumsum(votes[order], dtype=np.int64)[cuts]


def torchmetrics_ece(score: Any, raters: list[Any]) -> Any:
    from torchmetrics.functional.classification import binary_calibration_error

    # Without its check of the values, which would wait for the device.
    return [
        binary_calibration_error(score.float(), rater.long(), n_bins=BINS, validate_args=False)
        for rater in raters
    ]


def seconds_of(work: Callable[[], Any], repeats: int, budget: float) -> float:
    """Median seconds between events around `work`, its inputs in no cache.

    At least three runs; no more than `repeats`, and none once `budget` seconds have gone.
    """
    import torch

    cache = torch.cuda.get_device_properties(0).L2_cache_size
    flushed = torch.empty(4 * max(cache, 1 << 24), dtype=torch.uint8, device="cuda")
    work()
    torch.cuda.synchronize()
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < LEAST_REPEATS or (
        len(seconds) < repeats and time.perf_counter() - begun < budget
    ):
        flushed.zero_()
        started = torch.cuda.Event(enable_timing=True)
        ended = torch.cuda.Event(enable_timing=True)
        started.record()
        work()
        ended.record()
        ended.synchronize()
        seconds.append(started.elapsed_time(ended) / 1e3)
    return statistics.median(seconds)


def peer_seconds(peer: Callable[[], Any], repeats: int, budget: float) -> float | str:
    import torch

    try:
        return seconds_of(peer, repeats, budget)
    except ImportError as error:
        return f"{error.name} is not installed"
    except (MemoryError, torch.OutOfMemoryError) as error:  # CuPy's is a MemoryError
        return f"needs more memory than there is ({type(error).__name__})"


def copy_seconds(traffic: int, repeats: int, budget: float) -> float:
    """Seconds in which the device copies so that it reads and writes `traffic` bytes in all."""
    import torch

    source = torch.zeros(max(traffic // 2, 1), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return seconds_of(lambda: target.copy_(source), repeats, budget)


def cells(result: dict[str, Any]) -> list[str]:
    ours = result["seconds"]
    rate, limit = (result["traffic"] / result[key] / 1e9 for key in ("seconds", "limit"))
    peers = [
        f"{name}: {peer}"
        if isinstance(peer, str)
        else f"{name}: {measure.duration(peer)} ({peer / ours:.0f}×)"
        for name, peer in result["peers"].items()
    ]
    return [
        result["work"],
        measure.power(result["voxels"]),
        result["distribution"],
        measure.duration(ours),
        f"{rate:.0f}",
        f"{limit:.0f}",
        f"{rate / limit:.0%}",
        result["goal"],
        "; ".join(peers),
    ]


if __name__ == "__main__":
    main()
