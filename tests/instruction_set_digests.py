"""Prints a digest of what each hot loop computes, as JSON, for test_instruction_set.py to compare.

Run as a program of its own: the instruction set is read from the environment once per process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from twintrack import CalibrationMap, Calibrator, ScoreTally, _core

VOXELS = 70_001  # more than one task of the core, and no multiple of any vector's length


def digest(*arrays: NDArray[np.generic]) -> str:
    """Hash of the arrays' bytes."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def digests() -> Iterator[tuple[str, str]]:
    """Name and digest of each result, on seeded scores with ties, both ends and a mask."""
    rng = np.random.default_rng(0)
    wide = rng.random(VOXELS)
    wide[::7] = 0.0
    wide[1::11] = 1.0 - rng.random(wide[1::11].size) * 1e-9
    wide[2::13] = rng.random(wide[2::13].size) * 1e-40
    raters = [rng.random(VOXELS) < wide for _ in range(9)]
    region = rng.random(VOXELS) < 0.7
    knots = np.sort(rng.random((2, 250)), axis=1)
    for dtype in (np.float16, np.float32, np.float64):
        score = wide.astype(dtype)
        for step in (1, 2):  # contiguous, strided
            name = f"{np.dtype(dtype).name} step {step}"
            some = score[::step], [rater[::step] for rater in raters], region[::step]
            yield f"tally {name}", digest(*ScoreTally(9).update(*some).rows())
            yield f"map {name}", digest(CalibrationMap(*knots)(some[0]))
        bins = Calibrator(exact=True, bins=40).fit(score, raters).bins_
        yield f"exact bins {name}", digest(bins.count, bins.mean_score, bins.votes)


if __name__ == "__main__":
    print(json.dumps({"instruction set": _core.instruction_set(), **dict(digests())}))
