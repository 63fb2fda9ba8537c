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
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray
from rows.apply import knots_of
from rows.ensemble import CLASSES, MEMBERS, NETWORK_SPACING, TUMOUR, Export
from rows.fit import BINS
from suite.inputs import DISTRIBUTIONS, RATERS, ct_case, rater_masks, scores

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
LARGEST_CT = 3 * 10**8  # voxels
Put = Callable[[NDArray[Any]], Any]
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
            for work in works(voxels, distribution, on_device):
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


def on_device(array: NDArray[Any]) -> Any:
    """A copy in device memory, in the same memory order."""
    import torch

    return torch.as_tensor(array).cuda()


def works(voxels: int, distribution: str, put: Put) -> Iterator[Work]:
    """The rows, one after the other, so that not all hold their memory at the same time."""
    on_host = scores(voxels, distribution)
    masks = rater_masks(on_host)
    fitted = knots_of(on_host)
    yield from apply_works(on_host, fitted, put)
    if distribution != "fp16":
        yield from apply_works(on_host.astype(np.float64), fitted, put)
    yield from case_works(on_host, masks, put)
    del on_host, masks
    if distribution == "uniform" and voxels <= LARGEST_CT:
        yield from ct_works(voxels, put)
        yield from ensemble_works(voxels, put)


def case_works(on_host: NDArray[Any], masks: list[NDArray[np.uint8]], put: Put) -> Iterator[Work]:
    """What counts the voxels of a case, all of which raters may have marked."""
    score, raters = put(on_host), [put(mask) for mask in masks]
    read = on_host.nbytes + sum(mask.nbytes for mask in masks)
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


def ct_works(voxels: int, put: Put) -> Iterator[Work]:
    """What looks at where voxels lie, on a phantom CT of about so many."""
    edge = ct_edge(voxels)
    case = ct_case((edge, edge, edge))
    score, vessels = put(case.score), put(case.vessels)
    raters = [put(mask) for mask in case.raters]
    read = case.score.nbytes + sum(mask.nbytes for mask in case.raters)
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
        read + case.vessels.nbytes,
        lambda: evaluate(score, raters, vessels),
        {},
    )


def ensemble_works(voxels: int, put: Put) -> Iterator[Work]:
    """What makes the score of such a CT."""
    edge = ct_edge(voxels)
    export = Export().prepare({"shape": (edge, edge, edge)})
    geometry = ExportGeometry.from_nnunet(export.properties(), NETWORK_SPACING)
    members = [put(member) for member in export.members]
    out = put(np.empty(export.shape, np.float32))
    yield Work(
        f"export, {MEMBERS} × {CLASSES} classes, float16",
        "≥ 50%",
        sum(member.nbytes for member in export.members) + 4 * math.prod(export.shape),
        lambda: export_score(members, geometry, TUMOUR, calibrator=export.map, out=out),
        {},
    )
    on_grid = [np.resize(member, (CLASSES, *export.shape)) for member in export.members]
    same = [put(member) for member in on_grid]
    yield Work(
        f"merge, {MEMBERS} × {CLASSES} classes, float16, on one grid",
        "≥ 50%",
        sum(member.nbytes for member in on_grid) + 4 * math.prod(export.shape),
        lambda: ensemble_score(same, TUMOUR, calibrator=export.map, out=out),
        {"torch softmax and mean": lambda: torch_softmax(same)},
    )


def ct_edge(voxels: int) -> int:
    return max(32, round(voxels ** (1 / 3)))


def torch_softmax(members: list[Any]) -> Any:
    return sum(member.float().softmax(0)[TUMOUR] for member in members) / len(members)


def apply_works(on_host: NDArray[Any], fitted: CalibrationMap, put: Put) -> Iterator[Work]:
    score, out = put(on_host), put(np.empty_like(on_host))
    yield Work(
        f"apply, {on_host.dtype}, into out",
        "≥ 80%",
        2 * on_host.nbytes,
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
