from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twintrack.cohort import annotated_box

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


def test_annotated_box_without_annotation_or_of_two_shapes():
    with pytest.raises(ValueError, match="no rater marks any voxel"):
        annotated_box([np.zeros(SHAPE), np.zeros(SHAPE)])
    with pytest.raises(ValueError, match="no raters"):
        annotated_box([])
    with pytest.raises(ValueError, match="rater 2 has shape"):
        annotated_box([np.ones(SHAPE), np.ones((6, 5, 3))])
