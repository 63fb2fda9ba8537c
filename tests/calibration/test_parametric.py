"""Platt, beta and temperature scaling from cells, against scikit-learn on the voxels' answers."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

import twintrack as tt
from twintrack import InputError
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.calibration.parametric import KNOT_ERROR, LEAST_SCORE, fit_parametric


def make(seed=0, voxels=4000, raters=3, power=1.7):
    rng = np.random.default_rng(seed)
    score = rng.beta(0.4, 0.8, voxels).astype(np.float16)
    masks = [rng.random(voxels) < 0.9 * score.astype(float) ** power for _ in range(raters)]
    return score, masks


def cells_of(score, masks, **more):
    return tt.ScoreTally(len(masks)).update(score, masks, **more).equal_mass_bins(EVERY_CELL)


def features(kind, score):
    s = np.clip(score.astype(np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
    if kind == "beta":
        return np.stack([np.log(s), -np.log1p(-s)], axis=1)
    return logit(s)[:, None]


def by_sklearn(kind, score, masks):
    x = np.concatenate([features(kind, score)] * len(masks))
    model = LogisticRegression(
        C=np.inf, fit_intercept=kind != "temperature", tol=1e-12, max_iter=10_000
    )
    return model.fit(x, np.concatenate(masks))


@pytest.mark.parametrize("kind", ["platt", "beta", "temperature"])
@pytest.mark.parametrize("seed", range(3))
def test_the_map_is_that_of_the_voxels(kind, seed):
    score, masks = make(seed)
    fitted, (named,) = fit_parametric(kind, cells_of(score, masks), "mhr", 0)
    want = by_sklearn(kind, score, masks)
    at = np.linspace(0, 1, 501)
    p = want.predict_proba(features(kind, at))[:, 1]
    np.testing.assert_allclose(fitted(at), p, atol=2e-5)
    slopes = want.coef_[0]
    if kind == "temperature":
        assert named["temperature"] == pytest.approx(1 / slopes[0], rel=1e-3)
    else:
        assert [*named.values()] == pytest.approx([*slopes, want.intercept_[0]], abs=1e-3)


@pytest.mark.parametrize("kind", ["platt", "beta", "temperature"])
def test_the_knots_are_as_close_to_the_formula_as_is_said(kind):
    fitted, (named,) = fit_parametric(kind, cells_of(*make()), "mhr", 0)
    s = np.random.default_rng(1).random(20_000) ** np.arange(1, 5).repeat(5000)
    s = np.clip(s, LEAST_SCORE, 1 - LEAST_SCORE)
    t = logit(s)
    formula = {
        "temperature": lambda: expit(t / named["temperature"]),
        "platt": lambda: expit(named["a"] * t + named["c"]),
        "beta": lambda: expit(named["a"] * np.log(s) - named["b"] * np.log1p(-s) + named["c"]),
    }[kind]()
    off = np.abs(np.interp(s, fitted.x, fitted.y) - formula) / np.minimum(formula, 1 - formula)
    assert off.max() < 1.2 * KNOT_ERROR
    assert len(fitted.x) < 20_000


def test_targets_follow_one_rater_or_all_of_them():
    score, masks = make(2)
    masks[1] = np.random.default_rng(5).random(len(score)) < score  # another habit
    cells = cells_of(score, masks)
    at = np.linspace(0, 1, 101)
    alone = [fit_parametric("platt", cells, "single", k)[0](at) for k in range(3)]
    for k, one in enumerate(alone):
        own = fit_parametric("platt", cells_of(score, [masks[k]]), "mhr", 0)[0](at)
        np.testing.assert_allclose(one, own, rtol=1e-9)
    hard, named = fit_parametric("platt", cells, "hard", 0)
    np.testing.assert_allclose(hard(at), np.mean(alone, axis=0), atol=1e-5)
    assert len(named) == 3


def test_raters_who_skipped_voxels_count_where_they_looked():
    score, masks = make(3)
    masks = [mask.astype(np.uint8) for mask in masks]
    masks[2][:1000] = 255
    cells = cells_of(score, masks, ignore_label=255)
    at = np.linspace(0, 1, 101)
    one, seen = fit_parametric("beta", cells, "single", 2)[0](at), slice(1000, None)
    own = fit_parametric("beta", cells_of(score[seen], [masks[2][seen]]), "mhr", 0)[0](at)
    np.testing.assert_allclose(one, own, rtol=1e-9)


def test_a_slope_is_never_below_0():
    score = np.linspace(0, 1, 2000, dtype=np.float32)
    falling = [np.random.default_rng(0).random(2000) < 0.5 - 0.4 * score]
    for kind in ("platt", "beta", "temperature"):
        fitted, _ = fit_parametric(kind, cells_of(score, falling), "mhr", 0)
        values = fitted(np.linspace(0, 1, 11))
        assert np.ptp(values) < 1e-9, kind
    with pytest.raises(InputError, match="no voxel was marked"):
        fit_parametric("platt", cells_of(score, [np.zeros(2000)]), "mhr", 0)
    with pytest.raises(InputError, match="all voxels were marked"):
        fit_parametric("beta", cells_of(score, [np.ones(2000)]), "mhr", 0)


@pytest.mark.parametrize("kind", ["platt", "beta", "temperature"])
def test_the_map_is_the_same_on_any_number_of_threads(kind):
    rng = np.random.default_rng(2)
    score = expit(rng.normal(-3, 4, 200_000)).astype(np.float32)
    cells = cells_of(score, [rng.random(score.shape) < score**2 for _ in range(3)])
    assert len(cells) > 20_000  # so many that BLAS would share them out
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            found.append(fit_parametric(kind, cells, "mhr", 0))
    assert found[0] == found[1] == found[2]
