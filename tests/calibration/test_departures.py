"""Departures from a map: the formulas from voxels, what they find, and where they refuse."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import expit, logit

from twintrack import CalibrationMap, InputError, ScoreTally
from twintrack.calibration.departures import Answers, Departure, Departures
from twintrack.calibration.map_band import MapBand
from twintrack.calibration.tally_fit import TallyFit

FIT = TallyFit("mhr", 250, 0)
MAP = CalibrationMap([0.1, 0.5, 0.9], [0.02, 0.4, 0.85])


def voxels(patients=6, raters=3, seed=0, power=1.3):
    """Scores in float16 and votes; patients of other sizes and opinions."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(patients):
        score = rng.random(int(rng.uniform(200, 3000))).astype(np.float16)
        chance = score.astype(float) ** (power + rng.normal(0, 0.2))
        made.append((score, rng.random((raters, len(score))) < chance))
    return made


def tallies(patients):
    return [ScoreTally(len(raters)).update(score, list(raters)) for score, raters in patients]


def departures(patients, fitted=MAP):
    each = tallies(patients)
    groups = [Answers.of(FIT, tally) for tally in each]
    return Departures(fitted, groups, Answers.of(FIT, ScoreTally.of_all(each)))


def by_voxel(patients, fitted=MAP):
    """Predicted and marked volume of each patient, and m and response of all voxels by patient."""
    m = [np.interp(score.astype(float), fitted.x, fitted.y) for score, _ in patients]
    y = [raters.mean(axis=0) for _, raters in patients]
    return m, y


def test_volume_and_its_error_are_those_of_the_voxels():
    patients = voxels()
    m, y = by_voxel(patients)
    p, v = np.array([one.sum() for one in m]), np.array([one.sum() for one in y])
    volume, _ = departures(patients).measured(None)
    theta = np.log(p.sum() / v.sum())
    without = [np.log((p.sum() - a) / (v.sum() - b)) for a, b in zip(p, v, strict=True)]
    share = v / v.sum()
    assert volume.estimate == pytest.approx(theta, abs=1e-12)
    assert volume.error == pytest.approx(
        np.sqrt(((1 - share) * (np.array(without) - theta) ** 2).sum()), rel=1e-9
    )
    assert volume.freedom == pytest.approx(1 / (share**2).sum() - 1)
    assert volume.map_error == 0


def test_tilt_and_its_error_are_those_of_the_voxels():
    patients = voxels(seed=1)
    m, y = by_voxel(patients)
    every, answers = np.concatenate(m), np.concatenate(y)
    weight = every * (1 - every)
    k = (weight * every).sum() / weight.sum()
    scale = (every * abs(every - k)).sum()
    _, tilt = departures(patients).measured(None)
    assert tilt.estimate == pytest.approx(((answers - every) * (every - k)).sum() / scale)
    pull = np.array([((b - a) * (a - k)).sum() for a, b in zip(m, y, strict=True)])
    share = np.array([(a * (1 - a) * (a - k) ** 2).sum() for a in m])
    share /= share.sum()
    off = pull - share * pull.sum()
    assert tilt.error == pytest.approx(np.sqrt((off**2 / (1 - share)).sum()) / scale)
    assert tilt.freedom == pytest.approx(1 / (share**2).sum() - 1)


def test_a_wrong_prevalence_is_no_tilt_and_a_wrong_slope_no_volume():
    score = np.linspace(0.2, 0.8, 601)
    m = np.interp(score, MAP.x, MAP.y)
    weight = m * (1 - m)
    k = (weight * m).sum() / weight.sum()

    def found(yes):
        one, both = (Answers(score, np.full(len(score), n), n * yes) for n in (1.0, 2.0))
        return (each.estimate for each in Departures(MAP, [one, one], both).measured(None))

    volume, tilt = found(m * np.where(m > k, 1.1, 0.9))
    assert tilt == pytest.approx(0.1)
    assert volume == pytest.approx(np.log(m.sum() / (m * np.where(m > k, 1.1, 0.9)).sum()))
    volume, tilt = found(expit(logit(m) + 0.1))
    assert volume < -0.04
    assert abs(tilt) < 0.003
    steeper = m + 0.1 * weight * (m - k)
    volume, tilt = found(steeper)
    assert abs(volume) < 1e-9
    assert tilt > 0.005


def test_the_error_of_the_map_is_that_of_the_maps_without_each_patient():
    patients = voxels(seed=2)
    look = departures(patients)
    others = [CalibrationMap(MAP.x, MAP.y * (1 - share)) for share in (0.02, 0.05, 0.01)]
    marked = np.array([30.0, 50.0, 20.0])
    found = look.jackknifed(zip(others, marked, strict=True))
    h = marked / marked.sum()
    change = np.array([departures(patients, one).measured(None)[0].estimate for one in others])
    change -= look.measured(None)[0].estimate
    # A sum of cells is that of the patients, but for the means of cells.
    assert found.volume == pytest.approx(np.sqrt(((1 - h) * change**2).sum()), rel=1e-6)
    assert found.freedom == pytest.approx(1 / (h**2).sum() - 1)
    every = np.concatenate(by_voxel(patients)[0])
    k = (every**2 * (1 - every)).sum() / (every * (1 - every)).sum()
    scale = (every * abs(every - k)).sum()
    moved = np.array([share * (every * (every - k)).sum() / scale for share in (0.02, 0.05, 0.01)])
    assert found.tilt == pytest.approx(np.sqrt(((1 - h) * moved**2).sum()), rel=1e-6)
    volume, tilt = look.measured(found)
    assert (volume.map_error, tilt.map_error) == (found.volume, found.tilt)
    assert volume.map_freedom == tilt.map_freedom == found.freedom


def test_changes_are_by_how_much_more_another_map_departs():
    patients = voxels(seed=7)
    look, other = departures(patients), CalibrationMap(MAP.x, MAP.y**1.5)
    volume, tilt = look.changes(other)
    before, after = (departures(patients, one).measured(None)[0] for one in (MAP, other))
    assert volume == pytest.approx(after.estimate - before.estimate, rel=1e-6)
    m, y = map(np.concatenate, by_voxel(patients))
    moved = np.concatenate(by_voxel(patients, other)[0])
    arm = m - (m**2 * (1 - m)).sum() / (m * (1 - m)).sum()
    departed = [((y - one) * arm).sum() / (m * abs(arm)).sum() for one in (m, moved)]
    assert tilt == pytest.approx(departed[1] - departed[0], rel=1e-6)
    assert tilt != 0


@pytest.mark.parametrize("power", [0.5, 4.0])
def test_a_band_takes_all_scores_to_err_together(power):
    patients = voxels(seed=3, power=power)
    look = departures(patients)
    score = np.linspace(0, 1, 101)
    value = MAP(score)
    low, high = value * 0.8, np.minimum(value * 1.1, 1)
    band = MapBand(score, value, low, high, 0.95, "pointwise", 9, 6.0)
    found, t = look.within(band), stats.t.ppf(0.975, 5)
    volume, tilt = look.measured(found)
    # Where the map predicts too much it may be too high, and comes down to its lower limit.
    reach = np.log(1 / 0.8) if volume.estimate > 0 else np.log(1.1)
    assert volume.map_error == pytest.approx(reach / t, rel=0.01)
    assert found.freedom == 5
    every = np.concatenate(by_voxel(patients)[0])
    arm = every - (every**2 * (1 - every)).sum() / (every * (1 - every)).sum()
    # If raters mark more at high values, the map may be too low there, and too high elsewhere.
    away = np.where((arm > 0) == (tilt.estimate > 0), 0.1, 0.2) * every
    wanted = (away * abs(arm)).sum() / (every * abs(arm)).sum()
    assert tilt.map_error == pytest.approx(wanted / t, rel=0.01)


def test_significance_is_that_of_banerjee():
    one = Departure(0.7, 0.2, 4.0, 0.1, 9.0)

    def reach(p):
        return np.hypot(stats.t.isf(p / 2, 4) * 0.2, stats.t.isf(p / 2, 9) * 0.1)

    for p in (0.5, 0.05, 1e-4):
        assert one.reach(p) == pytest.approx(reach(p))
        exact = dataclasses.replace(one, estimate=-reach(p))
        assert exact.p_value == pytest.approx(p, rel=1e-9)
    assert one.p_value == pytest.approx(optimize.brentq(lambda p: reach(p) - 0.7, 1e-9, 1))
    power = np.hypot(stats.t.ppf(0.8, 4) * 0.2, stats.t.ppf(0.8, 9) * 0.1)
    assert one.detectable(0.05) == pytest.approx(reach(0.05) + power)
    t = stats.t.ppf(0.95, 4)
    assert one.interval(0.9) == pytest.approx((0.7 - 0.2 * t, 0.7 + 0.2 * t))


def test_a_single_patient_who_counts_makes_nothing_significant():
    alone = Departure(5.0, 0.2, 1e-9)
    assert alone.p_value > 0.5
    low, high = alone.interval(0.9)
    assert low < -1e6 < 1e6 < high
    assert Departure(0.0, 0.0, 3.0).p_value == 1
    assert Departure(0.1, 0.0, 3.0).p_value < 1e-9


def test_patients_in_another_order_give_the_same_bits():
    patients = voxels(seed=4)
    assert departures(patients).measured(None) == departures(patients[::-1]).measured(None)


def test_too_little_is_refused():
    patients = voxels(patients=3)
    for _, raters in patients[1:]:
        raters[:] = False
    with pytest.raises(InputError, match="of 1 of the 3 new patients"):
        departures(patients)
    with pytest.raises(InputError, match="predicts no volume"):
        departures(voxels(), CalibrationMap([0.0, 1.0], [0.0, 0.0]))


def test_a_map_without_slope_has_no_tilt():
    _, tilt = departures(voxels(), CalibrationMap([0.0, 1.0], [0.3, 0.3])).measured(None)
    assert tilt.estimate == 0
    assert tilt.p_value == 1
    assert math.isfinite(tilt.error)


def test_patients_without_a_voxel_that_counts_change_nothing():
    patients = voxels(seed=5)
    empty = Answers.of(FIT, ScoreTally(3))
    groups = [Answers.of(FIT, tally) for tally in tallies(patients)]
    total = Answers.of(FIT, ScoreTally.of_all(tallies(patients)))
    with_empty = Departures(MAP, [*groups, empty], total).measured(None)
    assert with_empty == Departures(MAP, groups, total).measured(None)
