"""Thresholds of masks, from tallies, against the masks of all voxels at all thresholds."""

from __future__ import annotations

import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import twintrack as tt
from twintrack.calibration.thresholds import Thresholds, mask_threshold

CANDIDATES = (np.arange(1000) + 0.5) / 1000


def random_cases(seed, number=6, raters=4):
    """Cases of different sizes: raters who are missing, who skipped voxels, who mark nothing."""
    rng = np.random.default_rng(seed)
    cases = []
    for k in range(number):
        score = (rng.random(150 + 50 * k) ** 3).astype(np.float16)
        labels = [
            (rng.random(score.size) < score ** rng.uniform(0.3, 1.5)).astype(np.uint8)
            for _ in range(raters)
        ]
        for mask in labels:
            mask[rng.random(score.size) < 0.1] = 255
        labels[int(rng.integers(raters))][:] *= 0
        missing = k % (raters + 1) if raters > 1 else None
        named = [None if r == missing else mask for r, mask in enumerate(labels)]
        cases.append((score, named))
    cases.append((np.float16([0.1, 0.9]), [np.zeros(2, np.uint8)] * raters))
    return cases


def fitted(cases, target="mhr", case_weight="voxels", weights=None, **parameters):
    made = tt.Calibrator(target, bins=12, case_weight=case_weight, **parameters)
    weights = weights or [1] * len(cases)
    for k, ((score, labels), weight) in enumerate(zip(cases, weights, strict=True)):
        made.partial_fit(score, labels, case=f"case {k}", weight=weight, ignore_label=255)
    return made


def best_of(value, tolerance=0):
    """The middle of the longest run of the best candidates."""
    runs, run = [], []
    for k, good in enumerate(np.asarray(value) >= max(value) - tolerance):
        run = [*run, k] if good else []
        runs.append(run)
    longest = max(runs, key=len)
    return (CANDIDATES[longest[0]] + CANDIDATES[longest[-1]]) / 2


def by_voxels(made, cases, voxel_weights=None, counted=None):
    """Thresholds from all voxels: a mask for every candidate."""
    right, dice = np.zeros(len(CANDIDATES)), []
    for k, (score, labels) in enumerate(cases):
        masks = made.transform(score.astype(np.float64)) > CANDIDATES[:, np.newaxis]
        looked = np.stack([np.zeros(score.size) if m is None else m != 255 for m in labels]) > 0
        marked = np.stack([np.zeros(score.size) if m is None else m == 1 for m in labels]) > 0
        majority = 2 * marked.sum(axis=0) > looked.sum(axis=0)
        seen = looked.any(axis=0)
        agree = (masks == majority)[:, seen].sum(axis=1)
        right += agree * (1 if voxel_weights is None else voxel_weights[k])
        if counted is not None and not counted[k]:
            continue
        own = []
        for rater in np.flatnonzero(looked.any(axis=1)):
            both = (masks & marked[rater] & looked[rater]).sum(axis=1)
            sizes = (masks & looked[rater]).sum(axis=1) + marked[rater].sum()
            own.append(np.where(sizes == 0, 1, 2 * both / np.maximum(sizes, 1)))
        dice.append(np.mean(own, axis=0))
    mean = [math.fsum(column) / len(dice) for column in np.transpose(dice)]
    return Thresholds(
        pytest.approx(best_of(right), abs=1e-9), pytest.approx(best_of(mean, 1e-10), abs=1e-9)
    )


@pytest.mark.parametrize("target", ["mhr", "single", "none"])
@pytest.mark.parametrize("raters", [1, 2, 5])
def test_thresholds_are_those_of_all_voxels(target, raters):
    for seed in range(2):
        cases = random_cases(seed, raters=raters)
        made = fitted(cases, target)
        assert made.thresholds_ == by_voxels(made, cases)
        assert made.threshold("dice") == made.thresholds_.dice
        assert made.threshold() == made.threshold("majority") == made.thresholds_.majority


def test_averaged_hard_maps_have_thresholds_too():
    cases = [(score, [*labels[:3]]) for score, labels in random_cases(0)[3:4]]
    made = fitted(cases, "hard")
    assert made.thresholds_ == by_voxels(made, cases)


def test_weights_of_cases_count_voxels_but_no_dice():
    """But a weight of 0 leaves the case out."""
    cases = random_cases(7)
    weights = [3, 0, 1, 5, 2, 1, 40]
    made = fitted(cases, weights=weights)
    assert made.thresholds_ == by_voxels(made, cases, weights, np.array(weights) > 0)
    assert made.thresholds_ != by_voxels(made, cases)
    rng = np.random.default_rng(3)
    halves = [
        (score, [(rng.random(len(score)) < score**power).astype(np.uint8) for _ in range(3)])
        for power, size in ((0.4, 4096), (3, 64), (2.5, 64))
        for score in [rng.random(size).astype(np.float16)]
    ]
    made = fitted(halves, case_weight="cases")
    assert made.thresholds_ == by_voxels(made, halves, [1, 64, 64])
    assert made.thresholds_.majority != fitted(halves).thresholds_.majority


def test_order_of_cases_and_parts_of_them_change_nothing():
    cases = random_cases(1)
    made = fitted(cases)
    other = tt.Calibrator(bins=12)
    for k in reversed(range(len(cases))):
        score, labels = cases[k]
        for part in (slice(100, None), slice(0, 100)):
            some = [None if mask is None else mask[part] for mask in labels]
            if score[part].size:
                other.partial_fit(score[part], some, case=f"case {k}", ignore_label=255)
    assert other.thresholds_ == made.thresholds_
    assert tt.Calibrator(bins=12).merge(other).thresholds_ == made.thresholds_
    assert pickle.loads(pickle.dumps(other)).thresholds_ == made.thresholds_
    exact = fitted(cases[3:5], exact=True)
    with pytest.raises(AttributeError, match="call refine"):
        exact.threshold("dice")


def test_float32_scores_are_taken_for_the_mean_of_their_cell():
    """The thresholds are as good as the best, but for voxels in the cells where masks begin."""
    rng = np.random.default_rng(0)
    score = rng.random(50_000, np.float32)
    labels = list((rng.random((3, score.size)) < score**2).astype(np.uint8))
    made = fitted([(score, labels)])
    best = by_voxels(made, [(score, labels)])
    majority, dice = made.thresholds_.majority, made.thresholds_.dice
    truth = np.sum(labels, axis=0) > 1

    def wrong(threshold):
        return np.mean((made.transform(score) > threshold) != truth)

    assert wrong(majority) - wrong(best.majority.expected) < 1e-4
    assert abs(dice - best.dice.expected) < 0.02


def test_more_voxels_change_the_thresholds():
    cases = random_cases(2)
    made = fitted(cases[:3])
    before = made.thresholds_
    score, labels = cases[4]
    made.partial_fit(score, labels, case="case 3", ignore_label=255)
    assert made.thresholds_ == fitted([*cases[:3], cases[4]]).thresholds_ != before


def test_the_middle_of_what_is_equally_good():
    """Volumes may be stored in steps of 1/255: the threshold keeps away from the map's values."""
    score = np.repeat(np.float32([0.2, 0.8]), 50)
    labels = [np.arange(100) >= 50] * 3
    made = tt.Calibrator(bins="cells").fit(score, labels)
    assert made.thresholds_ == Thresholds(0.5, 0.5)
    # Of marks that no threshold tells from the rest the mask is empty: above the map's top.
    half = [np.arange(100) % 3 == 0] * 3
    made = tt.Calibrator(bins=1).fit(score, half)
    assert made.y_thresholds_.tolist() == [0.34]
    assert made.thresholds_ == Thresholds(pytest.approx((0.3405 + 0.9995) / 2), 0.17)


def test_sums_of_several_cases_have_no_dice():
    cases = random_cases(3, 4)
    made = fitted(cases)
    tallies = list(made.tallies_.values())
    summed = tt.Calibrator(bins=12).add_tally(tallies[0], "a")
    summed.add_tally(tt.ScoreTally.of_all(tallies[1:]), cases=4)
    assert summed.map_ == made.map_
    assert summed.thresholds_ == Thresholds(made.thresholds_.majority, None)
    with pytest.raises(tt.InputError, match="threshold is 'dice'; .* fitted to sums of several"):
        summed.threshold("dice")


def test_tallies_of_earlier_versions_have_no_majority():
    made = fitted(random_cases(4))
    old = tt.Calibrator(bins=12)
    for case, tally in made.tallies_.items():
        rows = {r: (cells, sums[:, : 2 + len(r)]) for r, (cells, sums) in tally.set_rows().items()}
        old.add_tally(tt.ScoreTally.of_rows(tally.raters, rows), case)
    assert old.thresholds_ == Thresholds(None, made.thresholds_.dice)
    with pytest.raises(tt.InputError, match="tally the voxels again"):
        old.threshold("majority")


def test_file_keeps_them(tmp_path):
    made = fitted(random_cases(5))
    made.save(tmp_path / "c.json")
    again = tt.load_calibrator(tmp_path / "c.json")
    assert again.thresholds_ == made.thresholds_ is not None
    assert again.provenance_ == made.provenance_
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["thresholds"] == made.thresholds_.to_dict()
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "c.json").read_bytes()
    for wrong, message in (("0.5", "majority and dice"), ({"dice": 2}, "majority and dice")):
        (tmp_path / "c.json").write_text(json.dumps({**content, "thresholds": wrong}))
        with pytest.raises(ValueError, match=f"c.json: .*thresholds.*{message}"):
            tt.load_calibrator(tmp_path / "c.json")
    # Of an earlier version: what is made of its provenance stays what it was.
    del content["thresholds"]
    (tmp_path / "c.json").write_text(json.dumps(content))
    old = tt.load_calibrator(tmp_path / "c.json")
    assert old.thresholds_ is None
    assert "thresholds" not in old.provenance_
    assert old.threshold(0.25) == 0.25
    with pytest.raises(tt.InputError, match=r"the map has no thresholds.*fit --tallies"):
        old.threshold("dice")


def test_maps_without_facts_have_no_thresholds():
    assert fitted(random_cases(6)).finish(facts=False).thresholds_ is None


@pytest.mark.parametrize("asked", [-0.1, 1.1, math.nan, True, "0.5", "median"])
def test_what_is_no_threshold_is_refused(asked):
    with pytest.raises(tt.InputError, match="threshold is"):
        fitted(random_cases(0, 1)).threshold(asked)


def test_numbers_need_no_calibrator_and_words_do():
    assert mask_threshold(None, np.float32(0.5)) == mask_threshold(None, Fraction(1, 2)) == 0.5
    with pytest.raises(tt.InputError, match="only a calibrator has it"):
        mask_threshold(None, "majority")
    with pytest.raises(tt.InputError, match="the map has no thresholds"):
        mask_threshold(fitted(random_cases(0, 1)).map_, "majority")
    with pytest.raises(AttributeError, match="not fitted"):
        tt.Calibrator().threshold("dice")
