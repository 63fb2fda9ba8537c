"""Prints, side by side, what TwinTrack and the packages one would otherwise take need for a work.

Both run on the same arrays in the same process, one after the other, on all cores that the process
may use (the peers take what they can). Every size and distribution of a row has a process of its
own. Times are medians; memory is the peak beyond the inputs, results included.

    python benchmarks/peers.py                              # every row, 10^8 voxels
    python benchmarks/peers.py fit apply --voxels 1e6 1e7 --distributions background
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import measure
from rows import ROWS
from suite.inputs import DISTRIBUTIONS

COLUMNS = (
    "work",
    "voxels",
    "scores",
    "ours",
    "peer",
    "ratio",
    "goal",
    "GB/s",
    "limit GB/s",
    "of limit",
    "memory, ours",
    "memory, peer",
    "difference",
)


def main() -> None:
    arguments = parse()
    if arguments.child:
        print(json.dumps(compare(**json.loads(arguments.child))))
        return
    packages = dict.fromkeys(name for row in arguments.rows for name in ROWS[row].packages)
    print(measure.machine(["twintrack", *packages]))
    for name in arguments.distributions:
        print(f"{name}: {DISTRIBUTIONS[name]}")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    results = []
    for row in arguments.rows:
        for voxels in arguments.voxels:
            for distribution in arguments.distributions:
                task = {
                    "row": row,
                    "voxels": voxels,
                    "distribution": distribution,
                    "repeats": arguments.repeats,
                }
                result = in_own_process(task)
                results.append(result)
                for line in lines(result):
                    print(f"| {' | '.join(line)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--voxels", nargs="+", type=measure.count, default=[10**8])
    parser.add_argument(
        "--distributions", nargs="+", choices=DISTRIBUTIONS, default=[*DISTRIBUTIONS]
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each side at most")
    parser.add_argument("--json", type=Path, help="file for the results in full")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for row in arguments.rows:
        if row not in ROWS:
            parser.error(f"there is no row {row!r}; there are {', '.join(ROWS)}")
    arguments.rows = arguments.rows or list(ROWS)
    return arguments


def in_own_process(task: dict[str, Any]) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(task)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        sys.exit(f"{task} failed with exit status {finished.returncode}")
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def compare(row: str, voxels: int, distribution: str, repeats: int) -> dict[str, Any]:
    """Measure one row."""
    work = ROWS[row]
    # Load all code and start all threads before anything is measured.
    small = work.prepare(1000, distribution)
    work.ours(small)
    prepared = work.prepare(voxels, distribution)
    ours = measure.measure(lambda: work.ours(prepared), repeats)
    result: dict[str, Any] = {
        "row": row,
        "voxels": voxels,
        "distribution": distribution,
        "ours": figures(ours),
        "traffic": work.traffic(prepared),
        "limit": work.limit(prepared),
        "peers": {},
    }
    for name, peer in work.peers().items():
        memory = measure.available_bytes()
        if memory is not None and memory < work.peer_bytes_per_voxel * voxels:
            result["peers"][name] = {"not run": "needs more memory than there is"}
            continue
        try:
            peer(small)
        except ImportError as error:
            result["peers"][name] = {"not run": f"{error.name} is not installed"}
            continue
        theirs = measure.measure(lambda peer=peer: peer(prepared), repeats)
        result["peers"][name] = {
            **figures(theirs),
            "difference": work.difference(prepared, ours.answer, theirs.answer),
        }
    return result


def figures(measured: measure.Measured) -> dict[str, Any]:
    return {name: value for name, value in vars(measured).items() if name != "answer"}


def lines(result: dict[str, Any]) -> Iterable[list[str]]:
    """Cells of the table's lines, one for each peer."""
    row, ours = ROWS[result["row"]], result["ours"]
    rate = result["traffic"] / ours["seconds"] / 1e9
    limit = result["traffic"] / result["limit"] / 1e9
    for name, peer in result["peers"].items():
        ran = "not run" not in peer
        yield [
            row.work,
            measure.power(result["voxels"]),
            result["distribution"],
            measure.duration(ours["seconds"]),
            f"{name}: " + (measure.duration(peer["seconds"]) if ran else peer["not run"]),
            f"{peer['seconds'] / ours['seconds']:.0f}×" if ran else "",
            row.goal,
            f"{rate:.1f}",
            f"{limit:.1f}",
            f"{rate / limit:.0%}",
            measure.megabytes(ours["peak_bytes"]),
            measure.megabytes(peer["peak_bytes"]) if ran else "",
            f"{peer['difference']:.1e}" if ran else "",
        ]


if __name__ == "__main__":
    main()
