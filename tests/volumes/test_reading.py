"""Scores and labels, whatever their format."""

from __future__ import annotations

import numpy as np
import pytest
from volume_samples import AFFINE, SHAPE, nifti_bytes

from twintrack.volumes import read_label_map, read_labels, read_score, write_volume


def test_a_segmentation_is_not_a_score(tmp_path):
    # In an nnU-Net folder CASE.nii.gz is the segmentation; 0/1 "scores" would calibrate to nothing.
    write_volume(tmp_path / "a.nii.gz", np.ones(SHAPE, "u1"), AFFINE)
    with pytest.raises(ValueError, match=r"a\.nii\.gz.*uint8.*--save_probabilities"):
        read_score(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f8"])
def test_labels_keep_their_dtype_and_label_maps_become_uint8(tmp_path, dtype):
    labels = np.random.default_rng(0).integers(0, 6, SHAPE).astype(dtype)
    (tmp_path / "a.nii").write_bytes(nifti_bytes(labels))
    assert read_labels(tmp_path / "a.nii").array.dtype == np.dtype(dtype)
    label_map = read_label_map(tmp_path / "a.nii").array
    assert label_map.dtype == np.uint8
    assert label_map.flags.f_contiguous
    np.testing.assert_array_equal(label_map, labels)


@pytest.mark.parametrize("value", [1.5, -1.0, 256.0, np.nan, np.inf])
def test_label_map_with_another_value_names_the_voxel(tmp_path, value):
    labels = np.zeros(SHAPE)
    labels[3, 1, 2] = value
    (tmp_path / "a.nii").write_bytes(nifti_bytes(labels))
    with pytest.raises(ValueError, match=rf"a\.nii.*\(3, 1, 2\) is {value}"):
        read_label_map(tmp_path / "a.nii")
