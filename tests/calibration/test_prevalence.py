"""Another prevalence: Bayes' rule on the map, saved and applied as any map."""

import numpy as np
import pytest

import twintrack as tt
from twintrack import InputError


def make(tumour, healthy, seed=0):
    """Scores of so many voxels of either kind, and what three raters say."""
    rng = np.random.default_rng(seed)
    score = np.concatenate([rng.beta(4, 2, tumour), rng.beta(1, 5, healthy)]).astype(np.float32)
    truth = np.arange(tumour + healthy) < tumour
    return score, [truth, truth, truth]


def test_the_map_is_that_of_bayes():
    calibrator = tt.Calibrator(bins=40).fit(*make(20_000, 80_000))
    assert calibrator.prevalence_ == 0.2
    changed = calibrator.for_prevalence(0.05)
    at = np.linspace(0, 1, 301)
    p, w = calibrator.map_(at), (0.05 / 0.95) / (0.2 / 0.8)
    np.testing.assert_allclose(changed.map_(at), w * p / (w * p + 1 - p), atol=1e-4)
    knots = calibrator.map_.y
    bayes = w * knots / (w * knots + 1 - knots)
    np.testing.assert_allclose(changed.map_(calibrator.map_.x), bayes, rtol=2e-5)


def test_floor_and_ceiling_are_kept():
    calibrator = tt.Calibrator(bins=40, floor=0.01, ceiling=0.9).fit(*make(20_000, 80_000))
    changed = calibrator.for_prevalence(0.02)
    assert changed.map_.y.min() == changed.floor_ == 0.01
    assert calibrator.for_prevalence(0.9).map_.y.max() == 0.9


def test_it_is_right_where_the_prevalence_alone_has_changed():
    calibrator = tt.Calibrator(bins="cells").fit(*make(50_000, 200_000))
    score, masks = make(10_000, 190_000, seed=1)
    enriched = calibrator.transform(score).sum()
    found = calibrator.for_prevalence(0.05).transform(score).sum()
    assert enriched > 1.8 * masks[0].sum()
    assert found == pytest.approx(masks[0].sum(), rel=0.05)


def test_the_prevalence_is_that_of_the_answers_that_the_map_follows():
    score, masks = make(200, 800)
    other = np.arange(1000) < 500
    raters = [masks[0], masks[1], other]
    prevalence = {
        target: tt.Calibrator(target, rater=2, bins=9).fit(score, raters).prevalence_
        for target in ("mhr", "single", "hard", "majority")
    }
    mean = (0.2 + 0.2 + 0.5) / 3
    assert prevalence == pytest.approx(
        {"mhr": mean, "single": 0.5, "hard": mean, "majority": 0.2}, rel=1e-12
    )
    assert tt.Calibrator("none").fit(score, raters).prevalence_ is None


def test_files_keep_what_was_changed(tmp_path):
    scores, labels = zip(*[make(2000, 8000, seed) for seed in range(3)], strict=True)
    calibrator = tt.Calibrator(bins=40).fit(scores, labels).keep_band()
    changed = calibrator.for_prevalence(0.1)
    changed.save(tmp_path / "c.json")
    loaded = tt.load_calibrator(tmp_path / "c.json")
    assert loaded.map_ == changed.map_ != calibrator.map_
    assert (loaded.prevalence_, loaded.facts_, loaded.thresholds_, loaded.band_) == (
        0.1, None, None, None,
    )  # fmt: skip
    assert loaded.fitted_on_ == calibrator.fitted_on_
    back = loaded.for_prevalence(0.2)
    assert back.provenance_["update"]["b"] == pytest.approx(0, abs=1e-12)
    at = np.linspace(0, 1, 51)
    np.testing.assert_allclose(back.map_(at), calibrator.map_(at), atol=1e-3)


def test_what_is_not_known_or_no_share_is_refused(tmp_path):
    identity = tt.Calibrator("none").fit(*make(20, 80))
    with pytest.raises(InputError, match="does not say what share"):
        identity.for_prevalence(0.1)
    assert identity.for_prevalence(0.1, fitted=0.2).map_(np.float64(0.5)) < 0.5
    for wrong in (0, 1, -1, np.nan):
        with pytest.raises(InputError, match="prevalence is"):
            identity.for_prevalence(wrong, fitted=0.2)
