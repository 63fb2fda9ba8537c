"""Contested voxels: how many there are, and the error there, against plain NumPy on the voxels."""

from __future__ import annotations

import numpy as np
import pytest

import twintrack as tt

THRESHOLDS = (0.1, 0.24, 0.38, 0.52, 0.66, 0.8)
UNSEEN = 255


def by_voxels(score, raters):
    """Disagreement and error, voxel by voxel and threshold by threshold."""
    seen = raters != UNSEEN
    looked, votes = seen.sum(axis=0), (raters * seen).sum(axis=0)
    several = looked > 1
    contested = several & (votes > 0) & (votes < looked)
    mhr = votes[contested] / looked[contested]
    wrong = [np.mean((score[contested] > t) != (mhr > t)) for t in THRESHOLDS]
    return contested.sum() / (several & (votes > 0)).sum(), np.mean(wrong)


def case(raters, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.random((9, 8, 7))
    return score, (rng.random((raters, *score.shape)) < score**2).astype(np.uint8)


@pytest.mark.parametrize("raters", [2, 3, 5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_figures_are_those_of_the_voxels(raters, dtype):
    score, marks = case(raters)
    score = score.astype(dtype)
    # Scores and responses on the thresholds: neither is above.
    score[0, 0, :6] = THRESHOLDS
    found = tt.evaluate(score, marks)
    expected = by_voxels(score.astype(np.float64), marks)
    assert (found.disagreement, found.contested_error) == pytest.approx(expected, rel=1e-12)
    assert 0 < found.disagreement < 1


def test_the_error_is_0_for_the_mean_response_and_most_for_the_other_extreme():
    marks = np.array([[0, 1, 1, 0], [0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0]])[..., np.newaxis]
    mhr = marks.mean(axis=0)
    assert tt.CaseTally(4).update(mhr, marks).figures().contested_error == 0
    assert tt.CaseTally(4).update(mhr, marks).figures().disagreement == 2 / 3
    # An MHR of 1/4 exceeds two of the six thresholds, a score of 1 all of them.
    ones = np.where((mhr > 0) & (mhr < 1), 1.0, 0.0)
    assert tt.CaseTally(4).update(ones, marks).figures().contested_error == pytest.approx(4 / 6)


def test_voxels_count_out_of_those_who_looked():
    score, marks = case(4, 3)
    marks[0, :4] = UNSEEN
    marks[1, :2] = UNSEEN
    marks[2, :1] = UNSEEN  # one rater alone: nobody to disagree with
    found = tt.evaluate(score, marks, ignore_label=UNSEEN)
    expected = by_voxels(score, marks)
    assert (found.disagreement, found.contested_error) == pytest.approx(expected, rel=1e-12)


def test_the_whole_case_counts_whatever_the_region():
    score, marks = case(3, 1)
    region = np.zeros(score.shape, bool)
    region[:3] = True
    whole, part = tt.evaluate(score, marks), tt.evaluate(score, marks, region=region)
    assert (part.disagreement, part.contested_error) == (whole.disagreement, whole.contested_error)
    assert part.calibration.figures().disagreement != whole.disagreement


def test_what_there_is_not_is_not_a_number():
    score = np.linspace(0, 1, 27).reshape(3, 3, 3)
    agreed = tt.evaluate(score, [score > 0.5, score > 0.5], protocol="corrected")
    assert agreed.disagreement == 0
    assert np.isnan(agreed.contested_error)
    for raters in ([score > 0.5], [score > 2, score > 2]):
        found = tt.evaluate(score, raters, protocol="corrected")
        assert np.isnan([found.disagreement, found.contested_error]).all()


def test_a_tally_of_scores_has_them_too():
    score, marks = case(3, 2)
    score = score.astype(np.float16)
    found = tt.evaluate_tally(tt.ScoreTally(3).update(score, marks))
    assert (found.disagreement, found.contested_error) == pytest.approx(by_voxels(score, marks))
    tally = tt.ScoreTally(3).update(score, marks, np.ones(score.shape, bool))
    assert np.isnan(tt.evaluate_tally(tally).disagreement)  # raters may have marked elsewhere
    with pytest.raises(ValueError, match="figures is 'contested_error'"):
        tt.evaluate_tally(tally, figures=["contested_error"])
