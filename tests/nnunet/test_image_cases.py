from __future__ import annotations

from pathlib import Path

import pytest

from twintrack.nnunet.image_cases import find_images


def names(source: Path) -> list[str]:
    return [case.name for case in find_images(source)]


def test_finding_images(tmp_path: Path) -> None:
    for name in ("b10_0000.nii.gz", "b2_0000.nii.gz", ".hidden.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "image.nii.gz").touch()
    (tmp_path / "c1").mkdir()
    (tmp_path / "c1" / "image.nii.gz").touch()
    assert names(tmp_path) == ["b2", "b10", "c1"]
    with pytest.raises(ValueError, match="case 'b2' has .*trained with 2 channels"):
        find_images(tmp_path, 2)
    (tmp_path / "b2.mha").touch()
    with pytest.raises(ValueError, match="is the same case as"):
        find_images(tmp_path)
    with_raw = tmp_path / "with_raw"
    for name in ("a.mhd", "a.raw", "b_0000.mhd", "b_0000.zraw", "c/image.mhd", "c/image.raw"):
        (with_raw / name).parent.mkdir(parents=True, exist_ok=True)
        (with_raw / name).touch()
    assert {case.name: case.images[0].name for case in find_images(with_raw)} == {
        "a": "a.mhd",
        "b": "b_0000.mhd",
        "c": "image.mhd",
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images"):
        find_images(tmp_path / "empty")
    assert names(tmp_path / "b10_0000.nii.gz") == ["b10"]
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    for name in ("scan_0001.nii.gz", "scan_0002.nii.gz", "pat_2024.mha", "ct_0000.mha"):
        (numbered / name).touch()
    assert names(numbered) == ["ct", "pat_2024", "scan_0001", "scan_0002"]
    assert names(numbered / "pat_2024.mha") == ["pat_2024"]
    (numbered / "scan_0000.nii.gz").touch()
    with pytest.raises(ValueError, match="scan_0000.nii.gz and scan_0001.nii.gz are two channels"):
        find_images(numbered)
    two = tmp_path / "two"
    two.mkdir()
    for name in ("scan_0000.nii.gz", "scan_0001.nii.gz"):
        (two / name).touch()
    assert [len(case.images) for case in find_images(two, 2)] == [2]
