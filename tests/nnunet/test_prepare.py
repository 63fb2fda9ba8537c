"""``twintrack prepare``: nnU-Net data sets and a manifest from phantom cohorts, with faults."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from folders import content
from typer.testing import CliRunner

pytest.importorskip("SimpleITK")

from twintrack.cli import command_app
from twintrack.datasets.panorama import ANATOMY_LABELS
from twintrack.datasets.phantom import PhantomSpec, write_cohort, write_panorama
from twintrack.nnunet import panorama
from twintrack.nnunet.curvas import prepare_curvas
from twintrack.nnunet.images import resample_image, resample_labels
from twintrack.nnunet.panorama import PANCREAS, prepare_panorama
from twintrack.volumes import read_volume, write_volume

pytestmark = pytest.mark.nnunet

SPEC = PhantomSpec(shape=(44, 40, 36), spacing=(3.0, 3.0, 3.0), raters=3, orientation="LPS")


def test_panorama(tmp_path: Path) -> None:
    write_panorama(tmp_path, SPEC, 5)
    images, labels = tmp_path / "images", tmp_path / "labels"
    names = [f"PHANTOM_{k:05d}" for k in range(5)]
    (labels / f"{names[1]}.nii.gz").unlink()
    (images / f"{names[2]}_0000.nii.gz").write_bytes(b"\x1f\x8b broken")
    whole = read_volume(labels / f"{names[3]}.nii.gz")
    assert whole.affine is not None
    write_volume(labels / f"{names[3]}.nii.gz", whole.array + np.uint8(7), whole)
    margins = (20.0, 15.0, 10.0)
    made = prepare_panorama(images, [labels], tmp_path / "raw", margins=margins)
    assert made.cases == (names[0], names[4])
    assert [(fault.case, fault.kind) for fault in made.faults] == [
        (names[1], "missing"),
        (names[2], "unreadable"),
        (names[3], "labels"),
    ]
    coarse, fine = (tmp_path / "raw" / name for name in ("Dataset103_Pancreas", "Dataset104_PDAC"))
    assert made.outputs == (coarse, fine)
    for folder, wanted in ((coarse, {"background": 0, "pancreas": 1}), (fine, ANATOMY_LABELS)):
        dataset = json.loads((folder / "dataset.json").read_text())
        assert dataset["labels"] == wanted
        assert dataset["numTraining"] == 2
        assert len(list((folder / "imagesTr").iterdir())) == 2

    image = read_volume(images / f"{names[0]}_0000.nii.gz")
    label = read_volume(labels / f"{names[0]}.nii.gz")
    small = read_volume(coarse / "imagesTr" / f"{names[0]}_0000.nii.gz")
    assert small.array.shape == (29, 27, 12)
    np.testing.assert_allclose(small.spacing, (4.5, 4.5, 9))
    found = read_volume(coarse / "labelsTr" / f"{names[0]}.nii.gz").array
    organ = np.isin(label.array, PANCREAS)
    volume = organ.sum() * 27
    assert abs(found.sum() * 4.5 * 4.5 * 9 - volume) < 0.25 * volume
    # Voxel (0, 0, 0) is shared, and every 3rd voxel in steps of 9 mm.
    assert image.affine is not None
    assert small.affine is not None
    np.testing.assert_allclose(small.affine[:3, 3], image.affine[:3, 3], atol=1e-5)
    assert np.abs(small.array[::2, ::2] - image.array[::3, ::3, ::3][:15, :14, :12]).max() <= 1

    crop = read_volume(fine / "imagesTr" / f"{names[0]}_0000.nii.gz")
    crop_labels = read_volume(fine / "labelsTr" / f"{names[0]}.nii.gz")
    assert crop.affine is not None
    start = np.rint(np.linalg.solve(image.affine, crop.affine[:, 3])[:3]).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(start, crop.array.shape, strict=True))
    np.testing.assert_array_equal(image.array[box], crop.array)
    np.testing.assert_array_equal(label.array[box], crop_labels.array)
    assert organ[box].sum() == organ.sum()
    assert crop.array.size < image.array.size


def test_panorama_comes_in_several_folders_and_may_be_prepared_again(tmp_path: Path) -> None:
    write_panorama(tmp_path, SPEC, 3)
    images, labels, raw = tmp_path / "images", tmp_path / "labels", tmp_path / "raw"
    names = [f"PHANTOM_{k:05d}" for k in range(3)]
    (tmp_path / "batch_2").mkdir()
    (images / f"{names[2]}_0000.nii.gz").rename(tmp_path / "batch_2" / f"{names[2]}_0000.nii.gz")
    targets = (raw / "Dataset103_Pancreas", raw / "Dataset104_PDAC")

    def of_data_sets(part: str) -> set[tuple[str, ...]]:
        return {
            tuple(sorted(file.name[:13] for file in (target / part).iterdir()))
            for target in targets
        }

    def counts() -> list[int]:  # nnU-Net fails where they are not those of the files
        texts = [(target / "dataset.json").read_text() for target in targets]
        return [json.loads(text)["numTraining"] for text in texts]

    assert prepare_panorama(images, [labels], raw).cases == (names[0], names[1])
    made = prepare_panorama(tmp_path / "batch_2", [labels], raw)
    assert made.cases == (names[2],)
    assert of_data_sets("imagesTr") == of_data_sets("labelsTr") == {tuple(names)}
    assert counts() == [3, 3]
    # Cases that turn out to be of no use go.
    file = images / f"{names[0]}_0000.nii.gz"
    image = read_volume(file)
    array = image.array.astype(np.float32)
    array[3, 4, 5] = np.nan
    write_volume(file, array, image)
    file = images / f"{names[1]}_0000.nii.gz"
    flat = np.diag([3.0, 3.0, 0.0, 1.0])
    header = nib.Nifti1Header()
    header.set_sform(flat, code=1)
    nib.save(nib.Nifti1Image(read_volume(file).array, None, header), file)
    with pytest.raises(ValueError, match=r"voxel \(3, 4, 5\) is nan"):
        prepare_panorama(images, [labels], raw)
    assert of_data_sets("imagesTr") == of_data_sets("labelsTr") == {(names[2],)}
    assert counts() == [1, 1]


@pytest.mark.parametrize("label", PANCREAS)
def test_a_pancreas_of_any_size_is_prepared(tmp_path: Path, label: int) -> None:
    """What is too small to be believed of a network is true of an annotation."""
    write_panorama(tmp_path, SPEC, 1)
    name = "PHANTOM_00000"
    file = tmp_path / "labels" / f"{name}.nii.gz"
    whole = read_volume(file)
    labels = np.zeros_like(whole.array)
    labels[18:24, 18:24, 18:21] = max(ANATOMY_LABELS.values())  # no part of it
    labels[20, 19, 18] = label  # 0.027 ml
    write_volume(file, labels, whole)
    # The manual labels come first; the automatic ones are of cases that have none.
    (tmp_path / "automatic").mkdir()
    write_volume(tmp_path / "automatic" / file.name, whole.array, whole)
    given = [tmp_path / "labels", tmp_path / "automatic"]
    made = prepare_panorama(tmp_path / "images", given, tmp_path / "raw", margins=(6.0, 3.0, 0.0))
    assert made.cases == (name,)
    crop = read_volume(tmp_path / "raw" / "Dataset104_PDAC" / "labelsTr" / file.name).array
    np.testing.assert_array_equal(crop, labels[18:23, 18:21, 18:19])


def test_splines_that_overshoot_do_not_wrap(tmp_path: Path) -> None:
    write_panorama(tmp_path, SPEC, 1)
    file = tmp_path / "images" / "PHANTOM_00000_0000.nii.gz"
    image = read_volume(file)
    array = np.full_like(image.array, -32768)
    array[10:30] = 32767
    write_volume(file, array, image)
    prepare_panorama(tmp_path / "images", [tmp_path / "labels"], tmp_path / "raw")
    made = tmp_path / "raw" / "Dataset103_Pancreas" / "imagesTr" / file.name
    small = read_volume(made).array[8:18].astype(np.int32)  # within array[10:30]
    assert small.min() > 30000


def test_resampling_keeps_places() -> None:
    # A linear ramp is reproduced by B-splines away from the ends, at the right places.
    ramp = np.broadcast_to(np.arange(60.0)[:, None, None], (60, 8, 8)).astype(np.float32)
    small = resample_image(ramp, (1, 1, 1), (2.5, 1, 1))
    assert small.shape == (24, 8, 8)
    np.testing.assert_allclose(small[4:-4, 4, 4], 2.5 * np.arange(24)[4:-4], atol=1e-3)
    labels = resample_labels(np.arange(60)[:, None, None], (1, 1, 1), (2.5, 1, 1))
    assert np.abs(labels[:, 0, 0] - 2.5 * np.arange(24)).max() <= 0.5
    assert resample_labels(np.ones((1, 1, 1)), (1, 1, 1), (9, 9, 9)).shape == (1, 1, 1)


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
    result = CliRunner().invoke(app, [*given, "--roi"])
    assert result.exit_code == 1  # two cases are left out
    assert "annotation_3.nii.gz: geometry differs" in result.stderr
    with (tmp_path / "m.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["roi"] == "s/rois/PHANTOM_00000.nii.gz"
    CliRunner().invoke(app, [*given, "--roi", "--file_ending", ".mha"])
    with (tmp_path / "m.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["score"], row["roi"]) == ("s/PHANTOM_00000.mha", "s/rois/PHANTOM_00000.mha")
    result = CliRunner().invoke(app, ["panorama", "-i", str(cohort), "-o", str(tmp_path)])
    assert isinstance(result.exception, ValueError)
    assert "-l is missing" in str(result.exception)
    result = CliRunner().invoke(app, ["curvas", "-i", str(tmp_path), *given[3:]])
    assert isinstance(result.exception, FileNotFoundError)


def test_panorama_refuses_what_nnunet_or_a_rerun_would_take_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_panorama(tmp_path, SPEC, 1)
    images, labels, raw = tmp_path / "images", tmp_path / "labels", tmp_path / "raw"
    name = "PHANTOM_00000"
    for wrong in ((0.0, 4.0, 4.0), (4.0, float("nan"), 4.0), (4.0, 4.0, float("inf"))):
        with pytest.raises(ValueError, match="coarse_spacing"):
            prepare_panorama(images, [labels], raw, coarse_spacing=wrong)
    with pytest.raises(ValueError, match="by number"):
        prepare_panorama(images, [labels], raw, coarse=104)
    (raw / "Dataset104_Other").mkdir(parents=True)
    with pytest.raises(ValueError, match="Dataset104_Other: has the number"):
        prepare_panorama(images, [labels], raw)
    (raw / "Dataset104_Other").rmdir()
    archive = raw / "Dataset104_PDAC.zip"  # nnU-Net looks at folders only
    archive.touch()
    for folder, twin in ((images, f"{name}.nii.gz"), (labels, f"{name}.mha")):
        (folder / twin).write_bytes(b"")
        with pytest.raises(ValueError, match="is the same case as"):
            prepare_panorama(images, [labels], raw)
        (folder / twin).unlink()
    assert list(raw.iterdir()) == [archive]
    # Interrupted while it is made again, with other margins: labels never lie beside another crop.
    prepare_panorama(images, [labels], raw)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("twintrack.nnunet.panorama.find_roi", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_panorama(images, [labels], raw, margins=(9.0, 9.0, 9.0))
    assert not list((raw / "Dataset104_PDAC" / "labelsTr").iterdir())


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


def test_panorama_makes_again_only_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_panorama(tmp_path, SPEC, 3)
    images, labels, raw = tmp_path / "images", tmp_path / "labels", tmp_path / "raw"
    names = [f"PHANTOM_{k:05d}" for k in range(3)]
    made: list[str] = []

    def told(case: str, *arguments: Any) -> Any:
        made.append(case)
        return prepare_case(case, *arguments)

    prepare_case = panorama._prepare_case
    monkeypatch.setattr(panorama, "_prepare_case", told)

    def run(**options: Any) -> list[str]:
        made.clear()
        result = prepare_panorama(images, [labels], raw, **options)
        assert result.cases == tuple(names)
        assert result.kept == 3 - len(made)
        return list(made)

    assert run() == names
    before = content(raw)
    assert run() == []
    # Copied or touched, an input is the same; other voxels are not.
    os.utime(images / f"{names[0]}_0000.nii.gz", (1, 1))
    assert run() == []
    volume = read_volume(labels / f"{names[1]}.nii.gz")
    write_volume(
        labels / f"{names[1]}.nii.gz", np.where(volume.array == 5, 4, volume.array), volume
    )
    assert run() == [names[1]]
    # A file that is lost, another crop, and a record that is damaged.
    (raw / "Dataset103_Pancreas" / "labelsTr" / f"{names[2]}.nii.gz").unlink()
    assert run() == [names[2]]
    assert run(margins=(30.0, 30.0, 30.0)) == names
    assert run(coarse_spacing=(6.0, 6.0, 9.0)) == names
    (raw / "Dataset104_PDAC" / "prepared" / f"{names[0]}.json").write_text("{")
    assert run() == names
    assert run() == []
    write_volume(labels / f"{names[1]}.nii.gz", volume.array, volume)
    assert run() == [names[1]]
    again = content(raw)
    assert {k: v for k, v in again.items() if "prepared" not in k} == {
        k: v for k, v in before.items() if "prepared" not in k
    }


def test_panorama_of_several_cases_at_a_time_is_the_same(tmp_path: Path) -> None:
    write_panorama(tmp_path, SPEC, 3)
    images, labels = tmp_path / "images", tmp_path / "labels"
    (images / "PHANTOM_00001_0000.nii.gz").write_bytes(b"\x1f\x8b broken")
    told: list[tuple[str, int, int]] = []
    one, two = (
        prepare_panorama(
            images,
            [labels],
            tmp_path / f"raw_{at_a_time}",
            at_a_time=at_a_time,
            progress=lambda *arguments: told.append(arguments),
        )
        for at_a_time in (1, 2)
    )
    assert one.cases == two.cases == ("PHANTOM_00000", "PHANTOM_00002")
    assert one.faults == two.faults
    assert told[:3] == told[3:]
    volumes = [content(tmp_path / f"raw_{at_a_time}", "*/*Tr/*") for at_a_time in (1, 2)]
    assert volumes[0] == volumes[1]
    assert len(volumes[0]) == 8
    with pytest.raises(ValueError, match="at_a_time is 0"):
        prepare_panorama(images, [labels], tmp_path, at_a_time=0)
