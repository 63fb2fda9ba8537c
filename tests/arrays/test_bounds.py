"""Scores outside [0, 1] by a rounding are set to the bound, counted and told; others are errors."""

from __future__ import annotations

import numpy as np
import pytest
from device_libraries import InterfaceArray

import twintrack as tt
from twintrack.arrays.bounds import set_roundings

SHAPE = (6, 7, 8)
ROUNDINGS = {"float32": (np.nextafter(np.float32(1), np.float32(2)), np.float32(-1e-9))}
ROUNDINGS["float64"] = (1 + 1e-6, -1e-6)
TOO_FAR = (1.0000021, -2e-6, np.nan, np.inf, -0.5, 2.0)


def case(dtype="float32", off=True):
    rng = np.random.default_rng(0)
    score = rng.random(SHAPE).astype(dtype)
    above, below = ROUNDINGS[dtype] if off else (1, 0)
    score[1, 2, 3], score[4, 5, 6], score[5, 0, 0] = above, below, below
    return score, rng.integers(0, 2, (3, *SHAPE), np.uint8)


@pytest.mark.parametrize("dtype", ROUNDINGS)
@pytest.mark.parametrize("step", [1, 2, -1])
def test_what_is_set_and_what_is_counted(dtype, step):
    given, expected = (case(dtype, off)[0][::step] for off in (True, False))
    before = given.copy()
    found, count = set_roundings(given)
    np.testing.assert_array_equal(found, expected)
    assert count == int((before != expected).sum())
    np.testing.assert_array_equal(given, before)  # the caller's array stays as it is
    assert set_roundings(expected)[0] is expected
    assert set_roundings(expected)[1] == 0


def test_16_bit_scores_and_negative_zero():
    half = np.array([0.5, -1e-7, -0.0, 1], np.float16)
    found, count = set_roundings(half)
    assert (found.tolist(), count) == ([0.5, 0.0, 0.0, 1.0], 1)
    assert set_roundings(np.array([1.001], np.float16))[1] == 0  # the next above 1: no rounding
    bits = np.array([0x3F80, 0xB000, 0x3F81], np.uint16).view("V2")  # 1, −4.7e-10, 1.0078
    found, count = set_roundings(bits)
    assert (found.view(np.uint16).tolist(), count) == ([0x3F80, 0, 0x3F81], 1)
    assert set_roundings(np.empty((0, 3), np.float32))[1] == 0


def uses(dtype):
    score, raters = case(dtype)
    fitted = tt.CalibrationMap([0.1, 0.9], [0.05, 0.7])
    calibrator = tt.Calibrator(bins=9).fit(*case(dtype, off=False))
    return score, {
        "ScoreTally": lambda s: tt.ScoreTally(3).update(s, raters),
        "CaseTally": lambda s: tt.CaseTally(3).update(s, raters),
        "CalibrationMap": fitted,
        "transform": calibrator.transform,
        "fit": lambda s: tt.Calibrator(bins=9).fit(s, raters).map_,
        "exact": lambda s: tt.Calibrator(bins=9, exact=True).fit(s, raters).map_,
        "partial_fit": lambda s: tt.Calibrator(bins=9).partial_fit(s, raters, case="A").map_,
        "reliability_curve": lambda s: tt.reliability_curve(s, raters),
    }


@pytest.mark.parametrize("dtype", ROUNDINGS)
@pytest.mark.parametrize("name", uses("float32")[1])
def test_python_sets_the_bound_and_warns(name, dtype):
    score, use = uses(dtype)
    expected = use[name](case(dtype, off=False)[0])
    with pytest.warns(UserWarning, match="3 scores are outside .* by at most 1e-06 and set to the"):
        found = use[name](score)
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected
    for value in TOO_FAR:
        wrong = score.copy()
        wrong[3, 3, 3] = value
        with pytest.raises(ValueError, match=r"score\[3, 3, 3\] is"):
            use[name](wrong)


def test_evaluate_notes_it():
    score, raters = case()
    found, expected = tt.evaluate(score, raters), tt.evaluate(case(off=False)[0], raters)
    assert found.notes == (
        *expected.notes,
        "3 scores are outside [0, 1] by at most 1e-06 and set to the bound",
    )
    assert found.tdsc == expected.tdsc
    assert found.crps == expected.crps


def test_in_place_the_array_gets_what_its_bounded_copy_would():
    fitted = tt.CalibrationMap([0.1, 0.9], [0.05, 0.7])
    score = case()[0]
    expected = fitted(case(off=False)[0])
    with pytest.warns(UserWarning, match="set to the bound"):
        assert fitted(score, out=score) is score
    np.testing.assert_array_equal(score, expected)
    wrong = case()[0]
    wrong[5, 5, 5] = 1.5
    before = wrong.copy()
    with pytest.raises(ValueError, match=r"score\[5, 5, 5\] is 1\.5"):
        fitted(wrong, out=wrong)
    np.testing.assert_array_equal(wrong, before)


def test_on_a_device_as_on_the_host(library):
    score, raters = case()
    expected = tt.ScoreTally(3).update(case(off=False)[0], raters)
    given = library.put(score)
    if isinstance(given, InterfaceArray):  # of its arrays nothing is known but where they lie
        with pytest.raises(ValueError, match=r"score\[1, 2, 3\] is 1"):
            tt.ScoreTally(3).update(given, library.put(raters))
        return
    with pytest.warns(UserWarning, match="3 scores are outside"):
        assert tt.ScoreTally(3).update(given, library.put(raters)) == expected
    np.testing.assert_array_equal(library.get(given), score)
    fitted = tt.CalibrationMap([0.1, 0.9], [0.05, 0.7])
    with pytest.warns(UserWarning, match="3 scores are outside"):
        mapped = fitted(given)
    np.testing.assert_array_equal(library.get(mapped), fitted(case(off=False)[0]))
