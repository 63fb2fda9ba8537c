"""Figures from a tally alone, of a case or of the sum of several."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

import twintrack as tt
from twintrack.metrics import Figures
from twintrack.metrics.tdsc import THRESHOLDS


def case(seed, shape=(13, 12, 11), raters=3):
    rng = np.random.default_rng(seed)
    score = np.where(rng.random(shape) < 0.5, rng.random(shape), 0).astype(np.float32)
    score[rng.random(shape) < 0.1] = 1
    return score, rng.random((raters, *shape)) < score**2


def merged(seeds, raters=3):
    total = tt.CaseTally(raters)
    for seed in seeds:
        total += tt.CaseTally(raters).update(*case(seed, (5 + seed, 12, 11), raters))
    return total


@pytest.mark.parametrize("protocol", ["official", "corrected"])
def test_figures_of_a_sum_are_those_of_all_voxels(protocol):
    parts = [case(seed, (5 + seed, 12, 11)) for seed in range(4)]
    score = np.concatenate([score for score, _ in parts])
    raters = np.concatenate([raters for _, raters in parts], axis=1)
    found = merged(range(4)).figures(protocol)
    assert found == tt.CaseTally(3).update(score, raters).figures(protocol)
    # By their definitions.
    p, y = score.ravel().astype(float), raters.reshape(3, -1).astype(float)
    mhr = y.mean(axis=0)
    dice = [2 * np.sum((p > t) & (mhr > t)) / (np.sum(p > t) + np.sum(mhr > t)) for t in THRESHOLDS]
    assert found.tdsc == pytest.approx(np.mean(dice), abs=1e-6)
    assert found.brier == pytest.approx(np.mean((p - mhr) ** 2), abs=1e-9)
    place = np.minimum((p * 50).astype(int), 49)
    gaps = [np.abs(np.bincount(place, p - rater)).sum() / p.size for rater in y]
    assert found.ece_probability == pytest.approx(np.mean(gaps), abs=1e-3)
    assert found.predicted_volume == pytest.approx(p.sum(), rel=1e-9)
    assert found.rater_volumes.tolist() == y.sum(axis=1).tolist()


@pytest.mark.parametrize("protocol", ["official", "corrected"])
def test_evaluate_gives_the_figures_of_its_tallies(protocol):
    score, raters = case(1)
    everywhere = np.ones(score.shape, bool)
    found = tt.evaluate(score, raters, protocol=protocol, voxel_volume=2.5, region=everywhere)
    expected = found.calibration.figures(protocol, voxel_volume=2.5)
    for field in fields(Figures):
        np.testing.assert_equal(getattr(found, field.name), getattr(expected, field.name))


def test_protocols_differ_where_a_confidence_is_1():
    # 0.99 is always right, 1 is wrong one time in four: in one bin they make up for each other.
    score = np.repeat(np.array([0.99, 1], np.float32), 40)
    tally = tt.CaseTally(1).update(score, [(score < 1) | (np.arange(80) % 4 > 0)])
    official, corrected = tally.figures(), tally.figures("corrected")
    assert official.ece > corrected.ece > 0
    apart = {"ece": 0, "ece_per_rater": 0}
    np.testing.assert_equal({**official.to_dict(), **apart}, {**corrected.to_dict(), **apart})
    with pytest.raises(ValueError, match="protocol is 'paper'; it must be official or corrected"):
        tally.figures("paper")
    with pytest.raises(ValueError, match="voxel_volume is 0"):
        tally.figures(voxel_volume=0)


def test_a_tally_without_voxels_has_no_figures_but_volumes():
    found = tt.CaseTally(2).figures()
    assert found.tdsc == 1  # nothing is predicted, and nothing marked
    assert np.isnan([found.ece, found.ece_mhr, found.ace, found.brier, *found.murphy]).all()
    assert np.isnan(found.ece_per_rater).all()
    assert found.predicted_volume == 0


def plain(value):
    """Whether a value is made of what JSON has."""
    if isinstance(value, dict):
        return all(type(key) is str and plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(plain, value))
    return type(value) in (float, str)


def test_figures_as_plain_values():
    score, raters = case(2)
    vessels = np.arange(score.size).reshape(score.shape) % 6
    found = tt.evaluate(score, raters, vessels)
    values = found.to_dict()
    assert plain(values)
    assert json.loads(json.dumps(values)) == values
    assert values["ece_per_rater"] == found.ece_per_rater.tolist()
    assert values["vascular_invasion"] == found.vascular_invasion
    assert values["murphy"] == found.murphy._asdict()
    assert values["notes"] == list(found.notes)
    assert "calibration" not in values
    assert found.calibration.figures().to_dict().keys() == {f.name for f in fields(Figures)}
    nothing = tt.CaseTally(2).figures().to_dict()
    assert plain(nothing)
    assert np.isnan(json.loads(json.dumps(nothing))["ece"])


def test_the_excess_is_the_brier_score_without_the_noise_of_the_raters():
    rng = np.random.default_rng(0)
    score = rng.random(2000).astype(np.float32)
    masks = [(rng.random(2000) < score).astype(np.uint8) for _ in range(4)]
    found = tt.CaseTally(4).update(score, masks).figures()
    k = np.sum(masks, axis=0)
    noise = np.mean(k * (4 - k) / (16 * 3))
    assert found.brier_excess == pytest.approx(np.mean((score - k / 4) ** 2) - noise, abs=1e-12)
    others = [(k - mask) / 3 for mask in masks]
    assert found.rater_brier == pytest.approx(np.mean((np.array(masks) - others) ** 2), rel=1e-12)
    masks[1:] = [np.where(np.arange(2000) < 9, 255, mask) for mask in masks[1:]]
    partly = tt.CaseTally(4).update(score, masks, ignore_label=255).figures()
    assert np.isnan([partly.brier_excess, partly.rater_brier]).all()
