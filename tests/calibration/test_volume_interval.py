"""The interval of a new case's volume: the formula, what it must hold, and that it is kept."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest
from reference import fitted_map
from scipy import stats

import twintrack as tt
from twintrack.calibration.map_band import band_scores
from twintrack.calibration.volume_interval import VolumeSpread
from twintrack.errors import InputError

BINS = 6
PATIENTS = ["P", "P", "Q", "R", "R", "R", "S"]


def cohort(seed=0, raters=3):
    """Cases of other sizes and biases, one of them without a mark."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(len(PATIENTS)):
        score = rng.random(rng.integers(100, 2000)).astype(np.float16)
        response = score.astype(float) ** rng.uniform(1, 3) * (number != 3)
        made.append((score, [rng.random(score.size) < response for _ in range(raters)]))
    return made


def fitted(cases, patients=PATIENTS, order=None, **parameters):
    made = tt.Calibrator(**{"bins": BINS, **parameters})
    for k in range(len(cases)) if order is None else order:
        made.partial_fit(*cases[k], case=str(k), group=patients and patients[k])
    return made


def plain_interval(cases, patients, predicted, level, bounds=(0, 1), weights=None):
    """The formula from voxels, in plain NumPy."""
    volumes = []
    for (score, raters), patient in zip(cases, patients, strict=True):
        rest = [
            k
            for k, p in enumerate(patients)
            if p != patient
            for _ in range((weights or {}).get(k, 1))
        ]
        x, y = fitted_map(
            np.concatenate([cases[k][0] for k in rest]).astype(float),
            np.concatenate([cases[k][1] for k in rest], axis=1),
            BINS,
        )
        values = np.clip(np.interp(score.astype(float), x, y), *bounds)
        volumes.append((values.sum(), np.sum(raters) / len(raters)))
    expected, found = np.array(volumes).T
    k = max(1, np.median(expected) / 10)
    error = np.log((found + k) / (expected + k))
    counts = np.unique(patients, return_counts=True)[1]
    n = counts.sum() ** 2 / np.sum(counts**2)
    spread = np.sqrt(np.mean((error - error.mean()) ** 2) * n / (n - 1))
    reach = stats.t.ppf((1 + level) / 2, n - 1) * spread * np.sqrt(1 + 1 / n)
    ends = [np.exp(error.mean() + side * reach) * (predicted + k) - k for side in (-1, 1)]
    return np.maximum(ends, 0)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_formula(seed, level):
    cases, predicted = cohort(seed), np.array([[0.0, 3.5], [80, 1e6]])
    found = fitted(cases).volume_interval(predicted, level)
    low, high = plain_interval(cases, PATIENTS, predicted, level)
    np.testing.assert_allclose(found.low, low, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.high, high, rtol=1e-7)
    assert found.low.shape == (2, 2)
    assert found.low[1, 1] > 0


def test_the_volumes_are_those_of_the_map_with_its_bounds_and_of_cases_counted_once():
    cases, weights = cohort(), {2: 3}
    made = tt.Calibrator(bins=BINS, floor=0.1, ceiling=0.6)
    for k, (score, raters) in enumerate(cases):
        made.partial_fit(score, raters, case=str(k), group=PATIENTS[k], weight=weights.get(k, 1))
    found = made.volume_interval(200)
    expected = plain_interval(cases, PATIENTS, 200, 0.95, (0.1, 0.6), weights)
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-7)


@pytest.mark.parametrize("target", ["mhr", "single", "none"])
def test_the_order_of_cases_and_the_names_of_patients_do_not_matter(target):
    cases = cohort()
    spread = fitted(cases, target=target).band().volumes
    assert spread == fitted(cases, order=[4, 2, 6, 0, 3, 5, 1], target=target).band().volumes
    other = [{"P": "x", "Q": "a", "R": "m", "S": "0"}[p] for p in PATIENTS]
    assert spread == fitted(cases, other, target=target).band().volumes
    assert (spread.cases, spread.groups) == (7, 4)


def test_follows_the_rater_of_a_single_map():
    cases = cohort()
    one = [(score, [raters[1]]) for score, raters in cases]
    made = fitted(cases, target="single", rater=1)
    assert made.volume_interval(50) == fitted(one).volume_interval(50)


def test_raters_who_did_not_look_have_no_say():
    cases = cohort()
    missing = [(score, [raters[0], None, raters[2]]) for score, raters in cases]
    two = [(score, [raters[0], raters[2]]) for score, raters in cases]
    assert fitted(missing).volume_interval(50) == fitted(two).volume_interval(50)


def test_the_identity_has_one():
    """It is fitted to nobody, and its volumes are as wrong as those of another map."""
    cases = cohort()
    spread = fitted(cases, target="none").band().volumes
    predicted = np.array([score.astype(float).sum() for score, _ in cases])
    marked = np.array([np.sum(raters) / 3 for _, raters in cases])
    k = np.median(predicted) / 10
    assert spread.offset == pytest.approx(k)
    assert spread.centre == pytest.approx(np.log((marked + k) / (predicted + k)).mean())


def test_holds_new_cases_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held = []
    for _ in range(400):
        volumes = rng.lognormal(6, 1.5, 11)
        marked = volumes * rng.lognormal(-0.1, 0.4, 11)
        spread = VolumeSpread.of_groups([[pair] for pair in zip(volumes, marked, strict=True)][:10])
        found = spread.interval(volumes[10], 0.9)
        held.append(found.low <= marked[10] <= found.high)
    assert 0.86 < np.mean(held) < 0.94


def test_no_voxels_tell_nothing():
    pairs = [[(100.0, 90.0)], [(50.0, 60.0)], [(70.0, 71.0)]]
    assert VolumeSpread.of_groups([*pairs, []]) == VolumeSpread.of_groups(pairs)
    assert VolumeSpread.of_groups(pairs[:1]) is None
    cases = cohort()
    empty = fitted(cases).partial_fit(*cases[0], np.zeros(cases[0][0].shape), case="empty")
    assert empty.volume_interval(9) == fitted(cases).volume_interval(9)


def test_the_same_errors_everywhere_leave_no_width():
    spread = VolumeSpread.of_groups([[(100.0, 50.0)]] * 3)
    found = spread.interval([40, 0])
    np.testing.assert_allclose(found.low, found.high)
    assert spread.spread == 0


def test_almost_one_patient_leaves_all_open():
    spread = VolumeSpread.of_groups([[(100.0, 50.0), (80.0, 99.0)] * 5000, [(10.0, 9.0)]])
    found = spread.interval(60.0)
    assert (found.low, found.high) == (0, np.inf)


def test_units():
    spread = fitted(cohort()).band().volumes
    voxels, millimetres = spread.interval(30), spread.interval(60, voxel_volume=2)
    assert (millimetres.low, millimetres.high) == (2 * voxels.low, 2 * voxels.high)


@pytest.mark.parametrize("volume", [-1, np.nan, [1, np.inf]])
def test_refuses_what_is_no_volume(volume):
    with pytest.raises(InputError, match="volume"):
        fitted(cohort()).volume_interval(volume)


def test_cases_that_are_in_a_sum_are_asked_for():
    cases = cohort()
    made = fitted(cases[1:], PATIENTS[1:])
    two = tt.ScoreTally(3).update(*cases[0])
    made.add_tally(two, "both", cases=2, group="T")
    assert made.band().volumes is None
    with pytest.raises(InputError, match="sum alone"):
        made.volume_interval(10)


@pytest.mark.parametrize("kind", ["pointwise", "simultaneous"])
def test_is_kept_with_the_band_and_the_map(tmp_path, kind):
    made = fitted(cohort())
    plain = json.loads(saved(made, tmp_path / "plain.json"))
    assert not {"band", "volumes"} & set(plain)
    exact = made.band(band_scores(made.map_), 0.9, kind)
    made.keep_band(exact)
    content = json.loads(saved(made, tmp_path / "kept.json"))
    assert {name: content[name] for name in plain} == plain
    assert len(content["band"]["x"]) <= 1001 + 3 * BINS
    loaded = tt.load_calibrator(tmp_path / "kept.json")
    assert loaded.band_ == made.band_
    assert (loaded.band_.level, loaded.band_.kind) == (0.9, kind)
    assert loaded.volume_interval(70) == made.volume_interval(70)
    assert loaded.provenance_ == made.provenance_
    assert saved(loaded, tmp_path / "again.json") == saved(made, tmp_path / "kept.json")
    assert pickle.loads(pickle.dumps(made)).band_ == made.band_
    at = np.random.default_rng(0).random(100)
    band = made.band(at, 0.9, kind)
    np.testing.assert_allclose(loaded.band_.lower_map(at), band.low, atol=1e-3)
    np.testing.assert_allclose(loaded.band_.upper_map(at), band.high, atol=1e-3)
    for kept, limit in (("lower_map", exact.low), ("upper_map", exact.high)):
        np.testing.assert_array_equal(getattr(loaded.band_, kept)(exact.score), limit)


def saved(calibrator, path):
    calibrator.save(path)
    return path.read_text()


def test_goes_when_the_map_does():
    made, cases = fitted(cohort()).keep_band(), cohort(1)
    assert made.band_ is not None
    made.partial_fit(*cases[0], case="new")
    assert made.band_ is None
    with pytest.raises(InputError, match="another map"):
        made.keep_band(fitted(cases).band())


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (("band", "low", 1), 1.5, "band is broken"),
        (("band", "low", -1), 1.0, "band is broken"),
        (("band", "kind"), "wide", "kind"),
        (("band", "level"), 1.0, "level"),
        (("volumes", "offset"), 0.0, "offset"),
        (("volumes", "spread"), -1.0, "spread"),
        (("volumes", "effective_groups"), 1.0, "effective_groups"),
    ],
)
def test_a_damaged_band_is_named(tmp_path, place, value, match):
    path = tmp_path / "map.json"
    content = json.loads(saved(fitted(cohort()).keep_band(), path))
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=match) as caught:
        tt.load_calibrator(path)
    assert "map.json" in str(caught.value)


def test_a_band_without_volumes_is_kept_too(tmp_path):
    made = fitted(cohort())
    made.keep_band(dataclasses.replace(made.band(), volumes=None))
    assert "volumes" not in json.loads(saved(made, tmp_path / "map.json"))
    assert tt.load_calibrator(tmp_path / "map.json").band_.volumes is None
