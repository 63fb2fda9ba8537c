"""What is one case and what are several: read as it was meant, or refused with a way to say it."""

from __future__ import annotations

import contextlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import twintrack as tt
from twintrack.arrays.case import open_case
from twintrack.arrays.case_arguments import check_one_case, read_cases
from twintrack.metrics import reliability_curve

SHAPE = (8, 7, 6)


def stack(cases=5, raters=5, shape=SHAPE):
    """Scores (C, *shape) and raters (C, N, *shape) who agree with them more or less."""
    rng = np.random.default_rng(0)
    score = rng.random((cases, *shape), np.float32)
    marks = (
        rng.random((cases, raters, *shape))
        < score[:, None] ** np.linspace(0.5, 3, raters)[(slice(None), *[None] * len(shape))]
    )
    return score, marks.astype(np.uint8)


def fitted(*arguments, **keywords):
    return tt.Calibrator(bins=20).fit(*arguments, **keywords)


# --- stacks ---------------------------------------------------------------------------------------


def test_a_stack_that_may_be_one_case_is_refused_and_both_can_be_said():
    score, raters = stack()
    message = (
        "score of shape (5, 8, 7, 6) and raters of shape (5, 5, 8, 7, 6) can be read in two ways: "
        "pass stacked=False if they are one case of shape (5, 8, 7, 6), and stacked=True if they "
        "are 5 cases of shape (8, 7, 6) with 5 raters each"
    )
    for given_raters in (raters, list(raters), [list(masks) for masks in raters]):
        with pytest.raises(ValueError, match=re.escape(message)):
            fitted(score, given_raters)
        with pytest.raises(ValueError, match=re.escape(message)):
            tt.Calibrator().fit_transform(score, given_raters)
        cases = fitted(score, given_raters, stacked=True)
        assert cases.map_ == fitted(list(score), list(raters)).map_
        assert cases.tallies_ == fitted(list(score), list(raters)).tallies_
        one = fitted(score, given_raters, stacked=False)
        assert one.map_ == fitted(score, raters, stacked=False).map_ != cases.map_
        assert (cases.n_cases_, one.n_cases_) == (5, 1)


def test_exact_cuts_of_what_was_said_to_be_one_case():
    score, raters = stack()
    one = tt.Calibrator(bins=20, exact=True).fit(score, raters, stacked=False)
    flat = tt.Calibrator(bins=20, exact=True).fit(score.ravel(), raters.reshape(5, -1))
    assert one.map_ == flat.map_


def test_what_can_only_be_a_stack_is_not_guessed():
    score, raters = stack(cases=4, raters=3)
    with pytest.raises(
        ValueError, match=r"of 4 cases of .*with 3 raters each: if so, pass stacked"
    ):
        fitted(score, raters)
    with pytest.raises(ValueError, match="pass stacked=True"):
        fitted(score, raters, stacked=False)
    cases = fitted(score, raters, stacked=True)
    assert cases.tallies_ == fitted(list(score), list(raters)).tallies_
    for update in (tt.ScoreTally(3).update, tt.CaseTally(3).update, tt.evaluate):
        with pytest.raises(ValueError, match="4 cases.*one case at a time"):
            update(score, raters)


def test_regions_of_a_stack():
    score, raters = stack(cases=4, raters=3)
    region = score < 0.6
    cases = fitted(score, raters, region, stacked=True)
    assert cases.map_ == fitted(list(score), list(raters), list(region)).map_
    assert cases.map_ == fitted(list(score), list(raters), region).map_
    with pytest.raises(ValueError, match="4 scores but 4 sets of raters and 3 regions"):
        fitted(score, raters, region[:3], stacked=True)
    with pytest.raises(TypeError, match="region is a bool"):
        fitted(score, raters, True, stacked=True)
    with pytest.raises(ValueError, match=r"case 2: score\[0, 0, 0\] is nan"):
        fitted(
            np.where(np.arange(4)[:, None, None, None] == 2, np.nan, score), raters, stacked=True
        )


def test_stacks_are_views():
    score, raters = stack()
    for one, masks, region in read_cases(score, raters, score > 0, stacked=True):
        assert np.shares_memory(one, score)
        assert all(np.shares_memory(mask, raters) for mask in masks)
        assert region.dtype == bool


def test_no_word_where_both_readings_are_the_same():
    score, raters = stack(cases=1, raters=1)
    assert fitted(score, raters).map_ == fitted(score[0], raters[0]).map_


def test_a_score_of_one_axis_is_one_case():
    score, raters = stack(cases=1, shape=(40,))
    assert fitted(score[0], raters[0]).n_cases_ == 1
    square = np.linspace(0, 1, 5, dtype=np.float32)
    assert fitted(square, raters[0, :, :5]).n_voxels_ == 5
    with pytest.raises(ValueError, match=r"score has shape \(40,\): the first axis counts cases"):
        fitted(score[0], raters[0], stacked=True)


def test_lists_of_cases_are_what_they_were():
    score, raters = stack()
    cases = fitted(list(score), [list(masks) for masks in raters])
    assert cases.map_ == fitted(tuple(score), raters).map_
    assert cases.n_cases_ == 5
    assert fitted(list(score), raters, stacked=True).map_ == cases.map_
    with pytest.raises(ValueError, match="score is a list, which has one entry per case"):
        fitted(list(score), raters, stacked=False)
    with pytest.raises(ValueError, match=r"5 scores but 4 sets .*; if they are one case, pass"):
        fitted(list(score), list(np.ones((4, 5, *SHAPE))))
    with pytest.raises(ValueError, match="case 1: .* can be read in two ways"):
        fitted([score[:, 0], score], [raters[:, :, 0][0][:, None] * np.ones((1, 5, 1, 1)), raters])


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=5).map(tuple),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_no_stack_is_read_as_one_case_and_no_case_as_a_stack(shape, raters, cases):
    score, marks = np.zeros((cases, *shape)), np.zeros((cases, raters, *shape))
    assert len(read_cases(score, marks, stacked=True)) == cases
    if cases == raters == 1:  # either way the same voxels
        assert len(read_cases(score, marks)) == 1
    else:
        with pytest.raises(ValueError, match="stacked=True"):
            read_cases(score, marks)
    score, marks = np.zeros(shape), np.zeros((raters, *shape))
    assert len(read_cases(score, marks, stacked=False)) == 1
    with contextlib.suppress(ValueError):  # shapes that a stack may have too
        assert read_cases(score, marks)[0][0] is score


@pytest.mark.parametrize(
    "take",
    [
        lambda s, r: tt.ScoreTally(5).update(s, r),
        lambda s, r: tt.CaseTally(5).update(s, r),
        lambda s, r: tt.CaseTally(5).add_and_overview(open_case(s, r)),
        lambda s, r: tt.Calibrator().partial_fit(s, r),
        tt.evaluate,
        reliability_curve,
        lambda s, r: (
            tt.Calibrator(bins=5, exact=True)
            .add_tally(tt.ScoreTally(5).update(s, list(r)))
            .refine([(s, r, None)])
        ),
    ],
    ids=["ScoreTally", "CaseTally", "overview", "partial_fit", "evaluate", "curve", "refine"],
)
def test_functions_of_one_case_refuse_a_stack(take):
    score, raters = stack()
    with pytest.raises(ValueError, match="5 cases of shape .* one case at a time"):
        take(score, raters)
    if "add_tally" not in take.__code__.co_names:
        with pytest.raises(ValueError, match="score is a list of 5 arrays, but one case at a time"):
            take(list(score), list(raters))
        with pytest.raises(ValueError, match="can be read in two ways"):
            take(score, [list(masks) for masks in raters])
    take(score[0], raters[0])
    # Five slices of a volume and five raters: what is streamed slice by slice has such shapes.
    take(score[:, 0], np.ascontiguousarray(raters[0][:, None, 0] * np.ones((1, 5, 1, 1), np.uint8)))


def test_a_list_of_raters_is_one_case():
    score, raters = stack()
    tally = tt.ScoreTally(5).update(score, list(raters))
    assert tally == tt.ScoreTally(5).update(score.ravel(), raters.reshape(5, -1))
    assert tt.Calibrator().partial_fit(score, list(raters)).tallies_[None] == tally


@pytest.mark.torch
def test_torch_stacks():
    torch = pytest.importorskip("torch")
    score, raters = stack()
    tensors = torch.from_numpy(score), torch.from_numpy(raters)
    with pytest.raises(ValueError, match="can be read in two ways"):
        fitted(*tensors)
    assert fitted(*tensors, stacked=True).map_ == fitted(score, raters, stacked=True).map_
    assert fitted(*tensors, stacked=False).map_ == fitted(score, raters, stacked=False).map_
    mapped = tt.Calibrator(bins=20).fit_transform(*tensors, stacked=True)
    assert isinstance(mapped, torch.Tensor)


def test_stacks_on_a_device(library):
    score, raters = stack()
    there = library.put(score), library.put(raters)
    for take in (fitted, tt.ScoreTally(5).update, tt.CaseTally(5).update, tt.evaluate):
        with pytest.raises(ValueError, match="can be read in two ways"):
            take(*there)
    for stacked in (True, False):
        on_host = fitted(score, raters, stacked=stacked)
        assert fitted(*there, stacked=stacked).map_ == on_host.map_
    listed = [library.put(s) for s in score], [library.put(r) for r in raters]
    assert fitted(*listed).map_ == fitted(score, raters, stacked=True).map_


# --- other confusions -----------------------------------------------------------------------------


def test_lists_of_numbers():
    numbers, marks = [0.1, 0.2, 0.9], [0, 0, 1]
    expected = fitted(np.array(numbers), np.array([marks, marks]))
    for score in (numbers, tuple(numbers), [np.float64(p) for p in numbers]):
        assert fitted(score, [marks, marks]).map_ == expected.map_
        assert fitted(score, np.array([marks, marks])).map_ == expected.map_
        assert tt.Calibrator(bins=20).partial_fit(score, (marks, marks)).map_ == expected.map_
    # As many raters as voxels: still one case.
    assert fitted(numbers, [marks] * 3, [True, True, True]).n_cases_ == 1
    ragged = fitted([[0.1, 0.2], [0.4, 0.6, 0.9]], [[[0, 1]], [[0, 0, 1]]])
    arrays = [np.array([0.1, 0.2]), np.array([0.4, 0.6, 0.9])], [np.array([[0, 1]]), [[0, 0, 1]]]
    assert ragged.map_ == fitted(*arrays).map_
    assert ragged.n_cases_ == 2


N, LINE = 4, np.linspace(0, 1, 4)


@pytest.mark.parametrize(
    ("score", "raters", "error", "message"),
    [
        ([0.1, 0.2, 0.9], [0, 0, 1], ValueError, r"\(3,\).*for one rater pass \[raters\]"),
        (LINE, np.ones(N), ValueError, r"for one rater pass \[raters\]"),
        (LINE, np.ones((N, 3)), ValueError, r"not the last: pass raters\.T"),
        (LINE, np.ones((N, 1)), ValueError, r"not the last: pass raters\.T"),
        (np.ones((2, 3, 4)), np.ones((2, 3, 4, 5)), ValueError, r"pass numpy\.moveaxis"),
        (LINE[:, None], np.ones(N), ValueError, r"no axis of features; pass score\[:, 0\]"),
        (LINE[:, None], np.ones((N, 3)), ValueError, r"\(N, 4\), a row for each rater"),
        (LINE[:, None], np.ones((3, N)), ValueError, r"pass score\[:, 0\]"),
        (LINE[:, None], np.ones((N, 1)), ValueError, r"for one rater pass \[raters\]"),
        ([LINE, LINE], [np.ones(N), np.ones(N)], ValueError, r"case 0: .*for one rater"),
        ([], [], ValueError, "score is an empty list"),
        (np.zeros((0, 3)), np.zeros((0, 2, 3)), ValueError, "raters is empty"),
        (LINE, [], ValueError, "raters is empty"),
        ([LINE, LINE], [[np.ones(N)], []], ValueError, "case 1: raters is empty"),
        (LINE, None, TypeError, "raters is a single NoneType"),
        (LINE, {"a": np.ones(N)}, TypeError, "raters is a single dict"),
        ([LINE], None, TypeError, "raters is a NoneType; one entry for each case"),
        ((x for x in [LINE]), [[np.ones(N)]], TypeError, "score is a generator.* pass a list"),
        (LINE, (x for x in [np.ones(N)]), TypeError, "raters is a single generator; it must be an"),
        (
            [LINE],
            zip([np.ones(N)]),
            TypeError,
            "raters is a zip; one entry for each case is needed",
        ),
        ([0.5, LINE], [[np.ones(N)]] * 2, ValueError, "score is a list of both numbers and arrays"),
        (["a.nii.gz"], [["b.nii.gz"]], TypeError, "score has dtype <U8"),
    ],
)
def test_confusions_are_named(score, raters, error, message):
    with pytest.raises(error, match=message):
        tt.Calibrator().fit(score, raters)


@pytest.mark.parametrize("take", [tt.evaluate, check_one_case, tt.ScoreTally(3).update])
def test_functions_of_one_case_name_them_too(take):
    for raters, message in ((np.ones(N), "for one rater"), (np.ones((N, 3)), r"raters\.T")):
        with pytest.raises(ValueError, match=message):
            take(LINE, raters)


def test_the_only_case_has_no_number():
    broken = np.array([0.1, np.nan])
    for score, raters in ((broken, [[0, 1]]), ([broken], [[[0, 1]]])):
        with pytest.raises(ValueError, match=r"^score\[1\] is nan"):
            fitted(score, raters)


def test_an_empty_stack_has_no_case():
    with pytest.raises(ValueError, match="at least one case is needed"):
        fitted(np.zeros((0, 3)), np.zeros((0, 2, 3)), stacked=True)


def test_what_is_proposed_works():
    line = np.linspace(0, 1, 30)
    marks = np.random.default_rng(0).random((3, 30)) < line
    expected = fitted(line, marks).map_
    assert fitted(line, marks.T.T).map_ == expected
    assert fitted(line[:, None][:, 0], marks).map_ == expected
    volume = np.moveaxis(marks.reshape(3, 5, 6), 0, -1)
    assert fitted(line.reshape(5, 6), np.moveaxis(volume, -1, 0)).map_ == expected
    assert fitted(line[:, None], [marks[0][:, None]]).map_ == fitted(line, marks[:1]).map_
