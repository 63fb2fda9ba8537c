"""Groups of cases, as the visits of a patient: held out and drawn as a whole, in any order."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twintrack as tt
from twintrack.calibration.bin_choice import choose_bins
from twintrack.calibration.case_tallies import CaseTallies
from twintrack.calibration.fitted_on import FittedCase

PATIENTS = ["P", "Q", "P", "R", "Q", "P", "S", "T"]


def voxels(seed, count=300):
    rng = np.random.default_rng(seed)
    score = rng.random(count, np.float32)
    return score, [rng.random(count) < score**2 for _ in range(2)]


TALLIES = [tt.ScoreTally(2).update(*voxels(seed)) for seed in range(len(PATIENTS))]


def of_patients(names):
    """The sum of the tallies of each patient, as they come first."""
    return [
        tt.ScoreTally.of_all([t for t, p in zip(TALLIES, names, strict=True) if p == patient])
        for patient in dict.fromkeys(names)
    ]


def totals(cases):
    return [group.total for group in cases.each_group()]


def gathered(order=None, groups=PATIENTS, **parameters):
    calibrator = tt.Calibrator(**parameters)
    for k in range(len(PATIENTS)) if order is None else order:
        calibrator.add_tally(TALLIES[k], str(k), group=groups and groups[k])
    return calibrator


@settings(max_examples=20)
@given(st.permutations(range(len(PATIENTS))))
def test_groups_are_sums_in_the_order_of_their_first_cases(order):
    """Whoever draws them draws the same, whatever came first."""
    cases = CaseTallies()
    for k in order:
        cases.add_tally(TALLIES[k], str(k), group=PATIENTS[k])
    assert totals(cases) == cases.each_part() == of_patients(PATIENTS)


@pytest.mark.parametrize("fit", ["fit", "add_tally", "partial_fit"])
def test_no_patient_is_divided_between_folds(fit):
    if fit == "fit":
        scores, raters = zip(*(voxels(seed) for seed in range(len(PATIENTS))), strict=True)
        made = tt.Calibrator(bins="auto").fit(list(scores), list(raters), groups=PATIENTS)
    elif fit == "add_tally":
        made = gathered(bins="auto")
    else:
        made = tt.Calibrator(bins="auto")
        for k, patient in enumerate(PATIENTS):
            made.partial_fit(*voxels(k), case=str(k), group=patient)
    expected = choose_bins(of_patients(PATIENTS), "mhr", 0, 5, 0)
    assert made.bin_choice_ == expected
    assert made.bin_choice_ != gathered(groups=None, bins="auto").bin_choice_


def test_a_group_for_every_case_changes_nothing():
    alone = [f"{(7 - k) % 8} of another order" for k in range(len(PATIENTS))]
    ours, theirs = gathered(groups=alone, bins="auto"), gathered(groups=None, bins="auto")
    assert ours.bin_choice_ == theirs.bin_choice_
    assert ours.provenance_ == theirs.provenance_
    assert totals(ours._cases) == totals(theirs._cases) == TALLIES


def test_a_case_without_a_group_is_a_patient_called_as_the_case_is():
    cases = CaseTallies()
    for k, (name, group) in enumerate([("P", None), ("P_2", "P"), ("Q", None), (None, None)]):
        cases.add_tally(TALLIES[k], name, group=group)
    assert totals(cases) == [TALLIES[3], TALLIES[0] + TALLIES[1], TALLIES[2]]


def test_a_sum_may_be_of_one_group():
    """The folds of a store: a patient who is a fold of several cases can still be drawn."""
    calibrator = tt.Calibrator(bins=5).add_tally(of_patients(PATIENTS)[0], cases=3, group="P")
    calibrator.add_tally(TALLIES[1], "1", group="Q").add_tally(TALLIES[4], "4", group="Q")
    assert totals(calibrator._cases) == of_patients(PATIENTS)[:2]
    calibrator.add_tally(TALLIES[6] + TALLIES[7], cases=2)
    with pytest.raises(ValueError, match="2 of 7 cases are there in sums of several alone"):
        calibrator._cases.each_group()
    assert len(calibrator._cases.each_part()) == 3


def test_groups_survive_copies_pickles_and_merging():
    whole = gathered(bins=5)
    parts = [gathered(range(start, len(PATIENTS), 2), bins=5) for start in (0, 1)]
    assert parts[0].merge(parts[1])._cases.each_group() == whole._cases.each_group()
    copied = pickle.loads(pickle.dumps(whole))
    assert copied._cases.each_group() == whole._cases.each_group()
    assert parts[0].fitted_on_ == whole.fitted_on_


def test_the_patient_is_among_what_was_fitted_on():
    known = gathered(bins=5).fitted_on_
    assert FittedCase.named("3", None, "R") in known
    by_voxels = tt.Calibrator(bins=5).partial_fit(*voxels(3), case="3", group="R")
    assert by_voxels.fitted_on_ == (FittedCase.named("3", None, "R"),)


def test_a_case_is_of_one_group():
    calibrator = gathered(bins=5)
    before = calibrator.map_
    for add in (
        lambda: calibrator.partial_fit(*voxels(9), case="0", group="Q"),
        lambda: calibrator.add_tally(TALLIES[0], "0", group="Q"),
    ):
        with pytest.raises(
            ValueError, match="case '0': it is of the group 'Q' here, and was of 'P'"
        ):
            add()
    assert calibrator.map_ is before
    assert calibrator.partial_fit(*voxels(9), case="0").n_cases_ == 8  # more of the same case
    for add in (
        lambda: calibrator.partial_fit(*voxels(9), group="Q"),
        lambda: calibrator.add_tally(TALLIES[0], group="Q"),
    ):
        with pytest.raises(ValueError, match="group needs the name of the case"):
            add()


def test_one_patient_has_nobody_to_be_held_out():
    with pytest.raises(ValueError, match="all 8 cases are of one: give a number of bins"):
        _ = gathered(groups=["P"] * 8, bins="auto").map_


def test_groups_of_a_fit_are_checked_before_the_voxels():
    scores, raters = zip(*(voxels(seed) for seed in range(3)), strict=True)
    given = (list(scores), list(raters))
    calibrator = tt.Calibrator(bins=5)
    numbered = calibrator.fit(*given, groups=np.array([7, 7, 8]))
    assert totals(numbered._cases) == [TALLIES[0] + TALLIES[1], TALLIES[2]]
    assert calibrator.fitted_on_ is None  # the numbers of a list are no names
    for groups, error, message in [
        (["P", "Q"], ValueError, "groups there are 3 cases: it must have one entry for each"),
        ("PQR", ValueError, "one entry for each"),
        (["P", None, "Q"], TypeError, r"groups\[1\] is None; a group is text or a whole number"),
        (["P", "", "Q"], TypeError, r"groups\[1\] is ''"),
        ([0.5, 1, 2], TypeError, r"groups\[0\] is 0.5"),
        (iter("PQR"), TypeError, "groups is a"),
    ]:
        with pytest.raises(error, match=message):
            calibrator.fit(*given, groups=groups)
    with pytest.raises(ValueError, match="there are 1 cases"):
        calibrator.fit(*voxels(0), groups=["P", "Q"])
