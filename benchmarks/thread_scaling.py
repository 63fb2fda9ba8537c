"""Prints how time and memory of our works depend on the number of threads, also beyond the cores.

    python benchmarks/thread_scaling.py                     # fit, apply, evaluate, export: minutes
    python benchmarks/thread_scaling.py fit apply --threads 1 2 64 --repeats 20

Every input has a process of its own, in which numbers of threads take turns, so that all have the
same share of a machine that others use too. A run that is not timed comes first in each turn: it
starts and ends threads. Memory is the peak beyond the inputs, results included, the most of any
turn. Ratios are the time of two threads, or of the first number given, as a multiple of the line's
own: below 1 is slower. More threads than cores should be neither slower nor larger.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time

import measure
from rows.row import Setting
from rows.table import ROWS

from twintrack.arrays.threads import set_max_threads

CT, SMALL_CT = (512, 512, 160), (256, 256, 64)
SMALL = (32, 32, 20)  # of a CT, only to see that it runs
INPUTS: dict[str, list[Setting]] = {
    "fit": [
        {"voxels": 1 << 22, "distribution": "background", "raters": 5},
        {"voxels": 10**8, "distribution": "background", "raters": 5},
        {"voxels": 10**8, "distribution": "uniform", "raters": 5},
    ],
    "apply": [
        {"voxels": 1 << 22, "distribution": "background"},
        {"voxels": 10**8, "distribution": "background"},
        {"voxels": 10**8, "distribution": "uniform"},
    ],
    "evaluate": [{"shape": shape, "official": None, "members": 1} for shape in (SMALL_CT, CT)],
    "ensemble": [{"shape": shape, "official": None} for shape in (SMALL_CT, CT)],
}
"""Of rows of `peers.py`; the first of our works of a row is timed."""
COLUMNS = ("work", "inputs", "threads", "median", "fastest", "ratio", "ratio, fastest", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(INPUTS)}")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2, 8, 64])
    parser.add_argument("--repeats", type=int, default=9, help="turns")
    parser.add_argument("--voxels", type=measure.count, help="at most, of fit and apply")
    parser.add_argument("--small", action="store_true", help="small inputs: only whether it runs")
    asked = parser.parse_args()
    for row in asked.rows:
        if row not in INPUTS:
            parser.error(f"there is no row {row!r}; there are {', '.join(INPUTS)}")
    if min(asked.threads) < 1:
        parser.error("--threads: less than one")
    # Read when a process starts: no limit later goes beyond it.
    os.environ["OMP_NUM_THREADS"] = str(max(asked.threads))
    print(measure.machine(["twintrack", "numpy"]))
    print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    for row in asked.rows or INPUTS:
        for setting in settings(row, asked.small, asked.voxels):
            # Spawned, so that nothing of one input is in the memory of the next.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(in_turns, (row, setting, asked.threads, asked.repeats))
            for line in lines(row, setting, asked.threads, found):
                print(f"| {' | '.join(line)} |", flush=True)


def settings(row: str, small: bool, most: int | None) -> list[Setting]:
    """Inputs of a row, or one of them, small."""
    if not small:
        return [
            {**each, "voxels": min(each["voxels"], most)} if most and "voxels" in each else each
            for each in INPUTS[row]
        ]
    first = INPUTS[row][0]
    return [{**first, **({"voxels": 10**5} if "voxels" in first else {"shape": SMALL})}]


def in_turns(
    row: str, setting: Setting, threads: list[int], repeats: int
) -> list[measure.Measured]:
    """Measure the row's first work with every number of threads."""
    work = ROWS[row]
    run = next(iter(work.ours().values()))
    small = work.prepare(work.warm_up(setting))
    run(small)  # loads all code
    work.close(small)
    inputs = work.prepare(setting)
    seconds: list[list[float]] = [[] for _ in threads]
    peaks: list[int | None] = [None for _ in threads]
    for _ in range(repeats):
        for k, number in enumerate(threads):
            set_max_threads(number)
            memory = measure.PeakMemory()
            run(inputs)
            peak = memory.bytes()
            peaks[k] = peak if peak is None else max(peak, peaks[k] or 0)
            started = time.perf_counter()
            run(inputs)
            seconds[k].append(time.perf_counter() - started)
    work.close(inputs)
    return [
        measure.Measured.of([each[0], *each], peak)  # which leaves out the first, as it is not warm
        for each, peak in zip(seconds, peaks, strict=True)
    ]


def lines(
    row: str, setting: Setting, threads: list[int], found: list[measure.Measured]
) -> list[list[str]]:
    """Cells of the table's lines."""
    work = ROWS[row]
    name = next(iter(work.ours()))
    beside = found[threads.index(2) if 2 in threads else 0]
    return [
        [
            name,
            work.describe(setting),
            str(number),
            measure.duration(each.seconds),
            measure.duration(each.fastest),
            f"{beside.seconds / each.seconds:.2f}×",
            f"{beside.fastest / each.fastest:.2f}×",
            measure.megabytes(each.peak_bytes),
        ]
        for number, each in zip(threads, found, strict=True)
    ]


if __name__ == "__main__":
    main()
