"""The band of a map: the formula, what it must hold, and what it says where nothing is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from reference import fitted_map
from scipy import stats
from scipy.special import expit, logit

import twintrack as tt
from twintrack.arrays.threads import max_threads
from twintrack.calibration.group_tally import GroupTally
from twintrack.calibration.jackknife import jackknife
from twintrack.calibration.map_band import band_of_groups
from twintrack.calibration.tally_fit import TallyFit

BINS = 8
GRID = np.linspace(0, 1, 1001)


def cohort(cases=6, voxels=400, raters=3, seed=0):
    """Scores in float16, of other sizes and biases from case to case, and their raters."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(cases):
        score = rng.random(int(voxels * rng.uniform(0.3, 3))).astype(np.float16)
        response = expit(2 * logit(np.clip(score.astype(float), 0.01, 0.99)) + rng.normal(-1, 0.5))
        made.append((score, rng.random((raters, len(score))) < response))
    return made


def fitted(cases, **parameters):
    made = tt.Calibrator(**{"bins": BINS, **parameters})
    for number, (score, raters) in enumerate(cases):
        made.partial_fit(score, list(raters), case=str(number))
    return made


def without_volumes(band):
    return dataclasses.replace(band, volumes=None)


def log_odds(value):
    return logit(np.clip(value, 1e-5, 1 - 1e-5))


def plain_band(cases, scores, level=0.95):
    """The formula of `band_of_groups` for the mean response, from voxels, in plain NumPy."""

    def knots(some):
        score = np.concatenate([score for score, _ in some]).astype(float)
        return fitted_map(score, np.concatenate([raters for _, raters in some], axis=1), BINS)

    x, y = knots(cases)
    whole = np.interp(scores, x, y)
    rest = [
        log_odds(np.interp(scores, *knots(cases[:c] + cases[c + 1 :]))) for c in range(len(cases))
    ]
    low, high = [], []
    for at, m in enumerate(whole):
        yes, answers, mixed = 0, 0, True
        below = max(np.flatnonzero(x <= scores[at] + 1e-9), default=0)
        above = min(np.flatnonzero(x >= scores[at] - 1e-9), default=len(x) - 1)
        for block in {y[below], y[above]}:
            first, last = np.flatnonzero(y == block)[[0, -1]]
            begin = 0 if first == 0 else (x[first - 1] + x[first]) / 2
            end = 2 if last == len(x) - 1 else (x[last] + x[last + 1]) / 2
            inside = [
                raters[:, (begin <= score.astype(float)) & (score < end)] for score, raters in cases
            ]
            yes += np.array([some.sum() for some in inside])
            answers += np.array([some.size for some in inside])
            mixed &= 0 < block < 1
        rarer = yes if yes.sum() <= answers.sum() / 2 else answers - yes
        share = rarer / max(rarer.sum(), 1)
        freedom = 1 / max(np.sum(share**2), 1e-9) - 1
        if not mixed:
            low.append(0)
            high.append(1)
            continue
        change = np.array([theta[at] for theta in rest]) - log_odds(m)
        error = np.sqrt(np.sum((1 - share) * change**2))
        reach = stats.t.ppf((1 + level) / 2, freedom) * error
        low.append(expit(log_odds(m) - reach))
        high.append(expit(log_odds(m) + reach))
    low = np.maximum.accumulate(low)
    high = np.minimum.accumulate(high[::-1])[::-1]
    return whole, np.where(low > 1e-5, low, 0), np.where(high < 1 - 1e-5, high, 1)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_formula(seed, level):
    cases = cohort(seed=seed)
    made = fitted(cases)
    at = np.union1d(GRID, made.X_thresholds_)  # where the limits of neighbours are compared
    value, low, high = plain_band(cases, at, level)
    band = made.band(at, level)
    np.testing.assert_allclose(band.value, value, atol=1e-9)
    np.testing.assert_allclose(band.low, low, atol=1e-7)
    np.testing.assert_allclose(band.high, high, atol=1e-7)
    assert (band.level, band.kind, band.groups) == (level, "pointwise", 6)
    assert np.mean(band.high - band.low) > 0.01


@pytest.mark.parametrize("target", ["mhr", "single", "hard"])
def test_what_is_left_out_is_a_fit_to_the_others(target):
    """The error by maps of `Calibrator`, with one bin: every score has all votes around."""
    cases = cohort()
    made = fitted(cases, target=target, rater=1, bins=1)
    tallies = made._tallies().each_group()
    found = jackknife(made.tally_fit, made._tallies().total(), tallies, np.array([0.5]))
    followed = [1] if target == "single" else [0, 1, 2]
    votes = np.array([raters[followed].sum() for _, raters in cases])
    answers = np.array([len(followed) * len(score) for score, _ in cases])
    rarer = votes if votes.sum() <= answers.sum() / 2 else answers - votes
    share = rarer / rarer.sum()
    maps = [fitted(cases[:c] + cases[c + 1 :], target=target, rater=1, bins=1) for c in range(6)]
    change = [log_odds(m.transform([0.5]))[0] - log_odds(made.transform([0.5]))[0] for m in maps]
    assert found.error[0] == pytest.approx(np.sqrt(np.sum((1 - share) * np.square(change))))
    assert found.local_groups[0] == pytest.approx(1 / np.sum(share**2))
    assert found.effective_groups == pytest.approx(votes.sum() ** 2 / np.sum(votes**2))


def test_yes_and_no_are_alike():
    """Scores and answers turned round turn the band round: rare answers count the same."""
    rng = np.random.default_rng(2)
    cases = []
    for voxels in (300, 500, 800, 400):
        score = rng.integers(0, 65, voxels) / np.float32(64)
        cases.append((score, rng.random((2, voxels)) < score ** rng.uniform(1, 3)))
    at = np.linspace(0, 1, 65)
    band = fitted(cases, bins="cells").band(at)
    turned = fitted([(1 - score, ~marks) for score, marks in cases], bins="cells").band(1 - at)
    np.testing.assert_allclose(turned.low, 1 - band.high, atol=1e-9)
    np.testing.assert_allclose(turned.high, 1 - band.low, atol=1e-9)


def test_effective_groups_by_hand():
    """Four, two and two votes: 8² / (16 + 4 + 4); a case without votes adds nothing."""
    score = np.linspace(0.1, 0.9, 8).astype(np.float16)
    cases = [(score, [np.arange(8) >= 8 - votes]) for votes in (4, 2, 2, 0)]
    band = fitted(cases, bins=2).band()
    assert band.effective_groups == pytest.approx(64 / 24)
    assert band.groups == 4
    none = fitted([(score, [np.zeros(8)])] * 2, bins=2).band()
    assert none.effective_groups == 0


def test_neither_order_nor_parts_of_cases_matter():
    cases = cohort()
    expected = fitted(cases).band(kind="simultaneous")
    other = tt.Calibrator(bins=BINS)
    for number in (3, 0, 5, 1, 4, 2):
        score, raters = cases[number]
        for part in (slice(1, None, 2), slice(0, None, 2)):
            one = tt.Calibrator(bins=BINS)
            one.partial_fit(score[part], list(raters[:, part]), case="part")
            other.add_tally(one.tallies_["part"], str(number))
    assert other.band(kind="simultaneous") == expected


@pytest.mark.parametrize("kind", ["pointwise", "simultaneous"])
@pytest.mark.parametrize("seed", range(4))
def test_holds_the_map_and_rises_with_it(seed, kind):
    made = fitted(cohort(cases=3 + seed, voxels=60, seed=seed), bins=40)
    at = np.random.default_rng(seed).random(50)
    for band in (made.band(kind=kind), made.band(np.sort(at), kind=kind)):
        assert np.all(band.low >= 0)
        assert np.all(band.high <= 1)
        assert np.all(band.low <= band.value)
        assert np.all(band.value <= band.high)
        assert np.all(np.diff(band.low) >= 0)
        assert np.all(np.diff(band.high) >= 0)
        np.testing.assert_array_equal(band.value, made.transform(band.score))


def test_where_the_map_is_asked_for_does_not_matter():
    made = fitted(cohort())
    whole = made.band(kind="simultaneous")
    some = made.band(whole.score[[700, 20, 20]], kind="simultaneous")
    for name in ("score", "value", "low", "high"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[[700, 20, 20]])


def test_the_band_stays_open_where_nothing_is_known():
    """No votes at low scores, all at high ones: no case makes a difference, yet no proof."""
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(5):
        score = rng.random(900).astype(np.float16)
        cases.append((score, [(score > 0.7) | ((score > 0.4) & (rng.random(900) < 0.5))]))
    made = fitted(cases, bins=30)
    x, y = made.X_thresholds_, made.y_thresholds_
    first, last = x[y > 0][0], x[y < 1][-1]  # where both answers occur, from here to there
    assert x[0] < first < last < x[-1]
    least, *below = made.band([first, 0, first / 2, first - 1e-6]).high
    most, *above = made.band([last, 1, (1 + last) / 2, last + 1e-6]).low
    assert below == [least] * 3
    assert above == [most] * 3
    assert 0.1 < least < 0.9
    assert 0.1 < most < 0.9
    ends = made.band([0, 1])
    assert (ends.low[0], ends.high[1]) == (0, 1)


def test_one_case_with_all_votes_tells_nothing():
    rng = np.random.default_rng(1)
    score = rng.random(500).astype(np.float16)
    cases = [(score, [rng.random(500) < score]), *[(score, [np.zeros(500)])] * 4]
    band = fitted(cases).band()
    assert band.effective_groups == 1
    assert np.all(band.low == 0)
    assert np.all(band.high == 1)


def test_more_cases_narrow_the_band():
    few, many = (fitted(cohort(cases, seed=3)).band() for cases in (5, 40))
    assert np.mean(many.high - many.low) < 0.5 * np.mean(few.high - few.low)


def test_cases_that_are_alike_leave_no_doubt():
    """The map does not change when one is left out: the jackknife's error is 0, not NaN."""
    score = np.linspace(0, 1, 500).astype(np.float16)
    marks = [np.arange(500) % 7 < 3, np.arange(500) % 5 < 2]
    band = fitted([(score, marks)] * 4, bins=1).band()
    np.testing.assert_allclose(band.low, band.value, atol=1e-12)
    np.testing.assert_allclose(band.high, band.value, atol=1e-12)


def test_a_simultaneous_band_is_the_wider_and_goes_by_the_seed():
    cases = cohort(cases=8)
    point, joint = (fitted(cases).band(kind=kind) for kind in ("pointwise", "simultaneous"))
    assert np.all(joint.low <= point.low)
    assert np.all(joint.high >= point.high)
    assert np.mean(joint.high - joint.low) > 1.2 * np.mean(point.high - point.low)
    assert fitted(cases).band(kind="simultaneous") == joint
    other = fitted(cases, seed=1).band(kind="simultaneous")
    assert not np.array_equal(other.low, joint.low)
    assert np.abs(other.low - joint.low).max() < 0.05  # of draws alone
    assert fitted(cases, seed=1).band() == point


def test_chunks_of_cases_do_not_change_what_is_drawn_from():
    """150 cases are three chunks: the quantile is that of sup-t over all of them."""
    cases = cohort(cases=150, voxels=30)
    made = fitted(cases, bins=3)
    tallies = made._tallies().each_group()
    at = np.linspace(0.1, 0.9, 9)
    found = jackknife(made.tally_fit, made._tallies().total(), tallies, at, 4000)
    np.testing.assert_allclose(found.draws.std(axis=0), found.error, rtol=0.06)


def test_covers_as_often_as_it_says():
    """Cohorts of 12 cases of a known population; the nominal 90% are met, at once and by score."""
    rng = np.random.default_rng(5)
    at = np.array([0.125, 0.5, 0.875])
    cells = tt.ScoreTally(2).update(at, np.zeros((2, 3))).cells
    fit = TallyFit("mhr", 3, 0)

    def case():
        votes = rng.binomial(40, expit(logit(at) + rng.normal(0, 0.7)), (2, 3))
        rows = cells, np.stack([[40] * 3, [0] * 3, *votes], axis=1).astype(np.uint64)
        return tt.ScoreTally.of_rows(2, {(0, 1): rows})

    truth = expit(logit(at)[:, None] + rng.normal(0, 0.7, 200_000)).mean(axis=1)
    held = {"pointwise": [], "simultaneous": []}
    for _ in range(60):
        cases = [case() for _ in range(12)]
        total = tt.ScoreTally.of_all(cases)
        for kind, found in held.items():
            groups = [GroupTally.of([case], [1]) for case in cases]
            band = band_of_groups(fit(total), fit, total, groups, 12, at, level=0.9, kind=kind)
            found.append((band.low <= truth) & (truth <= band.high))
    assert 0.86 < np.mean(held["pointwise"]) < 0.95
    assert np.mean(np.all(held["pointwise"], axis=1)) < 0.88
    assert 0.86 < np.mean(np.all(held["simultaneous"], axis=1)) < 0.97


def test_the_identity_is_known():
    band = fitted(cohort(), target="none").band(kind="simultaneous")
    np.testing.assert_array_equal(band.low, band.score)
    np.testing.assert_array_equal(band.high, band.score)


def test_patients_are_left_out_whole():
    """Two cases of one patient are one group, as if they were given together."""
    cases = cohort()
    made, joined = (tt.Calibrator(bins=BINS) for _ in range(2))
    for number, (score, raters) in enumerate(cases):
        made.partial_fit(score, list(raters), case=str(number), group=f"patient {number // 2}")
        joined.partial_fit(score, list(raters), case=str(number // 2))
    assert without_volumes(made.band()) == without_volumes(joined.band())
    assert made.band().groups == 3


def test_what_makes_no_band_is_refused():
    score, raters = cohort(1)[0]
    made = tt.Calibrator(bins=BINS).partial_fit(score, list(raters), case="A", group="Ann")
    with pytest.raises(tt.InputError, match="needs at least two cases, here 1"):
        made.band()
    made.partial_fit(score, list(raters), case="B", group="Ann")
    with pytest.raises(tt.InputError, match="needs at least two cases, here 1"):
        made.band()
    made.partial_fit(score, list(raters), np.zeros(len(score)), case="C")
    with pytest.raises(tt.InputError, match="only one case, or patient, has voxels"):
        made.band()
    made.partial_fit(score, list(raters), case="D")
    assert made.band().groups == 3
    with pytest.raises(tt.InputError, match="kind is 'wide'; it must be one of pointwise, simul"):
        made.band(kind="wide")
    with pytest.raises(tt.InputError, match="level is 1; it must be"):
        made.band(level=1)
    with pytest.raises(tt.InputError, match=r"1\.5"):
        made.band([0.5, 1.5])


def test_cases_weigh_in_the_band_as_in_the_map():
    """A case of weight 2 is one that is there with twice as many voxels."""
    cases = cohort()
    scores, raters = [score for score, _ in cases], [list(marks) for _, marks in cases]
    made = tt.Calibrator(bins=BINS).fit(scores, raters, case_weight=[1, 2] * 3)
    doubled = fitted(cases)
    for number in (1, 3, 5):
        doubled.partial_fit(scores[number], raters[number], case=str(number))
    bands = [without_volumes(some.band()) for some in (made, doubled, fitted(cases))]
    assert bands[0] == bands[1] != bands[2]
    alike = fitted(cases, case_weight="cases")
    assert alike.band().effective_groups > fitted(cases).band().effective_groups


def test_raters_who_did_not_look_have_no_say():
    """Votes are shares of those who looked; a rater whom "single" follows has his own voxels."""
    cases = cohort()
    made, single, own = (
        tt.Calibrator(target, bins=BINS, rater=2) for target in ("mhr", "single", "single")
    )
    for number, (score, raters) in enumerate(cases):
        some = [*raters[:2], raters[2] if number % 3 else None]
        for calibrator in (made, single):
            calibrator.partial_fit(score, some, case=str(number))
        if number % 3:
            own.partial_fit(score, list(raters), case=str(number))
    votes = [np.mean(raters[: 2 + (k % 3 > 0)].sum(axis=1)) for k, (_, raters) in enumerate(cases)]
    assert made.band().effective_groups == pytest.approx(
        np.sum(votes) ** 2 / np.sum(np.square(votes))
    )
    band = single.band()
    np.testing.assert_array_equal(band.low, own.band().low)
    np.testing.assert_array_equal(band.high, own.band().high)
    assert (band.groups, own.band().groups) == (6, 4)


@pytest.mark.parametrize("bins", ["auto", "cells"])
def test_any_bins_and_bounds_have_a_band(bins):
    """They hold for the band as for the map: no map that is made so has other values."""
    cases = cohort()
    made = fitted(cases, bins=bins, floor=0.05, ceiling=0.9)
    band, free = made.band(GRID), fitted(cases, bins=bins).band(GRID)
    assert np.all((band.low <= band.value) & (band.value <= band.high))
    assert band.low.min() == band.value.min() == 0.05
    assert band.high.max() == 0.9
    assert free.low.min() < 0.05
    assert free.high.max() > 0.9
    inside = (free.value > 0.15) & (free.value < 0.6)
    np.testing.assert_allclose(band.low[inside], free.low[inside], atol=1e-9)
    assert inside.any()


def test_groups_are_gone_through_once_and_few_at_a_time():
    """Thousands of them fit in memory."""
    made = fitted(cohort(cases=20))
    tallies = made._tallies().each_group()
    total = made._tallies().total()
    alive: list[int] = []
    most = 0

    class Watched(tt.ScoreTally):
        def __init__(self, raters):
            super().__init__(raters)
            alive.append(1)

        def __del__(self):
            alive.pop()

    def one_by_one():
        nonlocal most
        for tally in tallies:
            total = Watched.of_rows(tally.total.raters, tally.total.set_rows())
            yield tally._replace(total=total)
            most = max(most, len(alive))

    band = band_of_groups(made.map_, made.tally_fit, total, one_by_one(), len(tallies))
    assert band == made.band()
    assert most <= 2 * max_threads() + 3
