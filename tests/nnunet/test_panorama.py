"""``twintrack prepare panorama``: nnU-Net data sets of phantom cohorts, with faults."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from folders import content

pytest.importorskip("SimpleITK")

from twintrack.datasets.panorama import ANATOMY_LABELS
from twintrack.datasets.phantom import PhantomSpec, write_panorama
from twintrack.nnunet.images import resample_image, resample_labels
from twintrack.nnunet.panorama import PANCREAS, PanoramaJob, prepare_panorama
from twintrack.nnunet.training_data import files_of
from twintrack.runs.engine import Settings
from twintrack.volumes import read_volume, write_volume

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
    made = prepare_panorama(images, [labels], PanoramaJob(tmp_path / "raw", margins=margins))
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

    assert prepare_panorama(images, [labels], PanoramaJob(raw)).cases == (names[0], names[1])
    made = prepare_panorama(tmp_path / "batch_2", [labels], PanoramaJob(raw))
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
        prepare_panorama(images, [labels], PanoramaJob(raw))
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
    job = PanoramaJob(tmp_path / "raw", margins=(6.0, 3.0, 0.0))
    made = prepare_panorama(tmp_path / "images", given, job)
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
    prepare_panorama(tmp_path / "images", [tmp_path / "labels"], PanoramaJob(tmp_path / "raw"))
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


def test_panorama_refuses_what_nnunet_or_a_rerun_would_take_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_panorama(tmp_path, SPEC, 1)
    images, labels, raw = tmp_path / "images", tmp_path / "labels", tmp_path / "raw"
    name = "PHANTOM_00000"
    for wrong in ((0.0, 4.0, 4.0), (4.0, float("nan"), 4.0), (4.0, 4.0, float("inf"))):
        with pytest.raises(ValueError, match="coarse_spacing"):
            PanoramaJob(raw, coarse_spacing=wrong)
    with pytest.raises(ValueError, match="by number"):
        PanoramaJob(raw, coarse=104)
    (raw / "Dataset104_Other").mkdir(parents=True)
    with pytest.raises(ValueError, match="Dataset104_Other: has the number"):
        prepare_panorama(images, [labels], PanoramaJob(raw))
    (raw / "Dataset104_Other").rmdir()
    archive = raw / "Dataset104_PDAC.zip"  # nnU-Net looks at folders only
    archive.touch()
    for folder, twin in ((images, f"{name}.nii.gz"), (labels, f"{name}.mha")):
        (folder / twin).write_bytes(b"")
        with pytest.raises(ValueError, match="is the same case as"):
            prepare_panorama(images, [labels], PanoramaJob(raw))
        (folder / twin).unlink()
    assert list(raw.iterdir()) == [archive]
    # Interrupted while it is made again, with other margins: labels never lie beside another crop.
    prepare_panorama(images, [labels], PanoramaJob(raw))
    before = content(raw, "*/*Tr/*")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    job = PanoramaJob(raw, margins=(9.0, 9.0, 9.0))
    monkeypatch.setattr("twintrack.nnunet.panorama.find_roi", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_panorama(images, [labels], job)
    monkeypatch.undo()
    assert content(raw, "*/*Tr/*") == before
    # And while the files of the case are put into their places, one after the other.
    crops, replace = set(), Path.replace
    for renamed in range(4):
        left = [renamed]

        def replaced(source: Path, target: Path, left: list[int] = left) -> Path:
            if "Tr" in target.parent.name:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
            return replace(source, target)

        monkeypatch.setattr(Path, "replace", replaced)
        with pytest.raises(KeyboardInterrupt):
            prepare_panorama(images, [labels], job)
        monkeypatch.undo()
        crop = raw / "Dataset104_PDAC" / "imagesTr" / f"{name}_0000.nii.gz"
        crops.add(read_volume(crop).array.shape if crop.is_file() else None)
        assert not list((raw / "Dataset104_PDAC" / "labelsTr").iterdir())
    assert len(crops) == 2  # there was none, or that of the other margins
    prepare_panorama(images, [labels], job)
    assert len(content(raw, "*/*Tr/*")) == 4


def test_panorama_makes_again_only_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_panorama(tmp_path, SPEC, 3)
    images, labels, raw = tmp_path / "images", tmp_path / "labels", tmp_path / "raw"
    names = [f"PHANTOM_{k:05d}" for k in range(3)]
    made: list[str] = []
    read = PanoramaJob.read

    def told(job: PanoramaJob, case: Any) -> Any:
        made.append(case.name)
        return read(job, case)

    monkeypatch.setattr(PanoramaJob, "read", told)

    def run(**options: Any) -> list[str]:
        made.clear()
        result = prepare_panorama(images, [labels], PanoramaJob(raw, **options))
        assert result.cases == tuple(names)
        assert result.kept == 3 - len(made)
        return sorted(made)

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
    assert run() == names
    for record in raw.glob(f"Dataset104_PDAC/prepared/*/cases/{names[0]}.json"):
        record.write_text("{")
    assert run() == names[:1]
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
    one, two = (
        prepare_panorama(
            images,
            [labels],
            PanoramaJob(tmp_path / f"raw_{workers}"),
            settings=Settings(workers=workers),
        )
        for workers in (1, 2)
    )
    assert one.cases == two.cases == ("PHANTOM_00000", "PHANTOM_00002")
    assert one.faults == two.faults
    volumes = [content(tmp_path / f"raw_{workers}", "*/*Tr/*") for workers in (1, 2)]
    assert volumes[0] == volumes[1]
    assert len(volumes[0]) == 8


def test_a_data_set_that_stays_as_it_is_is_not_planned_again(tmp_path: Path) -> None:
    write_panorama(tmp_path, SPEC, 1)
    made = []
    for _ in range(2):
        job = PanoramaJob(tmp_path / "raw")
        prepare_panorama(tmp_path / "images", [tmp_path / "labels"], job)
        made.append([files_of(target) for target in job.targets])
    assert made[0] == made[1]
