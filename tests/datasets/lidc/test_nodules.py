from __future__ import annotations

import numpy as np
import pytest
from lidc_database import THICKNESS, Database, four_readers, only, rectangle

from twintrack.datasets import lidc


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


@pytest.mark.parametrize("options", [{"readers": 0}, {"readers": 5}, {"limit": -1}])
def test_impossible_selection_is_refused(database: Database, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        lidc.read_nodules(database.path, **options)


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
