from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidc_database import PIXEL, SLICES, THICKNESS, Database, four_readers, only, rectangle

from twintrack.datasets import lidc
from twintrack.datasets.lidc.masks import _fill


def on_segment(p: tuple[int, int], a: tuple[int, int], b: tuple[int, int]) -> bool:
    cross = (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
    within = all(min(a[i], b[i]) <= p[i] <= max(a[i], b[i]) for i in (0, 1))
    return cross == 0 and within


def left_of_crossing(p: tuple[int, int], a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether a ray from p along +x crosses the edge (the reader's own rays run along y)."""
    if (a[1] > p[1]) == (b[1] > p[1]):
        return False
    if a[1] > b[1]:
        a, b = b, a
    return (p[0] - a[0]) * (b[1] - a[1]) < (b[0] - a[0]) * (p[1] - a[1])


points = st.tuples(st.integers(0, 11), st.integers(0, 11))


@settings(max_examples=300)
@given(st.lists(points, min_size=1, max_size=12))
def test_fill_is_the_even_odd_rule_for_any_polygon(polygon: list[tuple[int, int]]) -> None:
    inside, border = _fill(np.array(polygon))
    edges = list(pairwise([*polygon, polygon[0]]))
    for p in np.ndindex(inside.shape):
        on_edge = any(on_segment(p, a, b) for a, b in edges)
        crossings = sum(left_of_crossing(p, a, b) for a, b in edges)
        assert border[p] == on_edge, p
        assert inside[p] == (crossings % 2 == 1 and not on_edge), p


@given(st.lists(points, min_size=1, max_size=12), st.integers(0, 11), st.booleans())
def test_fill_depends_on_neither_start_nor_direction_nor_closing(
    polygon: list[tuple[int, int]], start: int, reverse: bool
) -> None:
    turned = np.roll(polygon, start, axis=0)[:: -1 if reverse else 1]
    closed = np.vstack([turned, turned[:1]])
    for one, other in zip(_fill(np.array(polygon)), _fill(closed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_filled_disc_has_the_area_of_the_disc() -> None:
    radius = 60
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.rint(radius * np.column_stack([np.cos(angle), np.sin(angle)])).astype(np.int64)
    inside, border = _fill(circle + radius)
    between = inside.sum() + border.sum() / 2
    assert between == pytest.approx(np.pi * radius**2, rel=2e-3)


def test_masks_hold_what_the_outlines_enclose(database: Database) -> None:
    scan = database.scan()
    for reader in range(4):
        database.annotation(
            scan,
            (rectangle(200, 100, 6 + reader, 4), -80, True),
            (rectangle(200, 100, 3, 2), -78, True),
        )
    case = lidc.rasterise(only(database))
    assert case.masks.dtype == np.uint8
    assert case.masks.sum(axis=(1, 2, 3)).tolist() == [4 * (6 + r) + 6 for r in range(4)]
    x, y, z = np.nonzero(case.masks[0])
    assert (x.min() + case.corner[0], x.max() + case.corner[0]) == (200, 205)
    assert (y.min() + case.corner[1], y.max() + case.corner[1]) == (100, 103)
    assert (z.min() + case.corner[2], z.max() + case.corner[2]) == (10, 11)


@pytest.mark.parametrize("hole_first", [False, True])
def test_hole_takes_its_outline_and_its_inside(database: Database, hole_first: bool) -> None:
    whole = (rectangle(200, 100, 12, 12), -80.0, True)
    hole = (rectangle(204, 104, 3, 3), -80.0, False)
    scan = database.scan()
    for _ in range(4):
        database.annotation(scan, *((hole, whole) if hole_first else (whole, hole)))
    mask = lidc.rasterise(only(database), margin=0).masks[0, :, :, 0]
    expected = np.zeros((14, 14), dtype=np.uint8)
    expected[1:13, 1:13] = 1
    expected[4:9, 4:9] = 0
    np.testing.assert_array_equal(mask, expected)


def test_outline_of_one_part_does_not_erase_another(database: Database) -> None:
    scan = database.scan()
    for _ in range(4):
        database.annotation(
            scan, (rectangle(200, 100, 8, 8), -80, True), (rectangle(204, 104, 8, 8), -80, True)
        )
    masks = lidc.rasterise(only(database)).masks
    assert masks.sum(axis=(1, 2, 3)).tolist() == [2 * 64 - 16] * 4


def test_single_pixel_outlines_enclose_nothing_but_bore_a_hole(database: Database) -> None:
    scan = database.scan()
    database.annotation(scan, ("202,102", -80, True))
    for _ in range(3):
        database.annotation(scan, (rectangle(200, 100, 5, 5), -80, True), ("202,102", -80, False))
    case = lidc.rasterise(only(database))
    assert case.masks.sum(axis=(1, 2, 3)).tolist() == [0, 24, 24, 24]


def test_box_keeps_its_margin_inside_the_scan(database: Database) -> None:
    scan = database.scan()
    four_readers(database, scan, 5, 506, -80)
    nodule = only(database)
    case = lidc.rasterise(nodule, margin=4.2)
    # Outlines run over x 4 to 12, y 505 to 511, slice 10; 4.2 mm are 9 pixels or 3 slices.
    assert case.corner == (0, 505 - 9, 7)
    assert case.masks.shape == (4, 12 + 9 + 1, 512 - (505 - 9), 7)
    assert lidc.rasterise(nodule, margin=1000).masks.shape == (4, 512, 512, 21)
    assert lidc.rasterise(nodule, margin=0).masks.shape == (4, 9, 7, 1)


def test_affine_leads_from_voxels_to_patient(database: Database) -> None:
    scan = database.scan()
    four_readers(database, scan, 200, 100, -80)
    case = lidc.rasterise(only(database))
    assert case.spacing == (PIXEL, PIXEL, THICKNESS)
    x, y, z = (np.nonzero(case.masks[0])[axis].min() for axis in range(3))
    np.testing.assert_allclose(case.affine @ [x, y, z, 1], [-200 * PIXEL, -100 * PIXEL, -80, 1])
    np.testing.assert_allclose(np.linalg.det(case.affine), PIXEL * PIXEL * THICKNESS)


def test_box_ends_where_slices_are_missing(database: Database) -> None:
    slices = np.concatenate([SLICES[:8], SLICES[9:14], SLICES[16:]])
    scan = database.scan(slices=slices)
    four_readers(database, scan, 200, 100, -80)
    case = lidc.rasterise(only(database), margin=50)
    assert case.masks.shape[3] == 5
    assert case.affine[2, 3] == SLICES[9]
    assert case.spacing[2] == THICKNESS


def test_nodule_across_missing_slices_is_refused(database: Database) -> None:
    scan = database.scan(slices=np.delete(SLICES, 11))
    for _ in range(4):
        database.annotation(
            scan, (rectangle(200, 100, 5, 5), -80, True), (rectangle(200, 100, 5, 5), -76, True)
        )
    with pytest.raises(ValueError, match=r"nodule-1': the slices at z = -80\.0 and -76\.0 mm"):
        lidc.rasterise(only(database))


@pytest.mark.parametrize("margin", [-1.0, np.nan, np.inf])
def test_impossible_margin_is_refused(database: Database, margin: float) -> None:
    four_readers(database, database.scan(), 200, 100, -80)
    with pytest.raises(ValueError, match="margin must be finite and at least 0 mm"):
        lidc.rasterise(only(database), margin=margin)
