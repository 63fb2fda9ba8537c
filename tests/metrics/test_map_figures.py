"""Many maps at once have the figures that each has by itself."""

from __future__ import annotations

import numpy as np
import pytest

import twintrack as tt
from twintrack.metrics.crps import crps_corrected, crps_corrected_each
from twintrack.metrics.debiased_error import debiased_error, error_of_bins
from twintrack.metrics.map_figures import figures_of_maps
from twintrack.metrics.mapped_voxels import mapped_voxels

MAPS = (
    None,
    tt.CalibrationMap([0.0, 1.0], [0.0, 0.3]),
    tt.CalibrationMap([0.0, 0.4, 0.5, 1.0], [0.0, 0.0, 0.8, 0.97]),
    tt.CalibrationMap([0.5], [0.38]),  # on a threshold, which is not exceeded
)


def case(seed, dtype=np.float32, raters=3, unseen=False):
    rng = np.random.default_rng(seed)
    score = rng.random((9, 10, 11)).astype(dtype)
    marks = [np.asarray(rng.random(score.shape) < score**2, np.uint8) for _ in range(raters)]
    if unseen:
        marks[0][:4] = 255
    return tt.ScoreTally(raters).update(score, marks, ignore_label=255 if unseen else None)


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize(("dtype", "raters"), [("float16", 5), ("float32", 3), ("float64", 1)])
def test_the_figures_are_those_of_each_map(dtype, raters, unseen):
    tally = case(1, dtype, raters + unseen, unseen)
    found = figures_of_maps(tally, MAPS)
    for k, one in enumerate(MAPS):
        want = tt.evaluate_tally(tally, one, protocol="corrected")
        assert found.tdsc[k] == want.tdsc
        assert found.predicted[k] == pytest.approx(want.predicted_volume, rel=1e-12)
        assert found.crps[k] == pytest.approx(want.crps, rel=1e-9, nan_ok=True)
        assert np.isnan(found.crps[k]) == unseen
    assert found.marked == pytest.approx(tally.response)
    assert found.count.shape == (0, 50)


def test_bins_are_those_of_the_debiased_error():
    tallies = [case(seed) for seed in range(4)]
    found = [figures_of_maps(tally, MAPS, 3) for tally in tallies]
    for k, one in enumerate(MAPS[:3]):
        count, off = (np.stack([getattr(f, part)[k] for f in found]) for part in ("count", "off"))
        want = debiased_error([mapped_voxels(tally, one) for tally in tallies])
        assert error_of_bins(count, off) == pytest.approx(want, rel=1e-9)


def test_no_voxels_and_no_marks():
    nothing = figures_of_maps(tt.ScoreTally(2), MAPS)
    assert nothing.tdsc.tolist() == [1.0] * 4
    assert np.isnan(nothing.crps).all()
    score = np.full((2, 2, 2), 0.05, np.float32)
    empty = tt.ScoreTally(2).update(score, np.zeros((2, 2, 2, 2), np.uint8))
    assert figures_of_maps(empty, (None,)).tdsc.tolist() == [1.0]


@pytest.mark.parametrize("volumes", [(100.0, 130.0, 90.0), (7.0,), (5.0, 5.0, 5.0), (0.0, 1e6)])
def test_crps_of_many_predictions(volumes):
    mean, spread = np.mean(volumes), np.std(volumes)
    predicted = np.abs(np.concatenate([mean + spread * np.linspace(-5, 5, 41), [0.0, 1e7]]))
    want = [crps_corrected(float(one), volumes) for one in predicted]
    found = crps_corrected_each(predicted, np.array(volumes))
    assert found == pytest.approx(want, rel=1e-9, abs=1e-9)
