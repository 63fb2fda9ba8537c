"""Volumes on one grid, up to crop, flip and order of axes, are found and brought together."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twintrack.volumes.grid import common_box, copied_to_box, place_on_grid

ORIENTATIONS = [
    np.column_stack([axes, flips]).astype(float)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
angles = st.floats(-3, 3)


def grid_of(rng, angle):
    turn = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    turn[:2, :2] = [[c, -s], [s, c]]
    affine = turn @ np.diag([*rng.uniform(0.3, 5, 3), 1])
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return affine


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(range(48)), angles)
def test_any_crop_flip_and_order_comes_back(seed, orientation, angle):
    """Cropped, flipped and permuted by nibabel, every voxel returns to its place."""
    rng = np.random.default_rng(seed)
    grid = grid_of(rng, angle)
    whole = rng.integers(1, 1 << 30, rng.integers(2, 7, 3))
    image = nib.Nifti1Image(whole.astype(np.int32), grid)
    low = [int(rng.integers(0, n)) for n in whole.shape]
    high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, whole.shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    stored = image.slicer[box].as_reoriented(ORIENTATIONS[orientation])
    array = np.asarray(stored.dataobj)

    placement = place_on_grid(grid, stored.affine, array.shape)
    assert placement is not None
    assert placement.start == tuple(low)
    assert placement.stop == tuple(high)
    assert placement.box_in((0, 0, 0)) == box
    back = copied_to_box(array, placement, (0, 0, 0), whole.shape)
    expected = np.zeros_like(whole)
    expected[box] = whole[box]
    np.testing.assert_array_equal(back, expected)
    # And the other way round: the whole on the grid of the part.
    larger = place_on_grid(stored.affine, grid, whole.shape)
    first, shape = (0, 0, 0), array.shape
    np.testing.assert_array_equal(copied_to_box(whole, larger, first, shape), array)


def test_nothing_is_copied_that_is_in_its_place():
    array = np.zeros((4, 5, 6))
    placement = place_on_grid(np.eye(4), np.eye(4), array.shape)
    assert copied_to_box(array, placement, (0, 0, 0), array.shape) is array


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda a: a + np.diag([0.002, 0, 0, 0]), True),  # spacing, over 20 voxels: 0.04
        (lambda a: a + np.diag([0.003, 0, 0, 0]), False),
        (lambda a: a @ np.diag([1, 1, 2, 1]), False),
        (lambda a: np.zeros((4, 4)), False),
        (lambda a: a * np.nan, False),
    ],
)
def test_a_twentieth_of_a_voxel_is_the_same_voxel(change, same):
    grid = np.eye(4)
    assert (place_on_grid(grid, change(grid.copy()), (20, 20, 20)) is not None) is same


@pytest.mark.parametrize(("off", "same"), [(0.0, True), (0.049, True), (0.06, False), (0.5, False)])
def test_a_shift_between_voxels_is_another_grid(off, same):
    moved = np.eye(4)
    moved[:3, 3] = 3 + off
    found = place_on_grid(np.eye(4), moved, (2, 2, 2))
    assert (found is not None) is same
    if same:
        assert found.start == (3, 3, 3)


def test_box_that_holds_all():
    def at(start, shape):
        moved = np.eye(4)
        moved[:3, 3] = start
        return place_on_grid(np.eye(4), moved, shape)

    placements = [at((0, 0, 0), (4, 4, 4)), at((-2, 1, 3), (3, 3, 3))]
    assert common_box(placements) == ((-2, 0, 0), (6, 4, 6))
    # A box that holds nothing of a volume is 0.
    assert not copied_to_box(np.ones((4, 4, 4)), placements[0], (9, 9, 9), (2, 2, 2)).any()
