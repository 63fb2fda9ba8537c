"""Prints, side by side, what TwinTrack and the packages one would otherwise take need for a work.

Both run on the same arrays in the same process, in turns, on all cores that the process may use
(the peers take what they can). Every input of a row has a process of its own. Times are medians
after a first run; what has taken 15 seconds is not repeated. Memory is the peak beyond the
inputs, results included. Peers that are not installed are named with what installs them.

    python benchmarks/peers.py                              # every row
    python benchmarks/peers.py fit apply --voxels 1e6 1e7 --distributions background
    python benchmarks/peers.py evaluate vascular --official CHALLENGE/evaluation_metrics
    python benchmarks/peers.py fit --before HEAD~20 --voxels 1e5 1e8 --raters 1 5 8 --threads 2
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import before
import measure
from rows.metrics.official import MODULE
from rows.row import NotRunError, Row, Setting, Sizes
from rows.table import ROWS
from suite.inputs import DISTRIBUTIONS

COLUMNS = (
    "work",
    "inputs",
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
SMALL = Sizes((10**5,), ("background",), shape=(64, 64, 40), members=(3,), cases=2, resamples=200)
INSTALL = "pip install --group bench-peers"


def main() -> None:
    arguments = parse()
    if arguments.child:
        # Some peers print what they are doing, between which the answer could not be found.
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            found = compare(**json.loads(arguments.child))
        print(json.dumps(found))
        return
    started = time.perf_counter()
    packages = dict.fromkeys(name for row in arguments.rows for name in ROWS[row].packages)
    print(measure.machine(["twintrack", *packages]))
    for name, what in DISTRIBUTIONS.items():
        print(f"{name}: {what}")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    results = []
    for row in arguments.rows:
        for setting in ROWS[row].settings(arguments.sizes):
            result = in_own_process(row, setting, arguments)
            results.append(result)
            for line in lines(result):
                print(f"| {' | '.join(line)} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--voxels", nargs="+", type=measure.count, help="of fit, apply and ece")
    parser.add_argument(
        "--distributions", nargs="+", choices=DISTRIBUTIONS, help="of fit, apply and ece"
    )
    parser.add_argument("--raters", nargs="+", type=int, help="of fit; 5 by default")
    parser.add_argument("--shape", nargs=3, type=int, help="of a CT; 512 512 160 by default")
    parser.add_argument(
        "--members", nargs="+", type=int, help="networks, of evaluate's score; 1 and 3 by default"
    )
    parser.add_argument("--cases", type=int, help="in the cohort")
    parser.add_argument("--resamples", type=int, help="of the bootstrap")
    parser.add_argument(
        "--official",
        type=Path,
        metavar="FOLDER",
        help=f"the challenge's evaluator: has {MODULE}.py",
    )
    parser.add_argument(
        "--before",
        metavar="COMMIT",
        help="beside this commit's package alone, in turns; builds it if it is not there",
    )
    parser.add_argument(
        "--threads", type=int, help="of ours and numba's; as many as cores by default"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side at most")
    parser.add_argument("--small", action="store_true", help="small inputs: only whether it runs")
    parser.add_argument("--json", type=Path, help="file for the results in full")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for row in arguments.rows:
        if row not in ROWS:
            parser.error(f"there is no row {row!r}; there are {', '.join(ROWS)}")
    if arguments.official and not (arguments.official / f"{MODULE}.py").is_file():
        parser.error(f"--official: {arguments.official} has no {MODULE}.py")
    arguments.rows = arguments.rows or list(ROWS)
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if name in vars(SMALL) and value is not None
    }
    arguments.site = arguments.before and str(before.build(arguments.before))
    arguments.sizes = Sizes(**{**(vars(SMALL) if arguments.small else {}), **given})
    return arguments


def in_own_process(row: str, setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    asked = {"row": row, "setting": setting}
    asked |= {name: getattr(arguments, name) for name in ("repeats", "before", "site")}
    task = json.dumps(asked)
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = {} if arguments.threads is None else dict.fromkeys(names, str(arguments.threads))
    finished = subprocess.run(
        [sys.executable, __file__, "--child", task],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **threads},
    )
    if finished.returncode != 0:
        sys.exit(f"{task} failed with exit status {finished.returncode}")
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def compare(
    row: str, setting: Setting, repeats: int, before: str | None, site: str | None
) -> dict[str, Any]:
    """Measure one input of a row."""
    work = ROWS[row]
    small = work.prepare(work.warm_up(setting))
    inputs = work.prepare(setting)
    try:
        for run in work.ours().values():
            run(small)  # loads all code and starts all threads before anything is measured
        if site is None:
            found = beside_peers(work, setting, small, inputs, repeats)
        else:
            found = beside_earlier(work, setting, inputs, repeats, f"before, {before}", Path(site))
        return {"row": row, "setting": setting, **found}
    finally:
        work.close(small)
        work.close(inputs)


def beside_peers(
    work: Row, setting: Setting, small: Any, inputs: Any, repeats: int
) -> dict[str, dict[str, Any]]:
    works = {name: partial(run, inputs) for name, run in work.ours().items()}
    peers: dict[str, Any] = {}
    for name, run in work.peers().items():
        reason = obstacle(work, setting, run, small)
        if reason is None:
            works[name] = partial(run, inputs)
        peers[name] = {"not run": reason}
    found = measure.in_rounds(works, repeats)
    ours = {name: of_ours(work, name, inputs, found[name]) for name in work.ours()}
    for name in peers.keys() & found.keys():
        peers[name] = {
            **figures(found[name]),
            "difference": {
                mine: dict(work.difference(inputs, found[mine].answer, found[name].answer))
                for mine in ours
            },
        }
    return {"ours": ours, "peers": dict.fromkeys(ours, peers)}


def beside_earlier(
    work: Row, setting: Setting, inputs: Any, repeats: int, peer: str, site: Path
) -> dict[str, dict[str, Any]]:
    ours: dict[str, Any] = {}
    peers: dict[str, Any] = {}
    with before.Earlier(site, work, setting, inputs) as earlier:
        for name, run in work.ours().items():
            try:
                found, theirs = before.in_turns(partial(run, inputs), earlier, name, repeats)
                peers[name] = {peer: {**figures(theirs), "difference": {}}}
            except RuntimeError as error:
                found = measure.measure(partial(run, inputs), repeats)
                peers[name] = {peer: {"not run": str(error)}}
            ours[name] = of_ours(work, name, inputs, found)
    return {"ours": ours, "peers": peers}


def of_ours(work: Row, name: str, inputs: Any, found: measure.Measured) -> dict[str, Any]:
    traffic = work.traffic(name, inputs)
    limit = {} if traffic is None else {"limit": work.limit(name, inputs)}
    return {**figures(found), "traffic": traffic, **limit}


def obstacle(work: Row, setting: Setting, run: Callable[[Any], Any], small: Any) -> str | None:
    """Why a peer cannot run, if so; loads its code."""
    memory = measure.available_bytes()
    if memory is not None and memory < work.peer_bytes(setting):
        return "needs more memory than there is"
    try:
        run(small)
    except NotRunError as error:
        return str(error)
    except ImportError as error:
        return f"{error.name} is not installed ({INSTALL})"
    return None


def figures(found: measure.Measured) -> dict[str, Any]:
    return {name: value for name, value in vars(found).items() if name != "answer"}


def lines(result: dict[str, Any]) -> Iterable[list[str]]:
    """Cells of the table's lines: every way of ours beside every peer."""
    row = ROWS[result["row"]]
    for work, ours in result["ours"].items():
        speeds = ["", "", ""]
        if ours["traffic"] is not None:
            rate, limit = (
                ours["traffic"] / each / 1e9 for each in (ours["seconds"], ours["limit"])
            )
            speeds = [f"{rate:.1f}", f"{limit:.1f}", f"{rate / limit:.0%}"]
        for name, peer in result["peers"][work].items():
            ran = "not run" not in peer
            yield [
                work,
                row.describe(result["setting"]),
                measure.duration(ours["seconds"]),
                f"{name}: " + (measure.duration(peer["seconds"]) if ran else peer["not run"]),
                ratios(row, ours, peer) if ran else "",
                row.goal(work, name, result["setting"]),
                *speeds,
                measure.megabytes(ours["peak_bytes"]),
                measure.megabytes(peer["peak_bytes"]) if ran else "",
                differences(peer["difference"].get(work, {})) if ran else "",
            ]


def ratios(row: Row, ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """Of the medians; where both ran more than once, of the fastest runs too."""
    of_medians = row.ratio(ours["seconds"], peer["seconds"])
    if peer["runs"] == 1:
        return of_medians
    return f"{of_medians}, fastest {row.ratio(ours['fastest'], peer['fastest'])}"


def differences(found: dict[str, float]) -> str:
    return ", ".join(f"{what} {gap:.1e}" if gap else f"{what} 0" for what, gap in found.items())


if __name__ == "__main__":
    main()
