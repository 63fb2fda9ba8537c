"""What `twintrack study` finds on LIDC: scores simulated from the outlines, and their tallies.

    python benchmarks/lidc_study.py FOLDER                    # tallies: two minutes a model
    twintrack study --tallies FOLDER/over --tallies FOLDER/aligned -o FOLDER/study    # again

Cases are the nodules that all four readers outlined, in boxes 10 mm beyond the outlines; patients
are LIDC's. One reader, drawn at random, stands for the model and the three others are the raters.
"over" is an over-confident, over-segmenting ensemble: the defaults of `lidc.simulate_score`.
"aligned" follows another draw of the reader, and shrinks the outline by .1 mm in the mean, so that
volumes are nearly right without a map; it is the model of which a map helps least. Their parameters
are `MODELS`. Voxels are tallied twice: all, and those in the box around all four outlines without a
margin ("roi").

Prints how long the study took. The figures are in FOLDER/study/study.html, and beside those of
others in docs/study.md.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np

from twintrack import ScoreTally
from twintrack.datasets import lidc
from twintrack.runs.fit import TallyJob
from twintrack.runs.records import Entry
from twintrack.runs.stamps import FileStamp
from twintrack.runs.store import Store

MODELS: Mapping[str, Mapping[str, Any]] = {
    "over": {
        "growths": (0.5, 1.0, 1.5),  # mm
        "temperature": 0.3,  # mm
        "roughness": 0.5,  # mm
        "correlation": 3.0,  # mm
        "seed": 0,
    },
    "aligned": {
        "growths": (-0.6, -0.1, 0.4),
        "temperature": 0.3,
        "roughness": 0.5,
        "correlation": 3.0,
        "seed": 1,
    },
}
MARGIN = 10.0  # mm beyond the outlines


def write_tallies(
    nodules: Sequence[lidc.LidcNodule], parameters: Mapping[str, Any], folder: Path
) -> None:
    """Simulate the score of each nodule and store its tallies, as fits of a cohort do."""
    names = [nodule.case for nodule in nodules]
    with (
        Store(folder, TallyJob.kind, TallyJob("all").options).writing(names) as everywhere,
        Store(folder, TallyJob.kind, TallyJob("roi").options).writing(names) as inside,
    ):
        for nodule in nodules:
            case = lidc.rasterise(nodule, margin=MARGIN)
            score, raters = lidc.simulate_score(case, **parameters)
            marked = np.nonzero(case.masks.any(axis=0))
            roi = np.zeros(score.shape, np.bool_)
            roi[tuple(slice(index.min(), index.max() + 1) for index in marked)] = True
            for store, region in ((everywhere, None), (inside, roi)):
                rule = "all" if region is None else "roi"
                tally = ScoreTally(len(raters)).update(score, raters, region, rule=rule).compact()
                place = store.tally_path(case.case)
                tally.save(store.staged(place.name))
                digest = hashlib.sha256(np.ascontiguousarray(score)).hexdigest()
                entry = Entry(
                    case.case,
                    {"score": FileStamp(f"{case.case}.npy", score.nbytes, None, digest)},
                    score.size,
                    {"voxels_in_region": tally.voxels, "ensemble": {}},
                    {"tally": store.stamp_staged(place.name, place)},
                ).of_patient(case.patient)
                store.save(entry, {store.staged(place.name): place})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodules", type=measure.count, help="the first so many; default all")
    parser.add_argument("--study", nargs=argparse.REMAINDER, default=[], help="options of study")
    given = parser.parse_args()
    print(measure.machine(["twintrack", "numpy", "pylidc"]))
    for name, parameters in MODELS.items():
        if not (given.folder / name).exists():
            begin = time.perf_counter()
            write_tallies(lidc.read_nodules(limit=given.nodules), parameters, given.folder / name)
            print(f"{name}: tallies in {time.perf_counter() - begin:.0f} s", flush=True)
    begin = time.perf_counter()
    stores = [f"--tallies={name}={given.folder / name}" for name in MODELS]
    command = [sys.executable, "-m", "twintrack", "study", *stores, "-o", given.folder / "study"]
    status = subprocess.run([*command, *given.study], check=False).returncode
    print(f"study: {time.perf_counter() - begin:.0f} s")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
