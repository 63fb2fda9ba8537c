"""CORP, calibration error without bias and the floor of the raters, against plain voxels."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

import twintrack as tt
from twintrack import InputError
from twintrack.metrics.corp import consistency_band, corp, miscalibration_if_calibrated
from twintrack.metrics.debiased_error import debiased_error
from twintrack.metrics.mapped_voxels import MappedVoxels, all_of, mapped_voxels
from twintrack.metrics.rater_noise import rater_noise


def make(seed, raters=4, voxels=3000):
    rng = np.random.default_rng(seed)
    score = (rng.random(voxels) ** 2).astype(np.float16)
    masks = [(rng.random(voxels) < score**1.5).astype(np.uint8) for _ in range(raters)]
    masks[0][: 50 * seed] = 255
    return score, masks


def tallied(score, masks):
    return tt.ScoreTally(len(masks)).update(score, masks, ignore_label=255)


def response_of(masks):
    masks = np.ma.masked_equal(masks, 255)
    return np.asarray(masks.mean(axis=0)), np.asarray(masks.count(axis=0)), masks.sum(axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_curve_and_parts_are_those_of_the_voxels(seed):
    score, masks = make(seed)
    fitted = tt.Calibrator(bins=10).fit(*make(9), ignore_label=255)
    for made in (None, fitted):
        m = (score if made is None else made.transform(score)).astype(np.float64)
        mhr = response_of(masks)[0]
        found = corp(mapped_voxels(tallied(score, masks), made))
        curve = IsotonicRegression(y_min=0, y_max=1).fit(m, mhr).predict(m)
        at = np.searchsorted(found.value, m)
        np.testing.assert_array_equal(found.value[at], m)
        np.testing.assert_allclose(found.recalibrated[at], curve, atol=1e-12)
        brier, base = np.mean((m - mhr) ** 2), mhr.mean()
        assert found.brier == pytest.approx(brier, rel=1e-12)
        assert found.uncertainty == pytest.approx(np.mean((base - mhr) ** 2), rel=1e-12)
        recalibrated = np.mean((curve - mhr) ** 2)
        assert found.miscalibration == pytest.approx(brier - recalibrated, abs=1e-14)
        assert found.discrimination == pytest.approx(found.uncertainty - recalibrated, abs=1e-14)
        assert found.miscalibration >= 0


def test_a_map_without_bins_has_no_miscalibration_on_its_own_data():
    score, masks = make(1)
    tally = tallied(score, masks)
    fitted = tt.Calibrator(bins="cells").add_tally(tally)
    # The map is rounded to float16.
    assert corp(mapped_voxels(tally, fitted)).miscalibration < 1e-7
    assert corp(mapped_voxels(tally)).miscalibration > 1e-3


def grouped(seed, groups, off=0.0, spread=0.3):
    """Groups whose responses differ as a whole from what the scores say."""
    rng = np.random.default_rng(seed)
    value = np.array([0.1, 0.3, 0.35, 0.8])
    made = []
    for _ in range(groups):
        count = rng.integers(50, 500, 4).astype(float)
        rate = np.clip(value + off + rng.choice([-spread, spread]) * value * (1 - value), 0, 1)
        made.append(MappedVoxels(value, count, count * rate, count * rate**2))
    return made


def test_the_debiased_error_is_that_of_the_formula():
    groups = grouped(0, 5, 0.05)
    found = debiased_error(groups, bins=4)  # 0.3 and 0.35 share a bin
    n = np.array([g.count for g in groups])
    d = np.array([g.value * g.count - g.response for g in groups])
    n, d = (np.stack([a[:, 0], a[:, 1] + a[:, 2], a[:, 3]], 1) for a in (n, d))
    plain = bias = 0.0
    for b in range(3):
        plain += d[:, b].sum() ** 2 / n[:, b].sum() / n.sum()
        for c in range(5):
            deviation = d[c, b] - n[c, b] * d[:, b].sum() / n[:, b].sum()
            bias += 5 / 4 * deviation**2 / n[:, b].sum() / n.sum()
    assert found.plain == pytest.approx(plain, rel=1e-12)
    assert found.squared == pytest.approx(plain - bias, rel=1e-9)
    assert found.left_out == 0


def test_the_debiased_error_is_right_on_average():
    alike = [debiased_error(grouped(seed, 8), bins=20) for seed in range(600)]
    squared, plain = np.mean([(one.squared, one.plain) for one in alike], axis=0)
    spread = np.std([one.squared for one in alike]) / np.sqrt(600)
    assert abs(squared) < 4 * spread + 0.05 * plain  # ratio estimates are a little off
    assert plain > 10 * spread
    off = [debiased_error(grouped(seed, 8, 0.05, 0.1), bins=20).squared for seed in range(200)]
    assert np.mean(off) == pytest.approx(0.05**2, rel=0.1)


def test_bins_of_one_group_are_left_out_and_told():
    groups = grouped(0, 3)
    alone = MappedVoxels(*(np.append(array, extra) for array, extra in zip(
        vars(groups[0]).values(), (0.95, 1000.0, 0.0, 0.0), strict=True)))  # fmt: skip
    found = debiased_error([alone, *groups[1:]])
    assert found.squared < 0.1
    assert found.left_out == pytest.approx(1000 / all_of([alone, *groups[1:]]).voxels)
    with pytest.raises(InputError, match="from two groups on, here 1"):
        debiased_error(groups[:1])
    with pytest.raises(InputError, match="no voxels"):
        debiased_error([MappedVoxels(*np.zeros((4, 0)))] * 2)
    with pytest.raises(InputError, match="no voxels"):
        corp(MappedVoxels(*np.zeros((4, 0))))


def test_consistency_bands_hold_calibrated_scores_and_not_others():
    held = []
    for seed in range(60):
        groups = grouped(seed, 12)
        value, low, high = consistency_band(groups, draws=200)
        curve = corp(all_of(groups)).recalibrated
        held.append((low <= curve) & (curve <= high))
        np.testing.assert_array_equal(value, groups[0].value)
    assert 0.85 < np.mean(held) <= 1
    off = grouped(0, 12, off=0.2, spread=0.05)
    value, low, high = consistency_band(off, draws=200)
    assert (corp(all_of(off)).recalibrated > high).all()
    again = consistency_band(off[::1], draws=200)
    np.testing.assert_array_equal(low, again[1])


@pytest.mark.parametrize("seed", range(3))
def test_the_floor_of_the_raters_is_that_of_the_voxels(seed):
    score, masks = make(seed)
    found = rater_noise(tallied(score, masks))
    _, n, k = response_of(masks)
    assert found.voxels == len(score)
    assert found.noise == pytest.approx(np.mean(k * (n - k) / (n**2 * (n - 1))), rel=1e-12)
    seen = np.ma.masked_equal(masks, 255)
    others = (k - seen) / (n - 1)
    left_out = ((seen - others) ** 2).mean(axis=0)
    assert found.one_more == pytest.approx(left_out.mean(), rel=1e-12)


def test_one_rater_has_no_floor():
    found = rater_noise(tallied(np.zeros(9, np.float32), [np.ones(9)]))
    assert np.isnan(found.noise)
    assert found.voxels == 0


def test_the_noise_is_what_few_raters_add_to_a_brier_score():
    rng = np.random.default_rng(0)
    truth = rng.random(200_000)
    score = truth.astype(np.float16)
    tally = tallied(score, [(rng.random(truth.size) < truth).astype(np.uint8) for _ in range(3)])
    brier = corp(mapped_voxels(tally)).brier
    assert brier == pytest.approx(rater_noise(tally).noise, rel=0.01)


@pytest.mark.parametrize("shared", [True, False], ids=["scores in common", "scores of their own"])
def test_calibrated_groups_show_what_is_said_of_them(shared):
    """Groups that differ, of a right map: in the band, and with an MCB as large as it is said."""
    rng = np.random.default_rng(0)

    def groups(shift=0.0):
        made = []
        for size in rng.integers(50, 150, 12):
            score = np.arange(1, 20) / 20 + (0 if shared else np.sort(rng.uniform(-0.01, 0.01, 19)))
            count = np.full(len(score), float(size))
            response = count * np.clip(score + rng.normal(shift, 0.05), 0, 1)
            made.append(MappedVoxels(score, count, response, response))
        return made

    shown, said, held = [], [], []
    for seed in range(60):
        drawn = groups()
        found = corp(all_of(drawn))
        said.append(miscalibration_if_calibrated(drawn, 30, seed))
        shown.append(found.miscalibration)
        if seed < 20:
            _, low, high = consistency_band(drawn, draws=100, seed=seed)
            within = (low - 1e-9 <= found.recalibrated) & (found.recalibrated <= high + 1e-9)
            held.append(within.mean())
    assert np.mean(said) == pytest.approx(np.mean(shown), rel=0.35)
    assert 0.85 < np.mean(held) <= 1
    off = groups(0.15)
    assert corp(all_of(off)).miscalibration > 10 * miscalibration_if_calibrated(off)
    with pytest.raises(InputError, match="two at least"):
        miscalibration_if_calibrated(off[:1])
