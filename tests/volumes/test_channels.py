"""Channels and single planes in every format, by every axis on which they are written."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_samples import AFFINE, describe_labels

from twintrack.cohort.score_records import ensemble_of_score
from twintrack.runs.memory import case_bytes, count_voxels
from twintrack.volumes import read_label_map, read_labels, read_score, read_volume, write_volume
from twintrack.volumes.annotation import open_annotation
from twintrack.volumes.slabs import open_score, open_slabs

SHAPE = (7, 6, 5)
FORMATS = [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".npy", ".npz"]
ITK = (".mha", ".mhd", ".nrrd", ".nhdr")


def softmax(channels: int, shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> np.ndarray:
    """Probabilities (c, x, y, z) that add up to 1."""
    powers = np.exp(np.random.default_rng(channels).normal(0, 3, (channels, *shape)))
    return (powers / powers.sum(axis=0)).astype(dtype)


def sigmoids(channels: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Probabilities (c, x, y, z) of regions."""
    return np.random.default_rng(channels).random((channels, *shape)).astype("f4")


def write(path: Path, array: np.ndarray, vectors: bool = False) -> Path:
    """Write an array whose axes are (x, y, z, …), or (x, y, z, c) as ITK writes vectors."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, score=array)
    elif path.name.endswith(ITK) or vectors:
        sitk = pytest.importorskip("SimpleITK")
        stored = np.moveaxis(array, -1, 0).T if vectors else array.T
        image = sitk.GetImageFromArray(np.ascontiguousarray(stored), isVector=vectors)
        sitk.WriteImage(image, str(path))
    else:
        nib.save(nib.Nifti1Image(array, AFFINE, dtype=array.dtype), path)
    return path


def read_both(path: Path, tumour: tuple[int, ...] = (1,)) -> np.ndarray:
    """Read a score whole and in slabs; they are one."""
    whole = read_score(path, tumour)
    opened = open_score(path, tumour)
    assert opened.place.array.shape == whole.array.shape
    np.testing.assert_array_equal(np.concatenate(list(opened.slabs(2)), axis=2), whole.array)
    assert list(whole.notes) == opened.notes
    assert case_bytes({"score": path}, 1 << 20) > 0
    return whole.array


@pytest.mark.parametrize("channels", [2, 3, 9])
@pytest.mark.parametrize("ending", [e for e in FORMATS if e != ".npz"])
def test_channels_last_and_first_where_they_add_up_to_one(tmp_path, ending, channels):
    probabilities = softmax(channels)
    last = write(tmp_path / f"last{ending}", np.moveaxis(probabilities, 0, -1))
    first = write(tmp_path / f"first{ending}", probabilities)
    for number in range(channels):
        for path in (last, first):
            found = read_both(path, (number,))
            np.testing.assert_array_equal(found, probabilities[number])
    both = probabilities[1] + probabilities[0]
    np.testing.assert_array_equal(read_both(last, (1, 0)), np.minimum(both, 1))
    if channels < min(SHAPE):  # from the shape alone
        assert count_voxels(last) == count_voxels(first) == np.prod(SHAPE)
    assert ensemble_of_score(last, (1,)) == {"tumour": [1]}
    with pytest.raises(ValueError, match=rf"last\{ending}.*class {channels} is not in 0"):
        read_score(last, (channels,))
    notes = read_score(first).notes
    assert notes == (f"its shape {probabilities.shape} is read as (channel, x, y, z)",)
    assert read_score(last).notes == ()


@pytest.mark.parametrize("ending", [".nii.gz", *ITK])
def test_vectors_of_itk(tmp_path, ending):
    """Of NIfTI ITK makes (x, y, z, 1, c); in its own formats the format tells the axis."""
    probabilities = sigmoids(9)  # a last axis that is longer than the first is no doubt here
    path = write(tmp_path / f"a{ending}", np.moveaxis(probabilities, 0, -1), vectors=True)
    np.testing.assert_array_equal(read_both(path, (4,)), probabilities[4])
    with pytest.raises(ValueError, match="several volumes in one"):
        read_labels(path)


@pytest.mark.parametrize("kinds", ["list domain domain domain", "domain domain domain list"])
def test_axis_that_nrrd_calls_a_list(tmp_path, kinds):
    pytest.importorskip("SimpleITK")
    probabilities = sigmoids(2)
    array = probabilities if kinds.startswith("list") else np.moveaxis(probabilities, 0, -1)
    head = (
        f"NRRD0005\ntype: float\ndimension: 4\nsizes: {' '.join(map(str, array.shape))}\n"
        f"kinds: {kinds}\nendian: little\nencoding: raw\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(head.encode() + array.tobytes("F"))
    np.testing.assert_array_equal(read_both(tmp_path / "a.nrrd"), probabilities[1])
    # Without directions or spacings nothing is known of the place.
    assert read_volume(tmp_path / "a.nrrd").affine is None


@pytest.mark.parametrize("ending", [".nii", ".npy", ".nrrd"])
def test_which_axis_holds_regions(tmp_path, ending):
    """They add up to nothing: the last axis if it is shorter, the first if much shorter."""
    regions = sigmoids(2, (8, 9, 8))
    last = write(tmp_path / f"last{ending}", np.moveaxis(regions, 0, -1))
    np.testing.assert_array_equal(read_both(last), regions[1])
    first = write(tmp_path / f"first{ending}", regions)
    np.testing.assert_array_equal(read_both(first), regions[1])
    for shape in ((3, 8, 9, 8), (3, 8, 9, 3), (1, 8, 9, 2)):
        path = write(tmp_path / f"doubt{ending}", sigmoids(1, shape)[0])
        for read in (read_score, open_slabs):
            with pytest.raises(
                ValueError,
                match=rf"doubt\{ending}: its shape \({shape[0]}, .*{shape[3]} of \({shape[0]}, 8, 9"
                rf"\) voxels or {shape[0]} of \(8, 9, {shape[3]}\) voxels.*three axes",
            ):
                read(path)


def test_classes_of_one_plane_are_told_from_one_channel(tmp_path):
    plane = softmax(12, (1, 6, 5))
    path = write(tmp_path / "a.nii.gz", np.moveaxis(plane, 0, -1))  # (1, 6, 5, 12)
    np.testing.assert_array_equal(read_both(path), plane[1])
    volume = sigmoids(1, (6, 5, 12))
    path = write(tmp_path / "b.nii.gz", volume)
    np.testing.assert_array_equal(read_both(path), volume[0])
    assert "(1, 6, 5, 12) is read as (channel, x, y, z)" in read_score(path).notes[0]


lengths = st.tuples(*[st.integers(2, 9)] * 3)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), lengths, st.sampled_from([".nii", ".nii.gz", ".npy"]))
def test_axes_of_length_one_go(tmp_path, data, shape, ending):
    """Wherever they are written, before or behind the three of a volume."""
    score = sigmoids(1, (*shape[:2], max(4, shape[2])))[0]
    before = data.draw(st.integers(0, 2))
    behind = data.draw(st.integers(0, 2))
    array = score.reshape((1,) * before + score.shape + (1,) * behind)
    path = write(tmp_path / f"a{ending}", array)
    np.testing.assert_array_equal(read_both(path), score)
    np.testing.assert_array_equal(read_both(path, (5,)), score)
    labels = write(tmp_path / f"b{ending}", (array > 0.5).astype("u1"))
    for found in (read_labels(labels), read_label_map(labels), open_annotation(labels).whole()):
        np.testing.assert_array_equal(found.array, score > 0.5)
    np.testing.assert_array_equal(open_annotation(labels, ["1"]).whole().array, score > 0.5)


@pytest.mark.parametrize("dtype", ["u1", "f4", "bool"])
@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("a.npy", lambda m: m[None]),
        ("a.npy", lambda m: m[..., None]),
        ("a.npz", lambda m: m.T[None]),  # as nnU-Net orders axes
        ("a.npz", lambda m: m[..., None]),
        ("a.npz", lambda m: m),
    ],
)
def test_annotations_of_numpy_are_no_class_probabilities(tmp_path, name, turn, dtype):
    mask = (sigmoids(1)[0] > 0.5).astype(dtype)
    path = write(tmp_path / name, np.ascontiguousarray(turn(mask)))
    for found in (read_labels(path), open_annotation(path).whole()):
        assert found.array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found.array, mask)
    assert count_voxels(path) == mask.size


@pytest.mark.parametrize("ending", FORMATS)
def test_several_annotations_in_one_file_are_refused_by_their_shape(tmp_path, ending):
    masks = (sigmoids(3) > 0.5).astype("u1")
    path = write(tmp_path / f"a{ending}", masks if ending == ".npz" else np.moveaxis(masks, 0, -1))
    shape = r"\(3, 7, 6, 5\)" if ending == ".npz" else r"\(7, 6, 5, 3\)"
    for read in (read_labels, open_annotation):
        with pytest.raises(ValueError, match=rf"a\{ending}: has the shape {shape}, several .*own"):
            read(path)
    if ending != ".npz":
        with pytest.raises(ValueError, match=r"in one of uint8, which is no probability"):
            read_volume(path)


def test_one_channel_of_nnunet_is_the_score(tmp_path):
    region = sigmoids(1)
    np.savez(tmp_path / "a.npz", probabilities=region.transpose(0, 3, 2, 1))
    np.testing.assert_array_equal(read_both(tmp_path / "a.npz"), region[0])
    assert ensemble_of_score(tmp_path / "a.npz") == {}


def test_sums_and_regions_without_nnunet(tmp_path):
    regions = sigmoids(3)
    path = write(tmp_path / "a.nii.gz", np.moveaxis(regions, 0, -1))
    with pytest.raises(ValueError, match=r"a\.nii\.gz: nothing tells whether tumour=\(1, 2\)"):
        read_score(path, (1, 2))
    describe_labels(tmp_path, whole=[1, 2, 3], core=[2, 3], spot=3)
    np.testing.assert_array_equal(read_both(path, (1, 2)), regions[1:].max(axis=0))
    assert ensemble_of_score(path, (1, 2)) == {"tumour": [1, 2], "regions": True}
    describe_labels(tmp_path, a=1, b=2)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: voxel .* is 1\.\d+; its channels \(1, 2\)"):
        read_score(path, (1, 2))


def test_sums_of_probabilities_in_8_bits(tmp_path):
    """Each is off by up to half a step; that the sum passes 1 by them is rounding."""
    probabilities = softmax(3)
    stored = np.rint(probabilities * 255).astype("u1")
    assert stored.sum(axis=0, dtype=int).max() > 255
    image = nib.Nifti1Image(np.moveaxis(stored, 0, -1), AFFINE)
    image.header.set_slope_inter(1 / 255, 0)
    nib.save(image, tmp_path / "a.nii.gz")
    found = read_both(tmp_path / "a.nii.gz", (0, 1, 2))
    assert found.max() == 1
    np.testing.assert_allclose(found, 1, atol=3 / 255)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_plane_is_a_volume_of_one_slice(tmp_path, ending):
    plane = sigmoids(1)[0, :, :, 0]
    volume = read_score(write(tmp_path / f"a{ending}", plane))
    np.testing.assert_array_equal(read_both(tmp_path / f"a{ending}"), plane[..., None])
    assert count_voxels(tmp_path / f"a{ending}") == plane.size
    if ending in ITK:
        np.testing.assert_array_equal(volume.affine, np.diag([-1, -1, 1, 1]))


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_planes_are_one_millimetre_thick(tmp_path, ending):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(sigmoids(1)[0, :, :, 0].T)
    image.SetSpacing((0.8, 0.7))
    image.SetOrigin((-9, 4))
    image.SetDirection((0, -1, 1, 0))
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    volume = read_volume(tmp_path / f"a{ending}")
    assert volume.voxel_volume == pytest.approx(0.56)
    expected = [[0, 0.7, 0, 9], [-0.8, 0, 0, -4], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-6)


def test_a_header_of_two_axes_without_a_thickness(tmp_path):
    header = nib.Nifti1Image(np.zeros((7, 6), "f4"), np.diag([0.8, 0.7, 1, 1])).header
    header["vox_offset"] = 352
    header["pixdim"][3] = 0
    header["srow_z"] = 0
    for sform, qform in ((0, 0), (0, 1), (1, 1), (1, 0)):
        header["sform_code"], header["qform_code"] = sform, qform
        (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4 + 7 * 6 * 4))
        volume = read_volume(tmp_path / "a.nii")
        assert volume.voxel_volume == pytest.approx(0.56)
        # What is written with this header has a thickness as well.
        write_volume(tmp_path / "b.nii", volume.array, volume)
        image = nib.load(tmp_path / "b.nii")
        assert abs(np.linalg.det(image.affine)) == pytest.approx(0.56)
        assert (image.header["sform_code"], image.header["qform_code"]) == (sform, qform)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_geometry_of_four_axes(tmp_path, ending):
    """The three that are of space are taken; none of their directions leads along the fourth."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.moveaxis(softmax(2), 0, -1).T, isVector=False)
    image.SetSpacing((0.8, 0.7, 2.5, 9))
    image.SetOrigin((1, 2, 3, 4))
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(path))
    np.testing.assert_allclose(np.diag(read_volume(path).affine), [-0.8, -0.7, 2.5, 1])
    np.testing.assert_allclose(read_volume(path).affine[:3, 3], [-1, -2, 3])
    image.SetDirection((0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0))
    sitk.WriteImage(image, str(path))
    with pytest.raises(ValueError, match=rf"a\{ending}: its directions turn"):
        read_volume(path)
