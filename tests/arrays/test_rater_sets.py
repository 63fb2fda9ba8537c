"""Cases whose raters are missing or did not look everywhere, divided by who looked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twintrack import InputError
from twintrack.arrays.rater_sets import MOST_SETS, marks_of, open_parts


def make(seed, raters, shape=(4, 5, 6), missing=(), ignored=0.3, ignore=255):
    rng = np.random.default_rng(seed)
    score = rng.random(shape, np.float32)
    masks = []
    for k in range(raters):
        mask = (rng.random(shape) < 0.4).astype(np.uint8)
        mask[rng.random(shape) < ignored] = ignore
        masks.append(None if k in missing else mask)
    return score, masks


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**20), st.integers(1, 5), st.booleans())
def test_every_voxel_is_in_the_part_of_those_who_looked(seed, raters, with_region):
    rng = np.random.default_rng(seed)
    missing = {k for k in range(raters - 1) if rng.random() < 0.3}
    score, masks = make(seed, raters, missing=missing)
    region = rng.random(score.shape) < 0.7 if with_region else None
    opened = open_parts(score, masks, region, 255)
    assert opened.number == raters
    seen = np.zeros(score.shape, int)
    for part in opened.parts:
        inside = np.ones(score.shape, bool) if part.case.region is None else part.case.region
        seen += inside
        for k in range(raters):
            looked = np.zeros(score.shape, bool) if masks[k] is None else masks[k] != 255
            # All of a part, or nothing of it.
            assert looked[inside].all() if k in part.raters else not looked[inside].any()
    anyone = np.any([mask != 255 for mask in masks if mask is not None], axis=0)
    counts = anyone if region is None else anyone & region
    np.testing.assert_array_equal(seen, counts)


def test_nothing_is_divided_where_everyone_looked():
    score, masks = make(0, 3, ignored=0)
    opened = open_parts(score, masks, None, 255)
    assert [part.raters for part in opened.parts] == [(0, 1, 2)]
    assert opened.parts[0].case.region is None
    assert not opened.partly
    assert opened.missing == []
    assert marks_of(masks) is masks


def test_a_masked_array_did_not_look_where_it_is_masked():
    score, masks = make(1, 2)
    masked = [np.ma.masked_equal(mask, 255) for mask in masks]
    by_label, by_mask = open_parts(score, masks, None, 255), open_parts(score, masked)
    assert [p.raters for p in by_label.parts] == [p.raters for p in by_mask.parts]
    for one, other in zip(by_label.parts, by_mask.parts, strict=True):
        np.testing.assert_array_equal(one.case.region, other.case.region)
    stacked = np.ma.stack(masked)
    assert [p.raters for p in open_parts(score, stacked).parts] == [p.raters for p in by_mask.parts]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64", "float32", "float64"])
def test_the_label_may_be_of_any_dtype(dtype):
    ignore = 7
    score, masks = make(2, 2, ignore=ignore)
    want = [p.raters for p in open_parts(score, masks, None, ignore).parts]
    typed = [mask.astype(dtype) for mask in masks]
    assert [p.raters for p in open_parts(score, typed, None, ignore).parts] == want
    # A value that the dtype does not have is nowhere: nothing wraps around.
    clean = [np.where(mask == ignore, 0, mask).astype(dtype) for mask in masks]
    assert len(open_parts(score, clean, None, 2**40 + 1).parts) == 1


def test_marks_are_0_where_a_rater_did_not_look():
    _, masks = make(3, 3, missing={1})
    found = marks_of(masks, 255)
    assert len(found) == 2
    np.testing.assert_array_equal(found[1], masks[2] == 1)


@pytest.mark.parametrize("label", [0, 1])
def test_an_answer_cannot_be_ignored(label):
    score, masks = make(4, 2)
    with pytest.raises(InputError, match="0 and 1 are answers"):
        open_parts(score, masks, None, label)


def test_a_case_needs_a_rater():
    score, _ = make(5, 2)
    with pytest.raises(InputError, match="all are None"):
        open_parts(score, [None, None])


def test_a_wrong_shape_names_the_rater_among_all():
    score, masks = make(6, 3, missing={0})
    masks[2] = masks[2][:-1]
    with pytest.raises(InputError, match=r"raters\[2\] has shape \(3, 5, 6\)"):
        open_parts(score, masks, None, 255)


def test_the_number_of_sets_is_bounded():
    raters = 8  # 255 sets of them
    voxels = np.arange(1 << raters)
    masks = [np.where(voxels >> k & 1, 1, 255).astype(np.uint8) for k in range(raters)]
    with pytest.raises(InputError, match=f"more than {MOST_SETS} sets"):
        open_parts(np.zeros(voxels.shape, np.float32), masks, None, 255)
