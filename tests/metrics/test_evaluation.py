import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import twintrack as tt
from twintrack import _core
from twintrack.metrics import evaluate
from twintrack.metrics.crps import crps_exact_integral, crps_official

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return stored["score"], stored["raters"], stored["vessels"]


def value(answer):
    """A recorded figure; null and exceptions of the official evaluator are NaN of ours."""
    return np.nan if answer is None or isinstance(answer, dict) else answer


@pytest.mark.parametrize("name", EXPECTED)
def test_official_is_what_the_evaluator_recorded(name):
    score, raters, vessels = golden(name)
    expected = EXPECTED[name]
    found = evaluate(score, raters, vessels)
    assert found.tdsc == pytest.approx(value(expected["tdsc"]), abs=1e-12, nan_ok=True)
    assert found.ece == pytest.approx(value(expected.get("ece")), abs=5e-6, nan_ok=True)
    recorded = expected["ece_per_rater"]
    per_rater = (
        [np.nan] * 5 if "raises" in recorded else [value(recorded[str(i)]) for i in range(5)]
    )
    np.testing.assert_allclose(found.ece_per_rater, per_rater, rtol=0, atol=5e-6)
    assert found.crps == pytest.approx(value(expected["crps"]), rel=1e-6, nan_ok=True)
    assert found.rater_volumes.tolist() == expected["rater_volumes"]
    for vessel, distance in expected["vi"].items():
        assert found.vascular_invasion[vessel] == pytest.approx(
            value(distance), abs=1e-9, nan_ok=True
        )


@pytest.mark.parametrize(
    "name", [name for name, answer in EXPECTED.items() if answer["crps_exact_integral"] is not None]
)
def test_exact_integral(name):
    expected = EXPECTED[name]
    found = crps_exact_integral(expected["predicted_volume_float64"], expected["rater_volumes"])
    assert found == pytest.approx(expected["crps_exact_integral"], rel=1e-9)


@pytest.mark.parametrize("name", EXPECTED)
def test_corrected_is_defined_and_close_where_nothing_was_wrong(name):
    score, raters, vessels = golden(name)
    official, corrected = (
        evaluate(score, raters, vessels, protocol=p) for p in ("official", "corrected")
    )
    assert corrected.tdsc == official.tdsc
    assert np.isfinite(corrected.crps)
    assert all(np.isfinite(d) for d in corrected.vascular_invasion.values())
    assert np.isfinite(corrected.ece_per_rater).all()
    for found in (official, corrected):
        figures = (found.ece_probability, found.ece_mhr, found.ace, found.brier, *found.murphy)
        assert np.isfinite(figures).all()
        assert raters.any() or any("no rater marked anything" in note for note in found.notes)
    if np.isnan(official.ece):
        assert any("undefined" in note for note in official.notes)


@pytest.mark.parametrize("raters", [1, 3, 4, 7, 9])
def test_any_number_of_raters(raters):
    rng = np.random.default_rng(raters)
    score = np.zeros((40, 41, 42), np.float32)
    score[10:30, 10:30, 10:30] = rng.random((20, 20, 20))
    labels = [rng.random(score.shape) < score for _ in range(raters)]
    vessels = (rng.random(score.shape) < 0.2).astype(np.uint8)
    found = evaluate(score, labels, vessels, protocol="corrected")
    assert found.ece_per_rater.shape == found.rater_volumes.shape == (raters,)
    assert 0 < found.tdsc <= 1
    assert found.predicted_volume == pytest.approx(score.sum(dtype=float), abs=1e-6)
    mhr = np.mean(labels, axis=0)
    box = np.argwhere(mhr > 0)
    inside = tuple(
        slice(max(a - 20, 0), b + 20) for a, b in zip(box.min(0), box.max(0), strict=True)
    )
    assert found.brier == pytest.approx(np.mean((score[inside] - mhr[inside]) ** 2), abs=1e-9)


def test_order_of_raters_and_scale_of_voxels():
    score, raters, vessels = golden("typical_a")
    one, other = evaluate(score, raters, vessels), evaluate(score, raters[::-1], vessels)
    assert one.tdsc == other.tdsc
    assert one.crps == pytest.approx(other.crps, rel=1e-12)
    for vessel, distance in one.vascular_invasion.items():
        assert distance == pytest.approx(other.vascular_invasion[vessel], abs=1e-9)
    np.testing.assert_array_equal(one.ece_per_rater, other.ece_per_rater[::-1])
    scaled = evaluate(score, raters, voxel_volume=2.5, protocol="corrected")
    whole = evaluate(score, raters, protocol="corrected")
    assert scaled.crps == pytest.approx(2.5 * whole.crps, rel=1e-9)
    assert scaled.predicted_volume == 2.5 * whole.predicted_volume
    assert scaled.vascular_invasion == {}


def test_corrected_crps_tells_worse_from_bad():
    volumes = [90, 100, 110]
    assert crps_official(1e5, volumes) == pytest.approx(crps_official(1e6, volumes), rel=1e-2)
    from twintrack.metrics.crps import crps_corrected

    assert crps_corrected(1e6, volumes) > 5 * crps_corrected(1e5, volumes)
    assert crps_corrected(120, [100, 100, 100]) == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crps_official(1e5, volumes)


def brute_force(score, raters, protocol):
    """ECE by the text of the protocol, in float64 sums."""
    marked = np.argwhere(np.any(raters, axis=0))
    box = tuple(
        slice(max(a - 20, 0), b + 20) for a, b in zip(marked.min(0), marked.max(0), strict=True)
    )
    p = score[box].ravel()
    both = np.maximum(np.stack([1 - p, p]), np.asarray(1e-8, p.dtype))
    both = both / both.sum(axis=0)
    confidence = both.max(axis=0).astype(np.float32)
    tumour = both[1] > both[0]
    edges = _core.uniform_bin_edges(50)
    place = np.searchsorted(edges, confidence, "right") - 1
    if protocol == "corrected":
        place = np.minimum(place, 49)
    errors = []
    for rater in raters:
        right = tumour == rater[box].ravel()
        n = np.bincount(place, minlength=51)
        gap = np.abs(np.bincount(place, right, 51) - np.bincount(place, confidence, 51))
        errors.append(gap.sum() / n.sum())
    return np.array(errors)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("protocol", ["official", "corrected"])
def test_ece_by_brute_force(dtype, protocol):
    rng = np.random.default_rng(5)
    score = np.zeros((70, 60, 50), dtype)
    score[25:45, 25:40, 22:30] = rng.random((20, 15, 8)).round(2)
    raters = [rng.random(score.shape) < score for _ in range(3)]
    found = evaluate(score, raters, protocol=protocol)
    np.testing.assert_allclose(
        found.ece_per_rater, brute_force(score, raters, protocol), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("protocol", ["official", "corrected"])
@pytest.mark.parametrize("axis", range(3))
def test_box_that_ends_a_plane_before_the_volume_leaves_that_plane_out(protocol, axis):
    # From 20 - 20 to before 20 + 20: all of 40 voxels, and all but the last of 41.
    shape = [40, 40, 40]
    shape[axis] = 41
    rng = np.random.default_rng(axis)
    score = rng.random(shape, np.float32)
    raters = [np.zeros(shape, bool) for _ in range(2)]
    raters[0][20, 20, 20] = True
    found = evaluate(score, raters, protocol=protocol)
    np.testing.assert_allclose(
        found.ece_per_rater, brute_force(score, raters, protocol), rtol=0, atol=1e-12
    )
    assert found.calibration.voxels == 40**3
    mhr = np.mean(raters, axis=0)[:40, :40, :40]
    assert found.brier == pytest.approx(np.mean((score[:40, :40, :40] - mhr) ** 2), abs=1e-9)


@pytest.mark.parametrize("missed", [0, 40])
def test_a_bin_of_its_own_for_certainty_is_noted_where_it_matters(missed):
    # All of 0.99 is tumour, which is more than it says. Of what is certain to be background some is
    # tumour, which is less: together the two bins would make up for each other.
    score = np.zeros((60, 60, 60), np.float32)
    score[25:35, 25:35, 25:35] = 0.99
    rater = score > 0
    rater[35, 25 : 25 + missed // 10, 25:35] = True
    official, corrected = (evaluate(score, [rater], protocol=p) for p in ("official", "corrected"))
    assert (official.ece > corrected.ece) == (missed > 0)
    assert any("a confidence of exactly 1" in note for note in official.notes) == (missed > 0)
    assert not any("confidence" in note for note in corrected.notes)


def test_a_region_replaces_the_box():
    score, raters, _ = golden("typical_a")
    region = score > 0
    found = evaluate(score, raters, region=region)
    assert found.calibration.voxels == np.count_nonzero(region)
    mhr = raters.mean(axis=0)
    assert found.brier == pytest.approx(np.mean((score[region] - mhr[region]) ** 2), abs=1e-9)
    assert found.tdsc == evaluate(score, raters).tdsc  # and so are volumes: of the whole case
    nothing = evaluate(score, raters, region=score > 2)
    assert np.isnan(nothing.ece)
    assert any("no voxel" in note for note in nothing.notes)


def test_bad_arguments_are_named():
    score, raters, vessels = golden("single_slice")
    with pytest.raises(ValueError, match="protocol is 'paper'"):
        evaluate(score, raters, protocol="paper")
    with pytest.raises(ValueError, match="voxel_volume is 0"):
        evaluate(score, raters, voxel_volume=0)
    with pytest.raises(ValueError, match="vessels"):
        evaluate(score, raters, vessels[..., :0])
    bad = score.copy()
    bad.flat[3] = np.nan
    with pytest.raises(ValueError, match="score.* is nan"):
        evaluate(bad, raters)


@pytest.mark.parametrize("position", ["low", "high", "all"])
def test_a_tumour_at_the_border_is_noted_and_corrected(position):
    score = np.zeros((60, 61, 62), np.float32)
    part = {"low": np.s_[:9, 30:40, 30:40], "high": np.s_[30:40, 30:40, 50:], "all": np.s_[:]}[
        position
    ]
    rng = np.random.default_rng(2)
    score[part] = rng.random(score[part].shape)
    raters = [(rng.random(score.shape) < score).astype(np.uint8) for _ in range(4)]
    official, corrected = (evaluate(score, raters, protocol=p) for p in ("official", "corrected"))
    assert np.isfinite(corrected.ece)
    noted = any("low border" in note for note in official.notes)
    assert noted == (position != "high")
    # A box that begins below the border counts from the end: here it is empty, or a corner.
    assert np.isnan(official.ece) == (position == "low")
    if position == "all":
        corner = np.zeros(score.shape, bool)
        corner[-20:, -20:, -20:] = True
        assert official.ece == evaluate(score, raters, region=corner).ece
    assert not any("border" in note for note in corrected.notes)
    # Without voxels nothing is said of their confidences.
    assert not (position == "low" and any("confidence" in note for note in official.notes))
    # What the official evaluator does not have is measured in the clamped box.
    assert official.brier == pytest.approx(corrected.brier, rel=0.2)


def test_a_float16_volume_is_summed_as_numpy_sums_it():
    rng = np.random.default_rng(3)
    score = rng.random((50, 60, 70)).astype(np.float16)  # 105 000 voxels: more than 65 504
    raters = [rng.random(score.shape) < score for _ in range(5)]
    with np.errstate(over="ignore"):
        overflown = float(score.sum())
    assert overflown == np.inf
    found = evaluate(score, raters)
    assert found.predicted_volume == pytest.approx(score.sum(dtype=float))
    volumes = [rater.sum() for rater in raters]
    assert found.crps == pytest.approx(crps_official(np.inf, volumes))
    assert any("summed in float16, which gives inf" in note for note in found.notes)
    corrected = evaluate(score, raters, protocol="corrected")
    assert corrected.crps < found.crps
    assert corrected.notes == ()


def voxels_of_one(voxels, dtype, rater_volumes):
    """A score of so many ones, and raters who mark so many voxels each."""
    score = np.zeros((60, 50, 40), dtype)
    score.flat[:voxels] = 1
    raters = np.zeros((len(rater_volumes), *score.shape), bool)
    for rater, volume in zip(raters, rater_volumes, strict=True):
        rater.flat[:volume] = True
    return score, raters


@pytest.mark.parametrize(
    ("voxels", "noted"),
    # As float16 2049 is 2048, off by 5 of 10 000; 40 003 is 40 000, off by 0.75 of 10 000; and
    # 4096 is itself.
    [(2049, True), (40_003, False), (4096, False)],
)
def test_a_volume_that_is_summed_wrongly_is_noted_from_1_of_10_000_on(voxels, noted):
    score, raters = voxels_of_one(voxels, np.float16, [voxels - 9, voxels, voxels + 9])
    notes = evaluate(score, raters).notes
    assert any("summed in float16" in note for note in notes) == noted
    assert not any("summed" in note for note in evaluate(score, raters, protocol="corrected").notes)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("off", "noted"), [(0, False), (24, False), (25, True)])
def test_a_volume_beyond_3_standard_deviations_is_noted(off, noted, sign):
    # The standard deviation of 490, 500 and 510 is 8.165 voxels: 24 are 2.94 of them, 25 are 3.06.
    score, raters = voxels_of_one(500 + sign * off, np.float32, [490, 500, 510])
    for unit in (1.0, 0.25):
        notes = evaluate(score, raters, voxel_volume=unit).notes
        assert any("3 standard deviations" in note for note in notes) == noted
    assert not any("standard" in n for n in evaluate(score, raters, protocol="corrected").notes)


def test_raters_who_differ_by_a_voxel_do_not_agree():
    for volumes, agree in (([500, 500], True), ([500, 501], False)):
        score, raters = voxels_of_one(500, np.float32, volumes)
        notes = evaluate(score, raters).notes
        assert any("all raters agree on volume" in note for note in notes) == agree


@pytest.mark.parametrize("bins", [15, 20, 50])
def test_calibration_errors_have_the_bins_that_are_asked_for(bins):
    rng = np.random.default_rng(0)
    score = rng.random((20, 9, 8), np.float32)
    masks = [(rng.random(score.shape) < score).astype(np.uint8) for _ in range(3)]
    everywhere = np.ones(score.shape, bool)
    found = tt.evaluate(score, masks, region=everywhere, ece_bins=bins)
    p, mhr = score.astype(np.float64).ravel(), np.mean(masks, axis=0).ravel()
    at = np.minimum((p * bins).astype(int), bins - 1)
    error = np.abs(np.bincount(at, p - mhr, bins)).sum() / p.size
    assert found.ece_mhr == pytest.approx(error, abs=1e-12)
    tally = tt.ScoreTally(3).update(score.astype(np.float16), masks)
    coarse = score.astype(np.float16)
    want = tt.evaluate(coarse, masks, region=everywhere, ece_bins=bins)
    assert tt.evaluate_tally(tally, ece_bins=bins).ece_mhr == want.ece_mhr
