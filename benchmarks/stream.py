"""Streams any number of voxels through `Calibrator.partial_fit` and prints speed and memory.

    python benchmarks/stream.py                              # 10^9 voxels
    python benchmarks/stream.py --voxels 1e8 1e9 1e10        # how time and memory grow

Every line has a process of its own. Memory is the peak beyond what the process held when the first
chunk was ready, so the buffers of the stream are not in it. The tally is checked against the number
of voxels and of votes that were sent.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from typing import Any

import measure
import numpy as np

from twintrack import Calibrator
from twintrack.datasets.phantom import score_stream

COLUMNS = (
    "voxels",
    "seconds",
    "million voxels/s",
    "GB/s",
    "memory",
    "memory after 1%",
    "bins made",
)
RATERS = 5


def stream(voxels: int, distribution: str, chunk: int) -> dict[str, Any]:
    """Fit to a stream; seconds, bytes read and peak memory."""
    Calibrator().partial_fit(np.zeros(1000, np.float32), np.zeros((RATERS, 1000), np.uint8))
    chunks = score_stream(voxels, RATERS, distribution=distribution, chunk=chunk)
    score, raters = next(chunks)
    memory = measure.PeakMemory()
    calibrator = Calibrator()
    seconds = 0.0
    traffic = sent = marks = 0
    early = None
    while True:
        traffic += score.nbytes + raters.nbytes
        sent += score.size
        marks += int(np.count_nonzero(raters))
        started = time.perf_counter()
        calibrator.partial_fit(score, raters, case="stream")
        seconds += time.perf_counter() - started
        if early is None and sent >= voxels / 100:
            early = memory.bytes()
        try:
            score, raters = next(chunks)
        except StopIteration:
            break
    started = time.perf_counter()
    bins = calibrator.n_bins_
    seconds += time.perf_counter() - started
    tally = calibrator.tallies_["stream"]
    if (tally.voxels, int(tally.votes.sum())) != (sent, marks):
        raise RuntimeError("the tally does not add up to what was sent")
    return {
        "seconds": seconds,
        "traffic": traffic,
        "peak_bytes": memory.bytes(),
        "early_bytes": early,
        "bins": bins,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", nargs="+", type=measure.count, default=[10**9])
    parser.add_argument(
        "--distribution", choices=("background", "uniform", "fp16"), default="background"
    )
    parser.add_argument("--chunk", type=measure.count, default=1 << 22, help="voxels at a time")
    arguments = parser.parse_args()
    print(measure.machine(["twintrack", "numpy"]))
    print(f"{arguments.distribution} scores, {RATERS} raters, {arguments.chunk} voxels at a time")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    for voxels in arguments.voxels:
        # Spawned, so that nothing of one line is in the memory of the next.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(stream, (voxels, arguments.distribution, arguments.chunk))
        line = (
            measure.power(voxels),
            f"{found['seconds']:.2f}",
            f"{voxels / found['seconds'] / 1e6:.0f}",
            f"{found['traffic'] / found['seconds'] / 1e9:.1f}",
            measure.megabytes(found["peak_bytes"]),
            measure.megabytes(found["early_bytes"]),
            str(found["bins"]),
        )
        print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()
