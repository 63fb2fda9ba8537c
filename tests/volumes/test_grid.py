"""Volumes on one grid, up to crop, flip and order of axes, are found and brought together."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twintrack.volumes import Volume
from twintrack.volumes.grid import (
    Placement,
    common_box,
    copied_to_box,
    place_on_grid,
    place_together,
)
from twintrack.volumes.reading import slices_of
from twintrack.volumes.slabs import VolumeSlabs

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
        (lambda a: a + np.diag([0.0049, 0, 0, 0]), True),  # spacing, over 20 voxels: 2 x 0.049
        (lambda a: a + np.diag([0.0051, 0, 0, 0]), False),
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


def volume_at(affine, shape, name, header=None):
    return Volume(np.broadcast_to(0.0, shape), affine, Path(name), header)


def test_a_rounded_spacing_moves_the_far_end_twice_as_far_as_the_middle():
    """Of 24 voxels of 0.8 mm, 0.002 mm more: 0.06 voxels at the far end, 0.03 about the middle."""
    grid = np.diag([0.8, 0.8, 2.5, 1])
    rounded = grid + np.diag([0.002, 0, 0, 0])
    assert place_on_grid(grid, rounded, (24, 20, 12)) is not None
    assert place_on_grid(grid, rounded, (48, 20, 12)) is None
    # A crop of it as well, wherever it lies; and none of both together.
    rounded[0, 3] = 8 * 0.8 + 0.016
    assert place_on_grid(grid, rounded, (16, 20, 12)).start == (8, 0, 0)
    rounded[0, 3] = 8 * 0.8 + 0.03
    assert place_on_grid(grid, rounded, (24, 20, 12)) is None
    # Another spacing about the same middle.
    stretched = grid + np.diag([0.01, 0, 0, 0])
    stretched[0, 3] = -0.12
    assert place_on_grid(grid, stretched, (24, 20, 12)) is None


def test_places_that_are_not_stated_are_those_of_the_same_shape():
    grid = np.diag([1.0, 2, 3, 1])
    crop = grid.copy()
    crop[:3, 3] = grid[:3, :3] @ [1, 2, 0]
    score, whole = volume_at(crop, (3, 3, 3), "score.nii"), volume_at(grid, (5, 6, 3), "r1.nii")
    array = volume_at(None, (5, 6, 3), "r2.npy")
    header = nib.Nifti1Header()
    unset = volume_at(np.eye(4), (3, 3, 3), "r3.nii", header)  # both codes are 0: a guess
    found = place_together([score, whole, array, unset])
    assert [placement.start for placement in found] == [
        (0, 0, 0),
        (-1, -2, 0),
        (-1, -2, 0),
        (0, 0, 0),
    ]
    header["sform_code"] = 1
    with pytest.raises(ValueError, match=r"r3\.nii: lies on another grid than score\.nii"):
        place_together([score, unset])
    with pytest.raises(ValueError, match=r"r2\.npy: shape \(5, 6, 3\) differs from \(3, 3, 3\)"):
        place_together([score, array])
    elsewhere = volume_at(np.diag([-1.0, 2, 3, 1]), (3, 3, 3), "r4.nii")
    elsewhere.affine[:3, 3] = crop[:3, 3] + [2, 0, 0]
    header["sform_code"] = 0
    with pytest.raises(ValueError, match=r"r3\.nii: does not state .* in different places"):
        place_together([score, elsewhere, unset])
    nothing_stated = [volume_at(None, (2, 2, 2), name) for name in ("a.npy", "b.npy")]
    assert [placement.start for placement in place_together(nothing_stated)] == [(0, 0, 0)] * 2


def test_only_a_header_that_alone_can_be_wrong_may_be_ignored():
    grid = np.diag([-0.8, -0.8, 2.5, 1])
    reference = volume_at(grid, (4, 4, 4), "score.nii")
    moved = grid.copy()
    moved[0, 3] = 0.4
    flipped = grid @ np.diag([-1, 1, 1, 1.0])
    flipped[0, 3] = -1.5
    for affine, shape, proposed in (
        (moved, (4, 4, 4), True),
        (flipped, (4, 4, 4), False),
        (moved, (4, 4, 3), False),
    ):
        with pytest.raises(ValueError, match=r"r1\.nii: lies on another grid") as caught:
            place_together([reference, volume_at(affine, shape, "r1.nii")])
        assert ("--ignore-header" in str(caught.value)) is proposed
        assert "0.8 x 0.8 x 2.5 mm" in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_slabs_on_a_grid_are_those_of_the_whole_on_it(data):
    """Whatever box of the grid, turn and thickness of slabs."""
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
    array = np.random.default_rng(0).integers(1, 99, shape).astype("u1")
    turn = ORIENTATIONS[data.draw(st.sampled_from(range(48)))]
    start = data.draw(st.tuples(*[st.integers(-3, 5)] * 3))
    turned = nib.orientations.apply_orientation(array, turn)
    placement = Placement(turn, start, turned.shape)
    box = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
    first = data.draw(st.tuples(*[st.integers(-2, 4)] * 3))
    own = Volume(array, np.eye(4))
    place = Volume(np.zeros(box), np.eye(4))
    placed = VolumeSlabs(own, slices_of(array)).placed(placement, first, place)
    expected = copied_to_box(array, placement, first, box)
    np.testing.assert_array_equal(placed.whole().array, expected)
    planes = data.draw(st.integers(1, 9))
    for _ in range(2):
        slabs = list(placed.slabs(planes))
        np.testing.assert_array_equal(np.concatenate(slabs, axis=2), expected)
        assert [slab.shape[2] for slab in slabs[:-1]] == [planes] * (len(slabs) - 1)
    for voxel in itertools.islice(np.argwhere(expected), 5):
        at = placement.own_voxel([int(i) + f for i, f in zip(voxel, first, strict=True)])
        assert array[at] == expected[tuple(voxel)]


def test_headers_rounded_to_a_thousandth_are_one_grid_however_long_the_axes():
    grid = np.diag([0.703, 0.703, 2.5, 1])
    reference = volume_at(grid, (512, 512, 100), "score.nii")
    rounded = volume_at(grid - np.diag([0.0009, 0.0009, 0, 0]), (512, 512, 100), "r1.nii")
    assert place_together([reference, rounded])[1].start == (0, 0, 0)
    with pytest.raises(ValueError, match="another grid"):
        place_together([reference, volume_at(rounded.affine, (512, 512, 99), "r2.nii")])
