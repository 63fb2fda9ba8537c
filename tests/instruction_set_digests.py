"""Prints a digest of what each hot loop computes, as JSON, for test_instruction_set.py to compare.

Run as a program of its own: the instruction set is read from the environment once per process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack import CalibrationMap, Calibrator, ScoreTally, _core
from twintrack.ensemble import ExportGeometry, ensemble_score, export_score
from twintrack.metrics import CaseTally
from twintrack.metrics.vascular import contact_degrees

VOXELS = 70_001  # more than one task of the core, and no multiple of any vector's length


def digest(*arrays: NDArray[np.generic]) -> str:
    """Hash of the arrays' bytes."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def digests() -> Iterator[tuple[str, str]]:
    """Name and digest of each result."""
    yield from voxel_by_voxel()
    yield from contact()
    yield from ensemble()


def voxel_by_voxel() -> Iterator[tuple[str, str]]:
    """Tallies and maps, on seeded scores with ties, both ends and a mask."""
    rng = np.random.default_rng(0)
    wide = rng.random(VOXELS)
    wide[::7] = 0.0
    wide[1::11] = 1.0 - rng.random(wide[1::11].size) * 1e-9
    wide[2::13] = rng.random(wide[2::13].size) * 1e-40
    raters = [rng.random(VOXELS) < wide for _ in range(9)]
    region = rng.random(VOXELS) < 0.7
    knots = np.sort(rng.random((2, 250)), axis=1)
    crowded = np.sort([1 / 3 + 10 ** -rng.uniform(1, 7, 250), rng.random(250)], axis=1)
    wide[3::13] = 1 / 3 + 10 ** -rng.uniform(1, 7, wide[3::13].size)
    for dtype in (np.float16, np.float32, np.float64):
        score = wide.astype(dtype)
        for step in (1, 2):  # contiguous, strided
            name = f"{np.dtype(dtype).name} step {step}"
            some = score[::step], [rater[::step] for rater in raters], region[::step]
            yield f"tally {name}", digest(*ScoreTally(9).update(*some).pooled_rows())
            yield f"map {name}", digest(CalibrationMap(*knots)(some[0]))
            yield f"crowded map {name}", digest(CalibrationMap(*crowded)(some[0]))
            yield f"case tally {name}", digest(case_sums(*some))
            yield f"case tally without region {name}", digest(case_sums(*some[:2]))
        bins = Calibrator(exact=True, bins=40).fit(score, raters).bins_
        yield f"exact bins {name}", digest(bins.count, bins.mean_score, bins.votes)


def case_sums(*case: Any) -> NDArray[np.uint64]:
    """All sums of a CaseTally of one case."""
    tally = CaseTally(len(case[1])).update(*case)
    sums: NDArray[np.uint64] = tally.by_set()[tuple(range(tally.raters))].sums
    return sums


def contact() -> Iterator[tuple[str, str]]:
    """Contact angles of a frayed tumour and vessels of three labels that run through it."""
    rng = np.random.default_rng(1)
    shape = (45, 70, 90)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    radius = np.sqrt((place**2).sum(axis=0))
    wide = np.clip(1.1 - radius + rng.normal(0, 0.15, shape), 0, 1)
    raters = [radius + rng.normal(0, 0.1, shape) < limit for limit in (0.4, 0.5, 0.6)]
    vessels = np.zeros(shape, np.uint8)
    for axis, label in enumerate((1, 3, 5)):
        across = np.delete(place, axis, axis=0) - 0.3
        vessels[(across**2).sum(axis=0) < 0.02] = label
    for dtype in (np.float16, np.float32, np.float64):
        degrees = contact_degrees(wide.astype(dtype), raters, vessels)
        assert (degrees.raters > 0).any()
        assert (degrees.thresholds > 0).any()
        yield f"contact {np.dtype(dtype).name}", digest(degrees.raters, degrees.thresholds)


def ensemble() -> Iterator[tuple[str, str]]:
    """Merged members, on their own grid and resampled to the image's, both ways."""
    rng = np.random.default_rng(2)
    knots = CalibrationMap(*np.sort(rng.random((2, 50)), axis=1))
    geometry = ExportGeometry((40, 31, 150), ((0, 40), (1, 31), (0, 149)), (1, 1, 1), (1, 1, 1))
    for dtype in (np.float16, np.float32):
        members = [(rng.normal(size=(4, 13, 14, 75)) * 5).astype(dtype) for _ in range(3)]
        for rule, options in {
            "softmax": {},
            "mean of logits": {"average": "logits"},
            "regions": {"regions": True},
            "calibrated": {"calibrator": knots},
        }.items():
            name = f"{rule} {np.dtype(dtype).name}"
            yield f"ensemble {name}", digest(ensemble_score(members, (1, 2), **options))
            for resampling in ("nnunet", "torch"):
                score = export_score(members, geometry, (1, 2), resampling=resampling, **options)
                yield f"export {resampling} {name}", digest(score)


if __name__ == "__main__":
    print(json.dumps({"instruction set": _core.instruction_set(), **dict(digests())}))
