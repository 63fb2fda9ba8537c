"""Scores outside [0, 1] by a rounding: runs set them to the bound and note how many there are."""

from __future__ import annotations

import numpy as np
import pytest

from twintrack.calibration.calibrator import Calibrator
from twintrack.cohort import Case
from twintrack.runs.evaluate import EvaluateJob
from twintrack.runs.fit import TallyJob
from twintrack.volumes import write_volume


def case(off=True):
    rng = np.random.default_rng(0)
    score = rng.random((6, 7, 8)).astype(np.float32)
    above = np.nextafter(np.float32(1), np.float32(2))
    score[1, 2, 3], score[4, 5, 6], score[5, 0, 0] = (above, -1e-9, -1e-9) if off else (1, 0, 0)
    return score, rng.integers(0, 2, (3, *score.shape), np.uint8)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".npy"])
def test_runs_note_it(tmp_path, suffix):
    raters = []
    for k, mask in enumerate(case()[1]):
        raters.append(tmp_path / f"r{k}.nii.gz")
        write_volume(raters[k], mask, np.eye(4))
    files = {}
    for off in (True, False):
        files[off] = tmp_path / f"score_{off}{suffix}"
        array = case(off=off)[0]
        if suffix == ".npy":
            np.save(files[off], array)
        else:
            write_volume(files[off], array, np.eye(4))
    calibrator = Calibrator(bins=9).fit(*case(off=False))
    for job in (TallyJob("all"), EvaluateJob(), EvaluateJob(calibrator=calibrator)):
        given, exact = (Case("A", files[off], tuple(raters)) for off in (True, False))
        found, expected = (job.compute(job.read(one)) for one in (given, exact))
        assert found.tally == expected.tally
        notes = set(found.result.get("notes", [])) - set(expected.result.get("notes", []))
        assert notes == {"3 scores are outside [0, 1] by at most 1e-06 and set to the bound"}
