"""Maps fitted to cases whose raters are missing or skipped a part, and to weighted cases."""

import numpy as np
import pytest

import twintrack as tt
from twintrack import InputError
from twintrack.calibration.case_weights import Load, whole_weights


def make(seed, raters=3, shape=(9, 10, 11)):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 5, shape).astype(np.float32) / 4
    masks = [(rng.random(shape) < 0.2 + 0.6 * score).astype(np.uint8) for _ in range(raters)]
    for mask in masks:
        mask[rng.random(shape) < 0.2] = 255
    return score, masks


def test_mhr_is_the_mean_over_voxels_of_votes_out_of_those_who_looked():
    score, masks = make(0)
    fitted = tt.Calibrator(bins="cells").fit(score, masks, ignore_label=255)
    looked = np.stack([mask != 255 for mask in masks])
    votes = np.stack([mask == 1 for mask in masks]).sum(axis=0)
    for value in np.unique(score):
        here = (score == value) & looked.any(axis=0)
        want = np.mean(votes[here] / looked.sum(axis=0)[here])
        assert fitted.transform(np.float64(value)) == pytest.approx(want, abs=1e-12)


def test_single_is_fitted_to_what_the_rater_saw():
    score, masks = make(1)
    fitted = tt.Calibrator("single", rater=1, bins="cells").fit(score, masks, ignore_label=255)
    saw = masks[1] != 255
    alone = tt.Calibrator("single", bins="cells").fit(score, [masks[1]], saw)
    assert fitted.map_ == alone.map_


def test_hard_averages_what_each_rater_says_of_what_he_saw():
    score, masks = make(2)
    fitted = tt.Calibrator("hard", bins="cells").fit(score, masks, ignore_label=255)
    alone = [
        tt.Calibrator("single", bins="cells").fit(score, [mask], mask != 255) for mask in masks
    ]
    at = np.unique(score).astype(np.float64)
    want = np.mean([one.transform(at) for one in alone], axis=0)
    np.testing.assert_allclose(fitted.transform(at), want, atol=1e-12)


@pytest.mark.parametrize("target", ["mhr", "single", "hard"])
def test_bands_choices_and_facts_work_with_missing_raters(target):
    calibrator = tt.Calibrator(target, bins="auto", floor="auto", folds=3)
    for seed in range(4):
        score, masks = make(seed)
        if seed == 1:
            masks[2] = None
        calibrator.partial_fit(score, masks, case=f"case {seed}", ignore_label=255)
    band = calibrator.band(np.linspace(0, 1, 5))
    assert np.all((band.low <= band.value) & (band.value <= band.high))
    assert calibrator.facts_.top > 0.5


def test_exact_cuts_need_all_raters():
    with pytest.raises(InputError, match="exact cuts need voxels that all raters looked at"):
        tt.Calibrator(exact=True).fit(*make(0), ignore_label=255)


def test_a_weight_counts_a_case_so_many_times():
    (a, masks_a), (b, masks_b) = make(3), make(4)
    cases = [a, b], [masks_a, masks_b]
    weighted = tt.Calibrator(bins=9).fit(*cases, case_weight=[3, 1], ignore_label=255)
    repeated = tt.Calibrator(bins=9).fit([a, a, a, b], [masks_a] * 3 + [masks_b], ignore_label=255)
    assert weighted.map_ == repeated.map_
    assert weighted.n_voxels_ < repeated.n_voxels_
    without = tt.Calibrator(bins=9).fit(*cases, case_weight=[0, 0.3], ignore_label=255)
    assert without.map_ == tt.Calibrator(bins=9).fit(b, masks_b, ignore_label=255).map_


def test_cases_count_the_same_whatever_their_size():
    small, large = np.full(100, 0.5, np.float32), np.full(10_000, 0.5, np.float32)
    raters = [[np.ones(100, bool)], [np.zeros(10_000, bool)]]
    by_voxels = tt.Calibrator().fit([small, large], raters)
    by_cases = tt.Calibrator(case_weight="cases").fit([small, large], raters)
    one_patient = tt.Calibrator(case_weight="cases").fit([small, large], raters, groups=[7, 7])
    half = np.float64(0.5)
    assert by_voxels.transform(half) == pytest.approx(100 / 10_100)
    assert by_cases.transform(half) == pytest.approx(0.5, rel=1e-6)
    assert one_patient.transform(half) == pytest.approx(100 / 10_100)


@pytest.mark.parametrize("weights", [[-1, 1], [np.nan, 1], [0, 0], [1e-30, 1], [1]])
def test_weights_that_cannot_be(weights):
    score = [np.full(10, 0.5, np.float32)] * 2
    with pytest.raises(InputError, match="case.weight"):
        tt.Calibrator().fit(score, [[np.ones(10)]] * 2, case_weight=weights)
    if not 0 <= weights[0] <= 1:  # of a case alone, before it is tallied
        with pytest.raises(InputError, match="case weight is"):
            tt.Calibrator().partial_fit(score[0], [np.ones(10)], case="A", weight=weights[0])


def test_whole_weights_keep_within_64_bits():
    loads = [Load(1 << 30, 1 << 50, 60, 0.0), Load(1 << 10, 1 << 30, 60, 0.0)]
    whole = whole_weights([1.0, 1000.0], loads)
    assert whole[1] == 1000 * whole[0]
    assert sum(w * load.residual for w, load in zip(whole, loads, strict=True)) < 1 << 63
    assert sum(w * load.voxels * 60 for w, load in zip(whole, loads, strict=True)) < 1 << 63
