"""``twintrack prepare curvas``: a manifest of phantom cohorts with faults."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from folders import content, touch
from typer.testing import CliRunner

from twintrack.cli import command_app
from twintrack.cohort import read_manifest
from twintrack.datasets.phantom import PhantomSpec, write_cohort
from twintrack.nnunet.curvas import prepare_curvas
from twintrack.volumes import read_volume, write_volume

SPEC = PhantomSpec(shape=(44, 40, 36), spacing=(3.0, 3.0, 3.0), raters=3, orientation="LPS")


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Five cases, of which the last four have a fault each or more."""
    write_cohort(tmp_path / "cohort", SPEC, 5)
    cases = tmp_path / "cohort" / "cases"

    def rewrite(case: int, rater: int, **changes: Any) -> None:
        file = cases / f"PHANTOM_{case:05d}" / f"annotation_{rater}.nii.gz"
        volume = read_volume(file)
        affine = np.array(changes.get("affine", volume.affine))
        write_volume(file, changes.get("array", volume.array), affine)

    shape = SPEC.shape
    rewrite(1, 2, array=np.zeros(shape, np.int16))  # empty, and of another type
    shifted = np.diag([0.7, 0.7, 3.0, 1.0])
    rewrite(2, 3, affine=shifted)
    rewrite(3, 1, array=np.full(shape, 2, np.uint8))
    (cases / "PHANTOM_00004" / "annotation_3.nii.gz").unlink()
    (cases / "PHANTOM_00004" / "annotation_2.nii.gz").write_bytes(b"")
    (cases / "PHANTOM_00003" / "annotation_staple.nii.gz").write_bytes(b"no rater")
    return cases


def test_curvas(cohort: Path, tmp_path: Path) -> None:
    made = prepare_curvas(cohort, tmp_path / "manifest.csv", tmp_path / "scores")
    assert made.cases == tuple(f"PHANTOM_{k:05d}" for k in range(3))
    found = [(fault.case[-1], fault.file, fault.kind, fault.used) for fault in made.faults]
    assert found == [
        ("1", "annotation_2.nii.gz", "empty", True),
        ("1", "PHANTOM_00001", "dtype", True),
        ("2", "annotation_3.nii.gz", "header", True),
        ("3", "annotation_1.nii.gz", "labels", False),
        ("4", "annotation_2.nii.gz", "unreadable", False),
        ("4", "annotation_3.nii.gz", "missing", False),
    ]
    messages = {fault.kind: fault.message for fault in made.faults}
    assert "int16: rater 2" in messages["dtype"]
    assert "spacing (0.7" in messages["header"]
    with (tmp_path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert rows[0]["score"] == "scores/PHANTOM_00000.nii.gz"
    assert (tmp_path / rows[0]["vessels"]).is_file()
    with (tmp_path / "manifest_faults.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_command(cohort: Path, tmp_path: Path) -> None:
    app = command_app("prepare")
    given = ["curvas", "-i", str(cohort), "-o", str(tmp_path / "m.csv"), "-p", str(tmp_path / "s")]
    result = CliRunner().invoke(app, [*given, "--rois"])
    assert result.exit_code == 1  # two cases are left out
    assert "annotation_3.nii.gz: geometry differs" in result.stderr
    with (tmp_path / "m.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["roi"] == "s/rois/PHANTOM_00000.nii.gz"
    CliRunner().invoke(app, [*given, "--rois", "--file_ending", ".mha"])
    with (tmp_path / "m.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["score"], row["roi"]) == ("s/PHANTOM_00000.mha", "s/rois/PHANTOM_00000.mha")
    result = CliRunner().invoke(app, ["panorama", "-i", str(cohort), "-o", str(tmp_path)])
    assert isinstance(result.exception, ValueError)
    assert "-l is missing" in str(result.exception)
    result = CliRunner().invoke(app, ["curvas", "-i", str(tmp_path), *given[3:]])
    assert isinstance(result.exception, FileNotFoundError)


def test_curvas_lists_images_that_cannot_be_predicted(cohort: Path, tmp_path: Path) -> None:
    def image(case: int, change: Any) -> None:
        file = cohort / f"PHANTOM_{case:05d}" / "image.nii.gz"
        nib.save(change(read_volume(file).array), file)

    header = nib.Nifti1Header()
    header.set_sform(np.diag([3.0, 3.0, 0.0, 1.0]), code=1)
    image(1, lambda array: nib.Nifti1Image(array, None, header))
    image(2, lambda array: nib.Nifti1Image(np.full(array.shape, np.nan, np.float32), np.eye(4)))
    made = prepare_curvas(cohort, tmp_path / "manifest.csv", tmp_path / "scores")
    assert made.cases == ("PHANTOM_00000",)
    found = {f.case[-1]: f.message for f in made.faults if f.file == "image.nii.gz"}
    assert "no image can have" in found["1"]
    assert "is nan" in found["2"]


def test_curvas_takes_no_file_by_chance(cohort: Path, tmp_path: Path) -> None:
    first = cohort / "PHANTOM_00000"
    given = (cohort, tmp_path / "manifest.csv", tmp_path / "scores")
    # What other systems leave behind, and a rater who is not counted.
    (first / "._vessels.nii.gz").write_bytes(b"x")
    (cohort / ".trash").mkdir()
    for file in ("annotation_1.nii.gz", "annotation_0.nii.gz"):
        (cohort / ".trash" / file).write_bytes(b"x")
    (first / "annotation_0.nii.gz").write_bytes(b"x")
    made = prepare_curvas(*given, raters=2)
    assert made.cases[0] == "PHANTOM_00000"
    assert [f.message for f in made.faults if f.file == "annotation_0.nii.gz"] == [
        "is left out; raters are numbered from 1"
    ]
    with given[1].open(newline="") as file:
        assert next(csv.DictReader(file))["rater_1"].endswith("annotation_1.nii.gz")
    # Two of what there is one of.
    (first / "arteries_vessels.nii.gz").write_bytes((first / "vessels.nii.gz").read_bytes())
    made = prepare_curvas(*given)
    assert made.cases == ("PHANTOM_00001", "PHANTOM_00002")
    assert "several files of vessels" in made.faults[1].message
    (first / "annotation_01.nii").write_bytes(b"x")
    with pytest.raises(ValueError, match="same rater"):
        prepare_curvas(*given)
    (first / "annotation_01.nii").unlink()
    with pytest.raises(ValueError, match=r"ending is '\.png'; it is one of \.nii\.gz"):
        prepare_curvas(*given, ending=".png")
    with pytest.raises(ValueError, match="raters is 0"):
        prepare_curvas(*given, raters=0)
    with pytest.raises(FileNotFoundError, match="manifest"):
        prepare_curvas(cohort, tmp_path / "nowhere" / "manifest.csv", tmp_path)
    first.rename(cohort / "PHANTOM_00000 ")
    with pytest.raises(ValueError, match="'PHANTOM_00000 ' cannot be used"):
        prepare_curvas(*given)


def test_only_what_has_changed_is_looked_at_again(cohort: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    first = prepare_curvas(cohort, manifest, tmp_path / "scores")
    made = content(tmp_path, "manifest*.csv")
    again = prepare_curvas(cohort, manifest, tmp_path / "scores")
    assert (first.kept, again.kept) == (0, 3)
    assert again.faults == first.faults
    assert content(tmp_path, "manifest*.csv") == made
    # A case is mended, and another one gets a file that it must not have.
    (cohort / "PHANTOM_00003" / "annotation_1.nii.gz").write_bytes(
        (cohort / "PHANTOM_00003" / "annotation_2.nii.gz").read_bytes()
    )
    (cohort / "PHANTOM_00000" / "annotation_0.nii.gz").touch()
    third = prepare_curvas(cohort, manifest, tmp_path / "scores")
    assert third.kept == 2
    assert third.cases == (*first.cases, "PHANTOM_00003")
    assert "is left out; raters are numbered from 1" in third.faults[0].message


def test_parts_leave_the_manifest_to_the_last(cohort: Path, tmp_path: Path) -> None:
    prepare_curvas(cohort, tmp_path / "manifest.csv", tmp_path / "scores")
    parts = tmp_path / "parts"
    parts.mkdir()
    app = command_app("prepare")
    given = ["curvas", "-i", str(cohort), "-o", str(parts / "manifest.csv"), "-num_parts", "2"]
    given += ["-p", str(parts / "scores")]
    plan = CliRunner().invoke(app, [*given, "--dry-run"])
    assert "3 of 3 cases" in plan.stdout
    assert not list(parts.iterdir())
    told = CliRunner().invoke(app, [*given, "-part_id", "1"])
    assert "left to other parts  3" in told.stdout
    assert not (parts / "manifest.csv").exists()
    CliRunner().invoke(app, given)
    touch(
        tmp_path, *(f"{at}scores/PHANTOM_0000{k}.nii.gz" for k in range(3) for at in ("parts/", ""))
    )
    found, expected = (read_manifest(folder / "manifest.csv") for folder in (parts, tmp_path))
    assert [(case.name, case.raters) for case in found] == [
        (case.name, case.raters) for case in expected
    ]
    faults = "manifest_faults.csv"
    assert (parts / faults).read_bytes() == (tmp_path / faults).read_bytes()
