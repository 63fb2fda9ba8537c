"""Floor and ceiling: what half a vote per effective case makes of the end blocks."""

from __future__ import annotations

import json

import numpy as np
import pytest

import twintrack as tt
from twintrack.calibration.map_bounds import auto_bounds, bounded


def cases(count=6, voxels=3000, seed=0):
    """Scores and labels of cases, of which the later ones have more votes."""
    rng = np.random.default_rng(seed)
    scores = [rng.random(voxels, np.float32) ** 2 for _ in range(count)]
    labels = [
        list(rng.random((3, voxels)) < np.clip(score * 1.3 - 0.2, 0, 1) * (k + 1) / count)
        for k, score in enumerate(scores)
    ]
    return scores, labels


def test_the_map_is_0_and_1_at_its_ends_by_default():
    scores, labels = cases(1)
    made = tt.Calibrator(bins=50).fit(scores, labels)
    assert (made.floor_, made.ceiling_) == (0.0, 1.0)
    assert (made.y_thresholds_[0], made.y_thresholds_[-1]) == (0.0, 1.0)
    assert made.provenance_["bounds"] is None


def test_half_a_vote_per_effective_case_by_hand():
    scores, labels = cases()
    made = tt.Calibrator(bins=50, floor="auto", ceiling="auto").fit(scores, labels)
    plain = tt.Calibrator(bins=50).fit(scores, labels)
    votes = np.array([np.sum(label) for label in labels], float)
    effective = votes.sum() ** 2 / (votes**2).sum()
    assert 1 < effective < len(scores)
    # The lowest block: bins without a vote.
    marked = plain.bins_.votes.sum(axis=1)
    lowest = int(np.argmax(marked > 0))
    answers = 3 * plain.bins_.count[:lowest].sum()
    expected = (effective / 2) / (answers + effective)
    assert made.floor_ == pytest.approx(expected, rel=1e-12)
    assert made.y_thresholds_[0] == made.floor_
    assert made.facts_.votes_at_zero == 0
    assert made.y_thresholds_[-1] == made.ceiling_ < 1


@pytest.mark.parametrize("bins", [5, 50, "cells"])
@pytest.mark.parametrize("target", ["mhr", "single"])
def test_bounds_are_the_isotonic_fit_with_more_answers_at_either_end(bins, target):
    """Also where an end block is a single voxel, which is pooled and not lifted above others."""
    scores, labels = cases(4, voxels=500)
    made = tt.Calibrator(target, bins=bins, rater=1).fit(scores, labels)
    count, votes = made.bins_.count.astype(float), made.bins_.votes
    answers = count if target == "single" else 3 * count
    marked = votes[:, 1] if target == "single" else votes.sum(axis=1)
    for effective in (1.0, 2.5, 40.0):
        floor, ceiling = auto_bounds(made.bins_, target, 1, effective)
        means = np.concatenate([[0.5], marked / answers, [0.5]])
        weights = np.concatenate([[effective], answers, [effective]])
        clipped = np.clip(tt.isotonic(marked / answers, answers), floor, ceiling)
        low = tt.isotonic(means[:-1], weights[:-1])[1:]
        high = tt.isotonic(means[1:], weights[1:])[:-1]
        both = np.where(clipped < 0.5, low, high)
        np.testing.assert_allclose(clipped, both, atol=1e-12)


def test_a_sum_of_cases_is_as_many_unless_it_says_how_many_it_is_worth():
    scores, labels = cases()
    tallies = [tt.ScoreTally(3).update(s, r) for s, r in zip(scores, labels, strict=True)]
    total = tt.ScoreTally.of_all(tallies)

    def floor(**added):
        calibrator = tt.Calibrator(bins=50, floor="auto")
        return calibrator.add_tally(total, cases=6, **added).floor_

    known = tt.Calibrator(bins=50, floor="auto").fit(scores, labels)
    effective = known._cases.effective
    assert floor(effective=effective) == pytest.approx(known.floor_, rel=1e-12)
    assert floor() == pytest.approx(known.floor_ * 6 / effective, rel=1e-2)


def test_effective_cases_do_not_depend_on_the_order_of_cases_and_survive_merging():
    scores, labels = cases()
    tallies = [tt.ScoreTally(3).update(s, r) for s, r in zip(scores, labels, strict=True)]

    def added(order):
        calibrator = tt.Calibrator(floor="auto")
        for k in order:
            calibrator.add_tally(tallies[k], f"case {k}")
        return calibrator

    forwards, backwards = added(range(6)), added(reversed(range(6)))
    assert forwards.map_ == backwards.map_
    merged = added(range(3)).merge(added(range(3, 6)))
    assert merged.floor_ == forwards.floor_
    parts = [
        tt.Calibrator(floor="auto").add_tally(
            tt.ScoreTally.of_all(tallies[some]),
            cases=3,
            effective=added(range(6)[some])._cases.effective,
        )
        for some in (slice(0, 3), slice(3, 6))
    ]
    assert parts[0].merge(parts[1]).floor_ == pytest.approx(forwards.floor_, rel=1e-12)


def test_numbers_bound_the_map_and_are_in_the_file(tmp_path):
    scores, labels = cases()
    made = tt.Calibrator(bins=50, floor=0.01, ceiling=0.5).fit(scores, labels)
    mapped = made.transform(np.linspace(0, 1, 1001))
    assert (mapped.min(), mapped.max()) == (0.01, 0.5)
    assert (made.made_with_["floor"], made.made_with_["ceiling"]) == (0.01, 0.5)
    made.save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["bounds"] == {"floor": 0.01, "ceiling": 0.5, "auto": []}
    loaded = tt.load_calibrator(tmp_path / "c.json")
    assert (loaded.floor, loaded.ceiling, loaded.floor_) == (0.01, 0.5, 0.01)
    with pytest.raises(ValueError, match="floor is 0.0 here but 0.01 in the other"):
        tt.Calibrator(bins=50, ceiling=0.5).partial_fit(scores[0], labels[0]).merge(made)


def test_no_vote_at_all_and_all_votes():
    score = np.linspace(0, 1, 1000, dtype=np.float32)
    nobody = tt.Calibrator(bins=10, floor="auto").fit(score, [score > 2])
    assert nobody.floor_ == pytest.approx(0.5 / 1001)
    everybody = tt.Calibrator(bins=10, ceiling="auto").fit(score, [score >= 0])
    assert everybody.ceiling_ == pytest.approx(1 - 0.5 / 1001)
    # More than the ceiling that is given, and less than the floor: these hold.
    assert tt.Calibrator(floor="auto", ceiling=1e-6).fit(score, [score > 2]).floor_ == 1e-6
    assert tt.Calibrator(floor=0.9999, ceiling="auto").fit(score, [score >= 0]).ceiling_ == 0.9999


def test_knots_that_a_bound_makes_level_are_left_out():
    x, y = [0.1, 0.2, 0.3, 0.4, 0.5], [0, 0.01, 0.02, 0.5, 1]
    made = bounded(tt.CalibrationMap(x, y), 0.05, 1)
    assert (made.x.tolist(), made.y.tolist()) == ([0.1, 0.3, 0.4, 0.5], [0.05, 0.05, 0.5, 1])
    unchanged = tt.CalibrationMap(x, y)
    assert bounded(unchanged, 0, 1) is unchanged


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"floor": -0.1}, "floor is -0.1; it must be a number from 0 to 1, or 'auto'"),
        ({"ceiling": 1.5}, "ceiling is 1.5; it must be a number"),
        ({"floor": float("nan")}, "floor is nan; it must be a number"),
        ({"floor": "high"}, "floor is 'high'; it must be a number"),
        ({"floor": None}, "floor it must be a number"),
        ({"ceiling": [1]}, r"ceiling is \[1\]; it must be a number"),
        ({"floor": 0.5, "ceiling": 0.5}, "floor is 0.5; it must be less than the ceiling, 0.5"),
        ({"ceiling": 0.0}, "floor is 0; it must be less than the ceiling"),
        ({"target": "none", "floor": "auto"}, "target='none' is the identity"),
    ],
)
def test_bounds_that_cannot_be_are_refused_before_a_voxel_is_read(parameters, message):
    with pytest.raises(ValueError, match=message):
        tt.Calibrator(**parameters).fit(np.array([7.0]), [np.array([9])])
