"""Annotations: labels of any file, and segments of Slicer's, that are the tumour."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from volume_samples import AFFINE

from twintrack.volumes import read_label_map, read_labels
from twintrack.volumes.annotation import labels_found, open_annotation

SHAPE = (7, 6, 5)
LABELS = np.random.default_rng(3).integers(0, 4, SHAPE).astype("u1")


def write(path, array, **pairs):
    """Write labels (x, y, z), or layers (x, y, z, c), as the ending of the name says."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, seg=array)
    elif path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, AFFINE, dtype=array.dtype), path)
    else:
        sitk = pytest.importorskip("SimpleITK")
        layers = array.ndim == 4
        stored = np.moveaxis(array, -1, 0).T if layers else array.T
        image = sitk.GetImageFromArray(np.ascontiguousarray(stored), isVector=layers)
        for key, value in pairs.items():
            image.SetMetaData(key, str(value))
        sitk.WriteImage(image, str(path), useCompression=True)
    return path


def segments(*triples):
    pairs = {}
    for number, (name, layer, value) in enumerate(triples):
        pairs |= {
            f"Segment{number}_Name": name,
            f"Segment{number}_Layer": layer,
            f"Segment{number}_LabelValue": value,
        }
    return pairs


def read(path, *label):
    opened = open_annotation(path, label)
    whole = opened.whole().array
    assert opened.place.array.shape == whole.shape
    np.testing.assert_array_equal(np.concatenate(list(opened.slabs(2)), axis=2), whole)
    return whole


ENDINGS = [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".seg.nrrd", ".npy", ".npz"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_labels_of_every_format(tmp_path, ending):
    path = write(tmp_path / f"a{ending}", LABELS)
    np.testing.assert_array_equal(read(path), LABELS)
    np.testing.assert_array_equal(read(path, "2"), LABELS == 2)
    np.testing.assert_array_equal(read(path, "3", "1"), np.isin(LABELS, [1, 3]))
    assert read(path, "9").dtype == np.bool_
    assert not read(path, "9").any()
    assert labels_found(path) == "0, 1, 2, 3"
    np.testing.assert_array_equal(read_label_map(path).array, LABELS)
    with pytest.raises(ValueError, match=rf"a\{ending}: label 'tumour' is no whole number"):
        open_annotation(path, ["tumour"])


@pytest.mark.parametrize("ending", [".seg.nrrd", ".SEG.NRRD", ".nrrd"])
def test_segments_by_name_and_number(tmp_path, ending):
    layers = np.stack([LABELS, (LABELS == 2) * np.uint8(1)], axis=-1)
    pairs = segments(("tumour", 0, 1), ("duct", 0, 3), ("cyst", 1, 1))
    path = write(tmp_path / f"a{ending}", layers, **pairs)
    np.testing.assert_array_equal(read(path, "tumour"), LABELS == 1)
    np.testing.assert_array_equal(read(path, "3", "cyst"), LABELS >= 2)
    with pytest.raises(ValueError, match=r"label '1' is several segments of it; .*cyst \(1\)"):
        open_annotation(path, ["1"])
    with pytest.raises(ValueError, match=r"label 'x' is no segment of it; it has tumour \(1\)"):
        open_annotation(path, ["x"])
    for read_it in (read_labels, open_annotation):
        with pytest.raises(ValueError, match="choose with --label among its segments: tumour, du"):
            read_it(path)


def test_one_layer_needs_no_label_if_it_holds_0_and_1(tmp_path):
    mask = (LABELS == 1).astype("u1")
    path = write(tmp_path / "a.seg.nrrd", mask, **segments(("tumour", 0, 1)))
    np.testing.assert_array_equal(read(path), mask)
    np.testing.assert_array_equal(read(path, "tumour"), mask)
    assert open_annotation(path, ["tumour"]).place.affine is not None


def test_a_layer_that_is_not_there(tmp_path):
    path = write(tmp_path / "a.seg.nrrd", LABELS, **segments(("tumour", 4, 1)))
    with pytest.raises(ValueError, match="no segment of it"):
        open_annotation(path, ["tumour"])


def test_segments_of_a_plane(tmp_path):
    plane = LABELS[..., 0]
    path = write(tmp_path / "a.seg.nrrd", plane, **segments(("tumour", 0, 2)))
    np.testing.assert_array_equal(read(path, "tumour"), plane[..., None] == 2)
