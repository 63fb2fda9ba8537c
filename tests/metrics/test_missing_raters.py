"""Figures of cases whose raters are missing or did not look everywhere, against plain NumPy."""

import math

import numpy as np
import pytest

from twintrack import InputError, evaluate
from twintrack.metrics import CaseTally, reliability_curve
from twintrack.metrics.brier import brier
from twintrack.metrics.tdsc import THRESHOLDS


def make(seed, raters=3, shape=(9, 10, 11), ignored=0.2):
    rng = np.random.default_rng(seed)
    score = rng.random(shape, np.float32)
    masks = [(rng.random(shape) < score).astype(np.uint8) for _ in range(raters)]
    for mask in masks:
        mask[rng.random(shape) < ignored] = 255
    return score, masks


def reference(score, masks):
    """MHR, and which voxels count, of those who looked."""
    looked = np.stack([mask != 255 for mask in masks])
    votes = np.stack([mask == 1 for mask in masks]).sum(axis=0)
    counts = looked.any(axis=0)
    return votes[counts] / looked.sum(axis=0)[counts], score[counts].astype(np.float64), counts


def top_label_error(score, mask):
    """Of one rater, over what he saw (protocol.md, 50 bins and one for exactly 1)."""
    p = score[mask != 255]
    answer = mask[mask != 255] == 1
    tumour = p > 0.5
    confidence = np.where(tumour, p, np.float32(1) - p)
    edges = np.linspace(0, 1, 51, dtype=np.float32)
    which = np.searchsorted(edges, confidence, side="right")
    gap = 0.0
    for b in np.unique(which):
        inside = which == b
        right = (answer == tumour)[inside]
        gap += abs(right.sum() - confidence[inside].sum(dtype=np.float64))
    return gap / len(p)


@pytest.mark.parametrize("raters", range(1, 8))
def test_figures_are_those_of_the_raters_who_looked(raters):
    score, masks = make(raters, raters)
    found = evaluate(score, masks, ignore_label=255, region=np.ones(score.shape, bool))
    mhr, p, _ = reference(score, masks)
    dice = []
    for t in THRESHOLDS:
        a, g = p > t, mhr > t
        dice.append(2 * (a & g).sum() / (a.sum() + g.sum() + 1e-6))
    assert found.tdsc == pytest.approx(np.mean(dice), abs=1e-12)
    assert found.brier == pytest.approx(np.mean((p - mhr) ** 2), abs=1e-12)
    want = [top_label_error(score, mask) for mask in masks]
    np.testing.assert_allclose(found.ece_per_rater, want, atol=1e-9)
    assert found.ece == pytest.approx(np.mean(want), abs=1e-9)
    assert found.predicted_volume == pytest.approx(p.sum(), abs=1e-9)
    np.testing.assert_array_equal(found.rater_volumes, [(mask == 1).sum() for mask in masks])
    if raters > 1:  # a single rater who did not look at a voxel leaves none
        assert math.isnan(found.crps)
        assert "did not look" in found.notes[0]


def test_a_missing_rater_leaves_the_figures_of_the_others():
    score, masks = make(0, 3, ignored=0)
    vessels = np.zeros(score.shape, np.uint8)
    vessels[4, 3:6, 3:6] = 1
    both = evaluate(score, [masks[0], masks[2]], vessels)
    found = evaluate(score, [masks[0], None, masks[2]], vessels)
    for name in ("tdsc", "ece", "crps", "brier", "ece_mhr", "ace", "murphy", "predicted_volume"):
        assert getattr(found, name) == getattr(both, name), name
    assert found.vascular_invasion == both.vascular_invasion
    np.testing.assert_array_equal(found.ece_per_rater[[0, 2]], both.ece_per_rater)
    assert np.isnan(found.ece_per_rater[1])
    assert np.isnan(found.rater_volumes[1])
    assert found.notes[0].startswith("of 3 raters 2 looked at nothing")


def test_vascular_invasion_needs_whole_annotations():
    score, masks = make(1)
    vessels = np.zeros(score.shape, np.uint8)
    vessels[4, 3:6, 3:6] = 1
    found = evaluate(score, masks, vessels, ignore_label=255)
    assert all(math.isnan(value) for value in found.vascular_invasion.values())
    assert evaluate(score, [m == 1 for m in masks], vessels).vascular_invasion["PORTA"] >= 0


def test_the_box_is_around_marks_and_not_around_what_was_ignored():
    score = np.zeros((60, 60, 60), np.float32)
    masks = [np.zeros(score.shape, np.uint8) for _ in range(2)]
    masks[0][30, 30, 30] = masks[1][30, 30, 30] = 1
    marked = evaluate(score, masks).calibration.voxels
    masks[1][0, 0, 0] = 255
    found = evaluate(score, masks, ignore_label=255)
    assert found.calibration.voxels == marked == 40**3


def test_tallies_of_sets_add_up_in_any_order_and_survive_a_file(tmp_path):
    parts = [CaseTally(3).update(*make(seed)[:2], ignore_label=255) for seed in range(4)]
    parts.append(CaseTally(3).update(*make(9, ignored=0)))
    parts.append(CaseTally(3).update(make(8)[0], [None, *make(8, ignored=0)[1][1:]]))
    forth, back = CaseTally(3), CaseTally(3)
    for part in parts:
        forth += part
    for part in reversed(parts):
        back += part
    assert forth == back
    forth.save(tmp_path / "a.npz")
    back.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = CaseTally.load(tmp_path / "a.npz")
    assert loaded == forth
    assert loaded.figures().to_dict() == forth.figures().to_dict()
    assert loaded != parts[0]


def test_one_rater_alone_is_measured_on_what_he_saw():
    score, masks = make(3)
    tally = CaseTally(3).update(score, masks, ignore_label=255)
    for k, mask in enumerate(masks):
        seen = mask != 255
        want = np.mean((score[seen].astype(float) - (mask[seen] == 1)) ** 2)
        assert brier(tally, k) == pytest.approx(want, abs=1e-12)


def test_votes_out_of_different_numbers_are_not_given_as_if_out_of_one():
    tally = CaseTally(3).update(*make(4), ignore_label=255)
    with pytest.raises(InputError, match="by_set"):
        _ = tally.votes
    assert sum(int(sums.votes.sum()) for sums in tally.by_set().values()) == tally.voxels


def test_an_invalid_label_in_one_part_leaves_the_tally_as_it_was():
    score, masks = make(5)
    tally = CaseTally(3).update(score, masks, ignore_label=255)
    before = tally + CaseTally(3)
    masks[2][masks[2] == 1] = 3
    with pytest.raises(InputError, match=r"raters\[2\].* is 3"):
        tally.update(score, masks, ignore_label=255)
    assert tally == before


def test_the_reliability_curve_is_out_of_those_who_looked():
    score, masks = make(6)
    curve = reliability_curve(score, masks, bins=4, ignore_label=255)
    mhr, p, _ = reference(score, masks)
    which = np.minimum((p * 4).astype(int), 3)
    np.testing.assert_allclose(curve.mhr, [mhr[which == b].mean() for b in range(4)], atol=1e-12)
