"""MetaImage files that are written here and read back."""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import pytest
from volume_samples import AFFINE, read_or_clean_error, scores

from twintrack.volumes import check_same_geometry, read_score, read_volume, write_volume


def test_metaimage_without_simpleitk_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match=r"a\.mha.*twintrack\[mha\]"):
        read_volume(tmp_path / "a.mha")


def test_metaimage_lies_where_the_same_nifti_lies(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    array = scores()
    orthogonal = nib.affines.from_matvec(
        np.linalg.qr(AFFINE[:3, :3])[0] * [0.7, 0.8, 2.5], AFFINE[:3, 3]
    )
    write_volume(tmp_path / "a.nii.gz", array, orthogonal)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")), str(tmp_path / "b.mha"))
    write_volume(tmp_path / "c.mha", array, read_score(tmp_path / "a.nii.gz"))
    for name in ("b.mha", "c.mha"):
        volume = read_score(tmp_path / name)
        np.testing.assert_array_equal(volume.array, array)
        assert volume.array.flags.f_contiguous
        check_same_geometry(read_score(tmp_path / "a.nii.gz"), volume, tolerance=1e-5)
    with pytest.raises(ValueError, match=r"d\.mha.*scale factor"):
        write_volume(tmp_path / "d.mha", array, orthogonal, "uint8")


def test_damaged_metaimage_fails_cleanly(tmp_path):
    pytest.importorskip("SimpleITK")
    path = tmp_path / "a.mha"
    write_volume(path, scores(), AFFINE_ORTHOGONAL)
    data = path.read_bytes()
    for length in range(0, len(data), 41):
        path.write_bytes(data[:length])
        assert read_or_clean_error(path) is None, length
    path.write_bytes(data.replace(b"DimSize = 5 4 3", b"DimSize = 9999 9999 9999"))
    assert read_or_clean_error(path) is None
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.mha"):
        read_volume(path)


AFFINE_ORTHOGONAL = np.diag([-0.7, -0.7, 2.5, 1.0])


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint16, np.int32, np.float32])
def test_metaimage_keeps_the_type_of_its_voxels(tmp_path, dtype):
    pytest.importorskip("SimpleITK")
    array = np.asfortranarray(np.arange(60).reshape(3, 4, 5).astype(dtype))
    write_volume(tmp_path / "a.mha", array, np.eye(4))
    found = read_volume(tmp_path / "a.mha").array
    assert found.dtype == dtype
    assert np.array_equal(found, array)
