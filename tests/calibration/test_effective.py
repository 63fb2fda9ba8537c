from __future__ import annotations

import pytest

from twintrack.calibration.effective import effective_groups


def test_effective_groups_by_hand():
    assert effective_groups([2.0, 2.0, 2.0]) == pytest.approx(3)
    assert effective_groups([1.0, 0.0, 0.0]) == 1
    assert effective_groups([3.0, 1.0]) == pytest.approx(16 / 10)
    assert effective_groups([0.0, 0.0]) == 0
    assert effective_groups([]) == 0


def test_a_sum_of_groups_weighs_what_its_groups_do():
    weights = [5.0, 1.0, 2.0, 0.5]
    sums = [sum(weights[:3]), weights[3]]
    within = [effective_groups(weights[:3]), 1]
    assert effective_groups(sums, within) == pytest.approx(effective_groups(weights))
