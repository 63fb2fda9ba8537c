"""The region of interest from coarse segmentations whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twintrack.nnunet.roi import Roi, RoiRule, find_roi, narrowed, near_organ, whole_volume

SHAPE = (40, 60, 80)
SPACING = (2.0, 1.0, 0.5)
STEPS = (2.0, 4.0, 8.0)  # a coarse voxel of 4 mm a side
COARSE = (20, 15, 10)
NO_MARGIN = (0.0, 0.0, 0.0)


def region(organ: np.ndarray, rule: RoiRule, margins=None, starts=(0, 0, 0)):
    return find_roi(
        organ, starts, STEPS, SHAPE, SPACING, rule.margins if margins is None else margins, rule
    )


def blob(*boxes: tuple[tuple[int, int], ...]) -> np.ndarray:
    organ = np.zeros(COARSE, bool)
    for box in boxes:
        organ[tuple(slice(*ends) for ends in box)] = True
    return organ


MIDDLE = ((8, 12), (6, 9), (4, 6))


def test_box_margin_and_clamping() -> None:
    rule = RoiRule(margins=NO_MARGIN, minimum_volume=0)
    exact = region(blob(MIDDLE), rule)
    assert exact is not None
    assert exact.box == (slice(16, 24), slice(24, 36), slice(32, 48))
    assert exact.shape == (8, 12, 16)
    assert exact.inside is None
    # 3 mm: 1.5 voxels of 2 mm, which touches 2; 3 of 1 mm; 6 of 0.5 mm.
    grown = region(blob(MIDDLE), rule, margins=(3, 3, 3))
    assert grown is not None
    assert grown.box == (slice(14, 26), slice(21, 39), slice(26, 54))
    everything = region(blob(MIDDLE), rule, margins=(1000, 1000, 1000))
    assert everything is not None
    assert everything.box == whole_volume(SHAPE).box
    corner = region(blob(((0, 1), (14, 15), (9, 10))), rule, margins=(4, 4, 4))
    assert corner is not None
    assert corner.box == (slice(0, 4), slice(52, 60), slice(64, 80))


@pytest.mark.parametrize(
    ("margin", "box"),
    # Of voxels of 2, 1 and 0.5 mm. The organ's own box is 16 to 24, 24 to 36 and 32 to 48.
    [
        (0.1, ((15, 25), (23, 37), (31, 49))),  # a voxel of which a tenth belongs to it counts
        (1.9, ((15, 25), (22, 38), (28, 52))),
        (2.0, ((15, 25), (22, 38), (28, 52))),
        (2.1, ((14, 26), (21, 39), (27, 53))),
        (0.02, ((15, 25), (23, 37), (31, 49))),
        # Rounding noise is no part of a voxel.
        (1e-8, ((16, 24), (24, 36), (32, 48))),
        (2 + 1e-8, ((15, 25), (22, 38), (28, 52))),
    ],
)
def test_a_voxel_counts_if_any_of_it_does(margin, box) -> None:
    rule = RoiRule(minimum_volume=0)
    found = region(blob(MIDDLE), rule, margins=(margin,) * 3)
    assert found is not None
    assert tuple((part.start, part.stop) for part in found.box) == box
    # The same of a grid that begins within a voxel, by a quarter of its side.
    shifted = region(blob(MIDDLE), rule, margins=(0, 0, 0), starts=(0.25, 0.25, -0.25))
    assert shifted is not None
    assert shifted.box == (slice(16, 25), slice(24, 37), slice(31, 48))


def test_an_organ_beyond_the_image_leaves_a_voxel_of_it() -> None:
    # A coarse grid may reach beyond the image: its voxels are larger.
    rule = RoiRule(margins=NO_MARGIN, minimum_volume=0)
    beyond = region(blob(((19, 20), (6, 9), (4, 6))), rule, starts=(2, 0, 0))
    before = region(blob(((0, 1), (6, 9), (4, 6))), rule, starts=(-2, 0, 0))
    assert beyond is not None
    assert before is not None
    assert beyond.box == (slice(39, 40), slice(24, 36), slice(32, 48))
    assert before.box == (slice(0, 1), slice(24, 36), slice(32, 48))


def test_what_is_as_large_as_the_least_volume_is_an_organ() -> None:
    """Coarse voxels of 4 mm a side are 0.064 ml each."""
    organ = blob(((8, 10), (6, 8), (4, 8)))  # 16 of them: 1.024 ml

    def found(minimum_volume: float) -> bool:
        return region(organ, RoiRule(margins=NO_MARGIN, minimum_volume=minimum_volume)) is not None

    assert found(16 * 0.064)
    assert not found(16 * 0.0641)
    # By default 1 ml: of specks there are many, and a pancreas has 40 at least.
    assert region(organ, RoiRule(margins=NO_MARGIN)) is not None
    organ[9, 7, 7] = False  # 0.96 ml
    assert region(organ, RoiRule(margins=NO_MARGIN)) is None


def test_parts_that_touch_at_a_corner_are_one() -> None:
    # Each is too small by itself: an organ that bends leaves such stairs on a coarse grid.
    stairs = blob(*(((k, k + 1), (k, k + 1), (k, k + 1)) for k in range(2, 10)))
    found = region(stairs, RoiRule(margins=NO_MARGIN, minimum_volume=8 * 0.064 - 1e-9))
    assert found is not None
    assert found.box == (slice(4, 20), slice(8, 40), slice(16, 80))


def test_largest_all_and_what_is_too_small() -> None:
    speck = ((1, 2), (1, 2), (1, 2))  # 4 mm cubed: 0.064 ml
    organ = blob(MIDDLE, speck)
    everything = region(organ, RoiRule(margins=NO_MARGIN, minimum_volume=0))
    largest = region(organ, RoiRule(margins=NO_MARGIN, minimum_volume=0, components="largest"))
    plausible = region(organ, RoiRule(margins=NO_MARGIN, minimum_volume=0.065))
    assert everything is not None
    assert largest is not None
    assert plausible is not None
    assert everything.box == (slice(2, 24), slice(4, 36), slice(8, 48))
    assert largest.box == plausible.box == (slice(16, 24), slice(24, 36), slice(32, 48))
    assert region(organ, RoiRule(minimum_volume=5)) is None
    assert region(blob(), RoiRule(minimum_volume=0)) is None


def test_dilation_is_a_distance_in_mm_beyond_the_coarse_grid_too() -> None:
    # The organ fills the coarse grid, which covers only a part of the image.
    organ = np.ones((2, 2, 2), bool)
    rule = RoiRule(margins=(8, 8, 8), minimum_volume=0, dilation=4.0)
    found = region(organ, rule, starts=(10, 20, 40))
    assert found is not None
    assert found.box == (slice(6, 18), slice(12, 36), slice(24, 72))
    assert found.inside is not None
    assert found.inside.shape == found.shape
    assert found.inside[4:8, 8:16, 16:32].all()  # the organ itself
    # One coarse voxel (4 mm) beyond each face belongs to it, two do not; nor do corners.
    assert found.inside[2:10, 10, 20].all()
    assert not found.inside[:2].any()
    assert not found.inside[10:].any()
    assert not found.inside[3, 7, 15]


def test_a_part_of_a_region_is_counted_from_its_own_box() -> None:
    rng = np.random.default_rng(0)
    inside = rng.random((8, 12, 16)) < 0.5
    whole = Roi((slice(16, 24), slice(24, 36), slice(32, 48)), inside)
    part = narrowed(whole, ((1, 7), (0, 5), (3, 16)))
    assert part.box == (slice(17, 23), slice(24, 29), slice(35, 48))
    np.testing.assert_array_equal(part.inside, inside[1:7, :5, 3:])
    assert not narrowed(Roi(whole.box, found=False), ((0, 8), (0, 12), (0, 16))).found


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_an_organ_grows_by_a_cube_to_both_sides(reach) -> None:
    organ = np.zeros((9, 10, 11), bool)
    organ[4, 5, 6] = True
    box = (slice(9), slice(10), slice(11))
    near = near_organ(Roi(box), organ, reach).inside
    expected = np.zeros_like(organ)
    expected[tuple(slice(at - reach, at + reach + 1) for at in (4, 5, 6))] = True
    np.testing.assert_array_equal(near, expected)
    half = np.arange(9)[:, None, None] < 5
    both = near_organ(Roi(box, np.broadcast_to(half, organ.shape)), organ, reach).inside
    np.testing.assert_array_equal(both, expected & half)


@given(
    st.tuples(*[st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in COARSE]),
    st.tuples(*[st.floats(0, 30)] * 3),
)
def test_every_organ_voxel_is_in_the_box(ends, margins) -> None:
    organ = blob(tuple((start, min(start + size, 99)) for start, size in ends))
    found = region(organ, RoiRule(minimum_volume=0), margins=margins)
    assert found is not None
    for part, (start, size), step, length, n in zip(
        found.box, ends, STEPS, SHAPE, COARSE, strict=True
    ):
        assert 0 <= part.start <= start * step
        assert min(start + size, n) * step <= part.stop <= length


@pytest.mark.parametrize(
    "wrong",
    [
        {"margins": (1, 2)},
        {"margins": (1, 2, -3)},
        {"margins": (1, 2, float("nan"))},
        {"components": "some"},
        {"missing": "ignore"},
        {"minimum_volume": -1},
        {"dilation": -1.0},
    ],
)
def test_rules_out_of_range(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RoiRule(**wrong)
