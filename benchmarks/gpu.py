"""Prints, for a CUDA device, each kernel's share of the bandwidth at which the device copies.

    python benchmarks/gpu.py                                     # 10^6 to 10^9 voxels
    python benchmarks/gpu.py --voxels 1e8 --json benchmarks/results/gpu.json

Arrays lie on the device as torch tensors before anything is measured. A time is the median between
two CUDA events around a call, the wait for its word on invalid voxels included; before every call a
buffer several times as large as the second-level cache is written, so that no input is found there.
GB/s are the bytes that a work must touch, once each, over its time. The limit is measured: a copy
from device memory to device memory of as many bytes. Peers run on the same tensors in the same way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
from rows.apply import knots_of
from rows.fit import BINS
from suite.inputs import DISTRIBUTIONS, RATERS, rater_masks, scores

from twintrack import CalibrationMap, Calibrator, ScoreTally

PACKAGES = ("twintrack", "torch", "cupy-cuda13x", "torchmetrics")
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
    properties = torch.cuda.get_device_properties(0)
    print(
        f"{properties.name}, {properties.multi_processor_count} multiprocessors, "
        f"CUDA {torch.version.cuda}; {measure.machine(PACKAGES)}"
    )
    for name in arguments.distributions:
        print(f"{name}: {DISTRIBUTIONS[name]}")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    results = []
    for voxels in arguments.voxels:
        for distribution in arguments.distributions:
            for work in works(voxels, distribution):
                result = {
                    "work": work.name,
                    "goal": work.goal,
                    "voxels": voxels,
                    "distribution": distribution,
                    "traffic": work.traffic,
                    "seconds": seconds_of(work.ours, arguments.repeats),
                    "limit": copy_seconds(work.traffic, arguments.repeats),
                    "peers": {
                        name: peer_seconds(peer, arguments.repeats)
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
    parser.add_argument(
        "--voxels", nargs="+", type=measure.count, default=[10**6, 10**7, 10**8, 10**9]
    )
    parser.add_argument(
        "--distributions", nargs="+", choices=DISTRIBUTIONS, default=[*DISTRIBUTIONS]
    )
    parser.add_argument("--repeats", type=int, default=21, help="timed runs of each side")
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


def works(voxels: int, distribution: str) -> Iterator[Work]:
    """The rows, one after the other, so that not all hold their memory at the same time."""
    import torch

    on_host = scores(voxels, distribution)
    masks = rater_masks(on_host)
    score = torch.as_tensor(on_host).cuda()
    raters = [torch.as_tensor(mask).cuda() for mask in masks]
    fitted = knots_of(on_host)
    del on_host, masks
    yield from apply_works(score, fitted)
    if distribution != "fp16":
        yield from apply_works(score.double(), fitted)
    read = score.nbytes + sum(rater.nbytes for rater in raters)
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


def apply_works(score: Any, fitted: CalibrationMap) -> Iterator[Work]:
    import torch

    out = torch.empty_like(score)
    dtype = str(score.dtype).removeprefix("torch.")
    yield Work(
        f"apply, {dtype}, into out",
        "≥ 80%",
        2 * score.nbytes,
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


def seconds_of(work: Callable[[], Any], repeats: int) -> float:
    """Median seconds between events around `work`, its inputs in no cache."""
    import torch

    cache = torch.cuda.get_device_properties(0).L2_cache_size
    flushed = torch.empty(4 * max(cache, 1 << 24), dtype=torch.uint8, device="cuda")
    work()
    seconds = []
    for _ in range(repeats):
        flushed.zero_()
        started = torch.cuda.Event(enable_timing=True)
        ended = torch.cuda.Event(enable_timing=True)
        started.record()
        work()
        ended.record()
        ended.synchronize()
        seconds.append(started.elapsed_time(ended) / 1e3)
    return statistics.median(seconds)


def peer_seconds(peer: Callable[[], Any], repeats: int) -> float | str:
    import torch

    try:
        return seconds_of(peer, repeats)
    except ImportError as error:
        return f"{error.name} is not installed"
    except (MemoryError, torch.OutOfMemoryError) as error:  # CuPy's is a MemoryError
        return f"needs more memory than there is ({type(error).__name__})"


def copy_seconds(traffic: int, repeats: int) -> float:
    """Seconds in which the device copies so that it reads and writes `traffic` bytes in all."""
    import torch

    source = torch.zeros(max(traffic // 2, 1), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return seconds_of(lambda: target.copy_(source), repeats)


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
