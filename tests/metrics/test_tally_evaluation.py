"""Figures of a map from a tally, against a pass over the voxels."""

import math

import numpy as np
import pytest

import twintrack as tt
from twintrack import InputError

FIGURES = (
    *("tdsc", "brier", "ece_mhr", "ece_probability", "ace", "predicted_volume"),
    *("rater_volumes", "murphy"),
)


def make(seed, dtype=np.float16):
    """A case of 1 to 7 raters, some of whom are missing or skipped a part."""
    rng = np.random.default_rng(seed)
    raters, shape = 1 + seed % 7, (10, 8, 9)
    score = (rng.random(shape) ** 2).astype(dtype)
    score[rng.random(shape) < 0.3] = 0
    masks = [(rng.random(shape) < score).astype(np.uint8) for _ in range(raters)]
    if seed % 3 == 1:
        masks[seed % raters][: 1 + seed % 4] = 255
    if seed % 5 == 2 and raters > 1:
        masks[(seed + 1) % raters] = None
    return score, masks


@pytest.mark.parametrize("seed", range(200))
def test_16_bit_scores_have_the_figures_of_their_voxels(seed):
    score, masks = make(seed)
    raters = len(masks)
    calibrator = tt.Calibrator(bins=20).fit(score, masks, ignore_label=255)
    tally = tt.ScoreTally(raters).update(score, masks, ignore_label=255)
    everywhere = np.ones(score.shape, bool)
    for fitted in (calibrator, None):
        found = tt.evaluate_tally(tally, fitted, protocol="corrected")
        mapped = score if fitted is None else fitted.transform(score)
        want = tt.evaluate(mapped, masks, protocol="corrected", region=everywhere, ignore_label=255)
        for name in FIGURES:
            np.testing.assert_array_equal(getattr(found, name), getattr(want, name), name)
        if sum(mask is not None for mask in masks) > 1:  # what nobody looked at is in no tally
            np.testing.assert_array_equal(found.crps, want.crps)
        box = tt.ScoreTally(raters).update(score, masks, ignore_label=255, rule="box")
        in_box = tt.evaluate_tally(box, fitted, protocol="corrected")
        np.testing.assert_array_equal(in_box.ece_per_rater, want.ece_per_rater)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wider_scores_are_off_by_the_width_of_a_cell(dtype):
    score, masks = make(4, dtype)
    fitted = tt.Calibrator(bins=20).fit(score, masks, ignore_label=255)
    tally = tt.ScoreTally(len(masks)).update(score, masks, ignore_label=255)
    found = tt.evaluate_tally(tally, fitted)
    want = tt.evaluate(
        fitted.transform(score), masks, region=np.ones(score.shape, bool), ignore_label=255
    )
    assert found.predicted_volume == pytest.approx(want.predicted_volume, rel=1e-4)
    assert found.brier == pytest.approx(want.brier, abs=1e-5)


def test_the_log_score_is_that_of_the_voxels():
    score, masks = make(20)
    fitted = tt.Calibrator(bins=20, floor=0.01, ceiling=0.99).fit(score, masks)
    tally = tt.ScoreTally(len(masks)).update(score, masks)
    m = fitted.transform(score).astype(np.float64)
    mhr = np.mean([mask for mask in masks if mask is not None], axis=0)
    want = -np.mean(mhr * np.log(m) + (1 - mhr) * np.log1p(-m))
    assert tt.evaluate_tally(tally, fitted).log_score == pytest.approx(want, rel=1e-12)
    certain = tt.ScoreTally(1).update(np.zeros(3, np.float32), [np.array([0, 0, 1])])
    assert tt.evaluate_tally(certain).log_score == math.inf


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        ("all", {"ece", "ece_per_rater"}),
        ("box", {"tdsc", "crps", "predicted_volume"}),
        ("roi", {"tdsc", "crps", "predicted_volume", "rater_volumes"}),
    ],
)
def test_what_a_region_cannot_give_is_refused_by_name(rule, refused):
    score, masks = make(0)
    tally = tt.ScoreTally(1).update(score, masks, rule=rule)
    found = tt.evaluate_tally(tally)
    given = found.to_dict()
    for name in refused:
        assert np.all(np.isnan(given[name])), name
        assert any(name in note for note in found.notes)
        with pytest.raises(InputError, match=f"figures is '{name}'"):
            tt.evaluate_tally(tally, figures=[name])
    assert math.isfinite(tt.evaluate_tally(tally, figures=["brier"]).brier)
    with pytest.raises(InputError, match="must be one of"):
        tt.evaluate_tally(tally, figures=["dice"])


def test_a_tally_of_an_earlier_version_says_what_it_lacks(tmp_path):
    score, masks = make(6)
    made = tt.ScoreTally(7).update(score, masks)
    cells, sums = made.pooled_rows()
    old = tt.ScoreTally.of_rows(7, {tuple(range(7)): (cells, sums[:, :9])})
    assert not old.counts_votes
    with pytest.raises(InputError, match="earlier version"):
        tt.evaluate_tally(old)
    assert tt.Calibrator(bins=9).add_tally(old).map_ == tt.Calibrator(bins=9).add_tally(made).map_
    assert not (old + made).counts_votes
    old.save(tmp_path / "old.npz")
    assert tt.ScoreTally.load(tmp_path / "old.npz") == old


def test_tallies_of_sets_merge_in_any_order_to_the_same_bytes(tmp_path):
    parts = [
        tt.ScoreTally(len(masks)).update(score, masks, ignore_label=255).among(7)
        for score, masks in map(make, range(14))
    ]
    forth, back = tt.ScoreTally.of_all(parts), tt.ScoreTally.of_all(parts[::-1])
    for name, tally in (("forth", forth), ("back", back)):
        tally.save(tmp_path / name)
    assert (tmp_path / "forth").read_bytes() == (tmp_path / "back").read_bytes()
    rest = forth
    for part in parts[1:]:
        rest = rest - part
    assert rest == parts[0]
    assert tt.ScoreTally.load(tmp_path / "forth") == forth
