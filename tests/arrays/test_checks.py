"""Which arrays are masks, and which can be written to: by the definition, element by element."""

from __future__ import annotations

import contextlib
import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from twintrack.arrays import checks
from twintrack.arrays.checks import mask_value, require_output

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def where(voxel):
    return f"at {list(voxel)}"


def any_order(data, array):
    """The same values with other strides."""
    axes = data.draw(st.permutations(range(array.ndim)))
    steps = data.draw(st.tuples(*[st.sampled_from([1, -1, 2])] * array.ndim))
    room = np.zeros([array.shape[k] * abs(steps[k]) for k in axes], array.dtype)
    whole = room.transpose(np.argsort(axes).astype(int))
    view = whole[(..., *(slice(None, None, step) for step in steps))]
    view[...] = array
    return view


@given(
    data=st.data(),
    dtype=st.sampled_from(["?", "u1", "i1", "i2", "u8", "f2", "f4", "f8"]),
    shape=SHAPES,
    values=st.sampled_from(
        [(0,), (0, 1), (0, 0, 0, 1), (0, 255), (0, -1), (7,), (0, 0.5), (0, 1, 2), (0, np.nan)]
    ),
)
def test_a_mask_is_0_and_one_other_value(data, dtype, shape, values):
    with np.errstate(all="ignore"):
        values = np.array(values).astype(dtype)  # another value in some of them
    array = data.draw(hnp.arrays(dtype, shape, elements=st.sampled_from(values.tolist())))
    view = any_order(data, array)
    flat = array.ravel()  # C order, of the values
    marked = np.flatnonzero(flat != 0)
    others = [i for i in marked if flat[i] != flat[marked[0]]]
    if dtype == "?":
        assert mask_value(view, where) is None
    elif others:
        voxel = [int(i) for i in np.unravel_index(others[0], shape)]
        with pytest.raises(ValueError, match=re.escape(f"at {voxel} is {flat[others[0]]}")):
            mask_value(view, where)
    else:
        found = mask_value(view, where)
        assert found is None if marked.size == 0 else found == flat[marked[0]]


def test_parts_of_a_mask_have_one_value(monkeypatch):
    monkeypatch.setattr(checks, "_AT_A_TIME", 16)  # as if the arrays were large
    mask = np.zeros((3, 40), np.uint8)
    assert mask_value(mask, where) is None
    mask[1, 20:] = 2
    assert mask_value(mask, where) == 2
    assert mask_value(mask, where, np.uint8(2)) == 2
    assert mask_value(np.zeros(9, np.uint8), where, np.uint8(2)) == 2
    with pytest.raises(ValueError, match=r"at \[1, 20\] is 2 but a voxel before it is 1; a region"):
        mask_value(mask, where, np.uint8(1))
    mask[2, 39] = 3
    with pytest.raises(ValueError, match=r"at \[2, 39\] is 3 but a voxel before it is 2;"):
        mask_value(mask, where)
    mask[0, 0] = 3
    for turned in (mask, np.asfortranarray(mask)):  # the first of the array, however it lies
        with pytest.raises(ValueError, match=r"at \[1, 20\] is 2 but a voxel before it is 3;"):
            mask_value(turned, where)


def test_bfloat16_masks_are_compared_by_value():
    one, other, minus_zero, nan = 0x3F80, 0x4000, 0x8000, 0x7FC0
    assert mask_value(np.array([0, minus_zero, one, one], "u2").view("V2"), where) == 1
    for wrong in (other, nan):
        with pytest.raises(ValueError, match=r"at \[2\] is (2\.0 but|nan;)"):
            mask_value(np.array([one, 0, wrong], "u2").view("V2"), where)


def overlaps(shape, strides, itemsize):
    bytes_of = [
        sum(i * step for i, step in zip(index, strides, strict=True)) + byte
        for index in itertools.product(*map(range, shape))
        for byte in range(itemsize)
    ]
    return len(set(bytes_of)) < len(bytes_of)


@given(
    axes=st.lists(st.tuples(st.integers(0, 4), st.integers(-24, 24)), max_size=4),
    itemsize=st.sampled_from([1, 2, 4, 8]),
)
def test_no_output_with_shared_memory_passes(axes, itemsize):
    shape, strides = [n for n, _ in axes], [step for _, step in axes]
    if 0 in shape or not overlaps(shape, strides, itemsize):
        # What interleaves may be refused as well.
        with contextlib.suppress(ValueError) if 0 not in shape else contextlib.nullcontext():
            require_output("out", shape, strides, itemsize, True)
    else:
        with pytest.raises(ValueError, match="out has elements that share memory"):
            require_output("out", shape, strides, itemsize, True)


@given(data=st.data(), dtype=st.sampled_from(["u1", "f2", "f4", "f8"]), shape=SHAPES)
def test_every_part_of_an_array_in_any_order_passes(data, dtype, shape):
    view = any_order(data, np.zeros(shape, dtype))
    require_output("out", view.shape, view.strides, view.itemsize, True)
    with pytest.raises(ValueError, match="out is read-only"):
        require_output("out", view.shape, view.strides, view.itemsize, False)
