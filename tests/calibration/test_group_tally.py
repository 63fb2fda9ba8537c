"""The cases of a patient, weighted in their sum and each by itself as it is."""

from __future__ import annotations

import numpy as np

import twintrack as tt
from twintrack.calibration.group_tally import GroupTally


def tally(seed, voxels):
    rng = np.random.default_rng(seed)
    score = rng.random(voxels).astype(np.float16)
    return tt.ScoreTally(2).update(score, list(rng.random((2, voxels)) < score))


def test_weights_are_those_of_the_sum_alone():
    first, second, empty = tally(0, 50), tally(1, 70), tally(2, 0)
    group = GroupTally.of([first, second, empty], [1, 3, 2])
    assert group.total == first + second + second + second
    assert group.cases == [first, second]


def test_a_case_without_weight_is_not_in_the_fit():
    first, second = tally(0, 50), tally(1, 70)
    assert GroupTally.of([first, second], [2, 0]) == (first + first, [first])


def test_calibrators_have_the_same():
    first, second, third = (tally(seed, 50 + seed) for seed in range(3))
    calibrator = tt.Calibrator()
    for number, (own, weight) in enumerate(((first, 1), (second, 3), (third, 0))):
        calibrator.add_tally(own, str(number), group="P", weight=weight)
    (group,) = calibrator._cases.weighted("voxels").each_group()
    assert group == GroupTally.of([first, second, third], [1, 3, 0])
