"""Prints how long refits from stored tallies take: no voxel is read.

    python benchmarks/refit.py                       # 10,000 cases of 30,000 voxels
    python benchmarks/refit.py --cases 2000 --voxels 1e6 --raters 5

The store is made of a few tallies, repeated under other names; each is read by itself. "first" is
the first refit, which reads all files and packs them; "cold" would need the page cache to be
emptied, which is not done. Every refit is checked against the sum of the tallies.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import measure
import numpy as np

from twintrack import Calibrator, ScoreTally
from twintrack.calibration.map_band import BandKind
from twintrack.runs.case_band import band_over_cases
from twintrack.runs.case_thresholds import find_thresholds
from twintrack.runs.fit import KIND, fit_tallies, leave_one_out, read_tallies
from twintrack.runs.records import Entry
from twintrack.runs.stamps import read_stamp
from twintrack.runs.store import Store
from twintrack.runs.tally_pack import NAME

DIFFERENT = 16


def make_store(root: Path, cases: int, voxels: int, raters: int) -> ScoreTally:
    """Write a store and return the sum of its tallies."""
    rng = np.random.default_rng(0)
    total = ScoreTally(raters)
    score_file = root / "score"
    score_file.write_bytes(b"score")
    stamp = read_stamp(score_file)
    store = Store(root / "store", KIND, {"region": "roi", "tumour": [1]})
    names = [f"CASE_{k:05d}" for k in range(cases)]
    tallies = []
    for k in range(min(DIFFERENT, cases)):
        score = rng.random(voxels, np.float32) ** 6
        marks = [rng.random(voxels, np.float32) < score for _ in range(raters)]
        tallies.append(ScoreTally(raters).update(score, marks).compact())
        tallies[k].save(root / f"{k}.npz")
    with store.writing(names):
        for k, name in enumerate(names):
            which = k % len(tallies)
            place = store.tally_path(name)
            shutil.copyfile(root / f"{which}.npz", store.staged(place.name))
            outputs = {"tally": store.stamp_staged(place.name, place)}
            entry = Entry(name, {"score": stamp}, voxels, {"voxels_in_region": voxels}, outputs)
            store.save(entry, {store.staged(place.name): place})
            total += tallies[which]
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=measure.count, default=10_000)
    parser.add_argument("--voxels", type=measure.count, default=30_000, help="of each case")
    parser.add_argument("--raters", type=int, default=5)
    parser.add_argument("--leave-out", type=int, default=200, help="cases to time, scaled to all")
    given = parser.parse_args()
    print(measure.machine(["twintrack", "numpy"]))
    with tempfile.TemporaryDirectory() as folder:
        total = make_store(Path(folder), given.cases, given.voxels, given.raters)
        store = Path(folder) / "store"
        expected = Calibrator().add_tally(total, cases=given.cases).map_
        size = sum(path.stat().st_size for path in store.rglob("*.npz"))
        print(f"{given.cases:,} cases of {given.voxels:,} voxels; files of {size / 1e6:,.0f} MB")
        print("\n| refit | seconds |\n| --- | ---: |", flush=True)

        def refit(**parameters: Any) -> Calibrator:
            options, tallies = read_tallies(store)
            return fit_tallies(Calibrator(**parameters), tallies, options["region"])

        def leave_out() -> None:
            fits = leave_one_out(fitted, read_tallies(store)[1], "roi")
            for _, (_case, _fit) in zip(range(given.leave_out), fits, strict=False):
                pass

        fitted = timed("first: 250 bins", refit)
        if fitted.map_ != expected:
            raise RuntimeError("the refit is not that of the tallies' sum")
        pack = next(store.rglob(NAME), None)
        timed("250 bins", refit)
        timed(
            "its thresholds of masks by themselves",
            lambda: find_thresholds(fitted, read_tallies(store)[1]),
        )
        timed("one rater, 100 bins", lambda: refit(target="single", bins=100))
        timed(
            "half of the cases",
            lambda: fit_tallies(Calibrator(), read_tallies(store, only=["*[02468]"])[1], "roi"),
        )
        timed("bins by 5-fold cross-validation", lambda: refit(bins="auto"))
        part = min(1.0, given.leave_out / given.cases)
        timed(f"leave one case out, {part:.0%} of the cases", leave_out)
        for kind in get_args(BandKind):
            timed(
                f"{kind} band, each case left out",
                lambda kind=kind: band_over_cases(fitted, read_tallies(store)[1], kind=kind),
            )
        if pack is not None:
            print(f"\nThe pack takes {pack.stat().st_size / 1e6:,.0f} MB.")


def timed(what: str, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    answer = work()
    print(f"| {what} | {time.perf_counter() - started:.2f} |", flush=True)
    return answer


if __name__ == "__main__":
    main()
