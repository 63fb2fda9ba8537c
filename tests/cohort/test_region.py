from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twintrack.cohort import annotated_box
from twintrack.cohort.region import open_mask
from twintrack.volumes import write_volume

SHAPE = (6, 5, 4)


@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    margin=st.integers(0, 25),
    dtype=st.sampled_from(["?", "u1", "i2", "f8"]),
    data=st.data(),
)
def test_annotated_box_is_the_grown_and_clamped_box_of_the_union(shape, margin, dtype, data):
    voxel = st.tuples(*(st.integers(0, length - 1) for length in shape))
    marks = data.draw(st.lists(voxel, min_size=1, max_size=5))
    raters = [np.zeros(shape, dtype, order) for order in "CFF"]
    raters[1] = np.zeros((*shape, 2), dtype)[..., 0]  # neither order
    for number, mark in enumerate(marks):
        raters[number % 3][mark] = 1
    expected = tuple(
        slice(max(min(axis) - margin, 0), min(max(axis) + margin + 1, length))
        for axis, length in zip(zip(*marks, strict=True), shape, strict=True)
    )
    assert annotated_box(raters, margin) == expected


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    values=st.sampled_from([(0,), (0, 1), (0, 255), (1,), (0, 0, 0, 1, 2), (0, 0, 0, 0, 9, 255)]),
    dtype=st.sampled_from(["u1", "i2", "f4"]),
    seed=st.integers(0, 99),
    planes=st.integers(1, 9),
)
def test_a_mask_is_the_same_read_whole_and_in_slabs(
    tmp_path_factory, shape, values, dtype, seed, planes
):
    array = np.random.default_rng(seed).choice(np.array(values, dtype), shape)
    path = tmp_path_factory.mktemp("mask") / "roi.nii"
    write_volume(path, array, np.eye(4))
    others = np.unique(array[array != 0])
    if len(others) < 2:
        slabs = open_mask(path)
        whole = slabs.whole()
        assert whole.array.dtype == slabs.place.array.dtype == np.bool_
        for _ in range(2):  # as often as wanted
            np.testing.assert_array_equal(np.concatenate(list(slabs.slabs(planes)), 2), array != 0)
        np.testing.assert_array_equal(whole.array, array != 0)
        return
    stored = array.ravel("F")  # the file's order
    wrong = np.flatnonzero((stored != 0) & (stored != stored[np.argmax(stored != 0)]))[0]
    voxel = tuple(int(i) for i in np.unravel_index(wrong, shape, "F"))
    message = re.escape(f"roi.nii: voxel {voxel} is {stored[wrong]} but a voxel before it is")
    with pytest.raises(ValueError, match=message):
        open_mask(path).whole()
    with pytest.raises(ValueError, match=message):
        list(open_mask(path).slabs(planes))


def test_annotated_box_has_the_margin_of_the_benchmark():
    rater = np.zeros((60, 61, 62), np.uint8)
    rater[30, 5, 41] = 1
    assert annotated_box([rater]) == (slice(10, 51), slice(0, 26), slice(21, 62))


def test_annotated_box_without_annotation_or_of_two_shapes():
    with pytest.raises(ValueError, match="no rater marks any voxel"):
        annotated_box([np.zeros(SHAPE), np.zeros(SHAPE)])
    with pytest.raises(ValueError, match="no raters"):
        annotated_box([])
    with pytest.raises(ValueError, match="rater 2 has shape"):
        annotated_box([np.ones(SHAPE), np.ones((6, 5, 3))])
