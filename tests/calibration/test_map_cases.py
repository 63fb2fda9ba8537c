"""`transform` takes what `fit` takes; nothing is written before all of it was found right."""

from __future__ import annotations

import numpy as np
import pytest

import twintrack as tt
from twintrack.calibration.map_cases import map_cases

RAGGED = [(4, 5, 6), (3, 2), (7,)]


@pytest.fixture(scope="module")
def calibrator():
    rng = np.random.default_rng(0)
    score = rng.random(5000, np.float32)
    return tt.Calibrator(bins=20).fit(score, [rng.random(5000) < score**2 for _ in range(3)])


def scores(dtype=np.float32):
    rng = np.random.default_rng(1)
    return [rng.random(shape).astype(dtype) for shape in RAGGED]


def test_a_list_gives_a_list(calibrator):
    given = scores()
    for method in (calibrator.transform, calibrator.predict):
        for listed in (given, tuple(given)):
            mapped = method(listed)
            assert isinstance(mapped, list)
            for one, expected in zip(mapped, map(calibrator.map_, given), strict=True):
                assert one.dtype == np.float32
                assert np.array_equal(one, expected)
    assert calibrator.transform([]) == []


def test_lists_of_numbers(calibrator):
    numbers = [0.1, 0.2, 0.9]
    expected = calibrator.transform(np.array(numbers))
    assert np.array_equal(calibrator.transform(numbers), expected)
    ragged = calibrator.transform([numbers, numbers[:2]])
    assert [one.tolist() for one in ragged] == [expected.tolist(), expected[:2].tolist()]


def test_what_was_fitted_can_be_transformed():
    rng = np.random.default_rng(2)
    score = rng.random((4, 5, 6, 7), np.float32)
    raters = rng.random((4, 3, 5, 6, 7)) < score[:, None]
    calibrator = tt.Calibrator(bins=10)
    stacked = calibrator.fit_transform(score, raters, stacked=True)
    assert stacked.shape == score.shape
    listed = tt.Calibrator(bins=10).fit_transform(list(score), list(raters))
    assert np.array_equal(np.stack(listed), stacked)
    within = tt.Calibrator(bins=10).fit_transform(list(score), list(raters), list(score < 0.5))
    assert not np.array_equal(np.stack(within), stacked)


def test_out_is_a_list_too(calibrator):
    given = scores()
    expected = calibrator.transform(given)
    rooms = [np.zeros_like(score) for score in given]
    written = calibrator.transform(given, out=rooms)
    assert all(a is b for a, b in zip(written, rooms, strict=True))
    in_place = calibrator.transform(given, out=given)
    for one, room, other in zip(in_place, rooms, expected, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(room, other)


def broken(what):
    given = scores()
    outs = [score.copy() for score in given]
    if what == "value":
        given[1][2, 1] = np.nan
    if what == "dtype":
        given[1] = given[1].astype(np.int32)
    if what == "shape":
        outs[1] = outs[1].T
    if what == "out dtype":
        outs[1] = outs[1].astype(np.float64)
    if what == "read-only":
        outs[1].flags.writeable = False
    if what == "no array":
        outs[1] = outs[1].tolist()
    return given, outs


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("value", r"case 1: score\[2, 1\] is nan"),
        ("dtype", "case 1: score has dtype int32"),
        ("shape", r"case 1: out has shape \(2, 3\) but score has shape \(3, 2\)"),
        ("out dtype", "case 1: out and score have different dtypes"),
        ("read-only", "case 1: out"),
        ("no array", "case 1: out is a list; an array to write to is needed"),
    ],
)
def test_an_error_names_the_case_and_comes_before_anything_is_written(calibrator, what, message):
    given, outs = broken(what)
    before = [np.array(out) for out in outs]
    with pytest.raises((TypeError, ValueError), match=message):
        calibrator.transform(given, out=outs)
    assert all(np.array_equal(a, b) for a, b in zip(outs, before, strict=True))
    if what == "value":
        for place in (None, given):
            with pytest.raises(ValueError, match=message):
                calibrator.transform(given, out=place)
        assert np.array_equal(given[0], scores()[0])


def test_out_of_one_case_is_not_anothers(calibrator):
    given = scores()
    twice = [given[0], given[0].copy()]
    room = np.zeros_like(given[0])
    with pytest.raises(ValueError, match=r"out\[0\] shares memory with score\[1\]"):
        calibrator.transform(twice, out=twice[::-1])
    with pytest.raises(ValueError, match=r"out\[0\] shares memory with out\[1\]"):
        calibrator.transform(twice, out=[room, room])
    # Between each other, but with no element in common: the last axis counts cases.
    batch = np.random.default_rng(0).random((5, 6, 3), np.float32)
    expected = calibrator.transform(batch)
    cases = [batch[..., k] for k in range(3)]
    calibrator.transform(cases, out=cases)
    assert np.array_equal(batch, expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (lambda given: given[:2], "score has 3 cases: out must be as many arrays, not 2 arrays"),
        (lambda given: given[0], "score has 3 cases: out must be as many arrays, not ndarray"),
    ],
)
def test_out_must_be_as_many_arrays(calibrator, out, message):
    given = scores()
    with pytest.raises(ValueError, match=message):
        calibrator.transform(given, out(given))


def test_generators_are_refused(calibrator):
    with pytest.raises(TypeError, match="score is a generator, which can be gone through once"):
        calibrator.transform(score for score in scores())
    with pytest.raises(TypeError, match="out is a list"):
        calibrator.transform(scores()[0], scores())


def test_on_a_device(library, calibrator):
    given = scores()
    expected = calibrator.transform(given)
    there = [library.put(score) for score in given]
    for mapped in (calibrator.transform(there), calibrator.transform(there, out=there)):
        for one, other in zip(mapped, expected, strict=True):
            assert np.array_equal(library.get(one), other)
    with pytest.raises(ValueError, match="shares memory"):
        map_cases(calibrator.map_, there[:1] * 2, there[:1] * 2)


@pytest.mark.torch
def test_torch(calibrator):
    torch = pytest.importorskip("torch")
    given = scores()
    expected = calibrator.transform(given)
    tensors = [torch.from_numpy(score.copy()) for score in given]
    mapped = calibrator.transform(tensors, out=tensors)
    for one, tensor, other in zip(mapped, tensors, expected, strict=True):
        assert one is tensor
        assert np.array_equal(one.numpy(), other)
