"""NumPy files, and the class probabilities that nnU-Net leaves in them."""

from __future__ import annotations

import io
import itertools
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from volume_samples import (
    AFFINE,
    SHAPE,
    class_probabilities,
    describe_labels,
    read_or_clean_error,
    scores,
)

from twintrack import ensemble_score
from twintrack.volumes import read_score, read_volume, write_volume
from twintrack.volumes.slabs import open_slabs


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("key", ["probabilities", "softmax"])
def test_nnunet_probabilities_come_out_in_nibabel_order_with_the_geometry_beside(
    tmp_path, save, key
):
    probabilities = class_probabilities()
    save(tmp_path / "case_1.npz", **{key: probabilities})
    segmentation = probabilities.argmax(0).T.astype("u1")
    write_volume(tmp_path / "case_1.nii.gz", segmentation, AFFINE)

    volume = read_score(tmp_path / "case_1.npz", tumour=(2,))

    assert volume.array.dtype == np.float32
    assert volume.array.flags.f_contiguous
    np.testing.assert_array_equal(volume.array, probabilities[2].transpose(2, 1, 0))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)


def test_nnunet_probabilities_without_a_segmentation_have_no_geometry(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=class_probabilities())
    volume = read_score(tmp_path / "a.npz")
    assert volume.affine is None
    with pytest.raises(ValueError, match=r"b\.nii\.gz.*a\.npz has no geometry"):
        write_volume(tmp_path / "b.nii.gz", volume.array, volume)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "float64"])
def test_tumour_classes_are_added_up_and_never_pass_one(tmp_path, dtype, order):
    probabilities = class_probabilities(4).astype(dtype)
    np.savez(tmp_path / "a.npz", probabilities=np.asarray(probabilities, order=order))
    describe_labels(tmp_path)
    score = read_score(tmp_path / "a.npz", tumour=(3, 1)).array
    expected = (probabilities[1].astype("f8") + probabilities[3]).T
    np.testing.assert_allclose(score, expected, atol=1e-6)
    everything = read_score(tmp_path / "a.npz", tumour=(0, 1, 2, 3)).array
    assert everything.max() <= 1
    assert everything.min() > 0.99


def test_sum_beyond_rounding_is_left_for_the_range_check(tmp_path):
    # Probabilities that are really logits, or stored twice, must not be cut to 1 in silence.
    np.savez(tmp_path / "a.npz", probabilities=np.full((2, 3, 4, 5), 0.75, "f4"))
    describe_labels(tmp_path)
    assert (read_score(tmp_path / "a.npz", tumour=(0, 1)).array == 1.5).all()


@pytest.mark.parametrize(
    ("dtype", "steps"),
    # So many times the rounding of the type, 2^-23 or 2^-10, beyond 1.
    [("float32", 2**-23), ("float64", 2**-23), ("float16", 2**-10)],
)
def test_only_what_rounding_explains_is_set_to_one(tmp_path, dtype, steps):
    """Three terms are off by a rounding each; a limit a few times wider would hide a wrong sum."""
    over = np.array([0, 1, 2, 3, 4, 300]) * steps
    shape = (3, 1, 1, len(over))
    probabilities = np.full(shape, 0.25, dtype)
    probabilities[0] = (0.5 + over).astype(dtype)
    np.savez(tmp_path / "a.npz", probabilities=probabilities)
    describe_labels(tmp_path)
    whole = read_score(tmp_path / "a.npz", tumour=(0, 1, 2)).array.ravel()
    sums = probabilities.astype("f8").sum(axis=0).ravel()
    assert (np.diff(sums) > 0).all()
    np.testing.assert_array_equal(whole, [1, 1, 1, 1, *sums[4:]])
    slabs = open_slabs(tmp_path / "a.npz", (0, 1, 2)).slabs(1)
    np.testing.assert_array_equal(np.concatenate(list(slabs), axis=2).ravel(), whole)
    # A single class is as it is stored.
    np.testing.assert_array_equal(
        read_score(tmp_path / "a.npz", (0,)).array.ravel(), probabilities[0].ravel()
    )


def test_classes_of_16_bits_are_added_with_more(tmp_path):
    """In float16 100 small terms beside a large one would add up to nothing."""
    probabilities = np.full((101, 1, 1, 2), 1e-4, "f2")
    probabilities[0] = 0.9
    np.savez(tmp_path / "a.npz", probabilities=probabilities)
    describe_labels(tmp_path)
    score = read_score(tmp_path / "a.npz", tumour=range(101)).array
    np.testing.assert_allclose(score, probabilities.sum(axis=0, dtype="f8").T, atol=1e-6)


@pytest.mark.parametrize("layout", ["", "fold_0/validation"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_of_regions_the_highest_counts_as_in_the_pipeline(tmp_path, dtype, order, layout):
    folder = tmp_path / layout
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    regions = rng.random((3, *SHAPE[::-1])).astype(dtype)  # sigmoids: they need not add up to 1
    np.savez(folder / "a.npz", probabilities=np.asarray(regions, order=order))
    describe_labels(tmp_path, whole=[1, 2, 3], core=[2, 3], spot=3)
    # The pipeline's own merging, of one member.
    expected = ensemble_score(
        [regions.astype("f4")], tumour=(0, 2), inputs="probabilities", regions=True
    )
    for found in (
        read_score(folder / "a.npz", tumour=(0, 2)).array,
        np.concatenate(list(open_slabs(folder / "a.npz", (2, 0)).slabs(2)), axis=2),
    ):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected.T.astype(dtype))
    assert (read_score(folder / "a.npz", tumour=(1,)).array == regions[1].T).all()


def test_several_channels_of_unknown_kind_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, probabilities=class_probabilities())
    for read in (read_score, open_slabs):
        with pytest.raises(ValueError, match=r"^\S*/a\.npz: nothing tells whether tumour=\(1, 2\)"):
            read(path, (1, 2))
        read(path, (2,))
    for content in ("", "[]", '{"labels": 3}', "[" * 100_000):
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(ValueError, match=r"dataset\.json: (not a JSON|.*must be an object)"):
            read_score(path, (1, 2))


@pytest.mark.parametrize("order", ["C", "F"])
def test_order_in_which_classes_are_named_changes_no_bit(tmp_path, order):
    probabilities = np.asarray(class_probabilities(4), order=order)
    np.savez(tmp_path / "a.npz", probabilities=probabilities)
    describe_labels(tmp_path)
    expected = ((probabilities[1] + probabilities[2]) + probabilities[3]).T
    other = ((probabilities[3] + probabilities[1]) + probabilities[2]).T
    assert (expected != other).any()
    for classes in itertools.permutations((1, 2, 3)):
        slabs = open_slabs(tmp_path / "a.npz", classes).slabs(2)
        np.testing.assert_array_equal(np.concatenate(list(slabs), axis=2), expected)
        np.testing.assert_array_equal(read_score(tmp_path / "a.npz", classes).array, expected)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_segmentation_beside_probabilities_may_be_compressed_or_not(tmp_path, suffix):
    probabilities = class_probabilities()
    np.savez(tmp_path / "a.npz", probabilities=probabilities)
    write_volume(tmp_path / f"a{suffix}", probabilities.argmax(0).T.astype("u1"), AFFINE)
    for volume in (read_score(tmp_path / "a.npz"), open_slabs(tmp_path / "a.npz").place):
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("tumour", [(3,), (-1,), (), (1, 1)])
def test_tumour_classes_that_do_not_exist_or_repeat_are_refused(tmp_path, tumour):
    np.savez(tmp_path / "a.npz", probabilities=class_probabilities())
    with pytest.raises(ValueError, match=r"a\.npz.*tumour="):
        read_score(tmp_path / "a.npz", tumour=tumour)


def test_probabilities_of_another_shape_than_their_segmentation_are_refused(tmp_path):
    # nnU-Net version 1 saves the softmax cropped.
    np.savez(tmp_path / "a.npz", softmax=class_probabilities()[:, 1:])
    write_volume(tmp_path / "a.nii.gz", np.zeros(SHAPE, "u1"), AFFINE)
    with pytest.raises(ValueError, match=r"a\.npz: shape \(5, 4, 2\).*\(5, 4, 3\).*a\.nii\.gz"):
        read_score(tmp_path / "a.npz")


def test_arrays_of_three_axes_are_taken_as_stored_and_found_by_key(tmp_path):
    first, second = scores(), scores() / 2
    np.savez(tmp_path / "a.npz", first=np.asfortranarray(first), second=second)
    np.testing.assert_array_equal(read_score(tmp_path / "a.npz", key="first").array, first)
    np.testing.assert_array_equal(read_score(tmp_path / "a.npz", key="second").array, second)
    with pytest.raises(ValueError, match=r"a\.npz.*'third'.*first.*second"):
        read_score(tmp_path / "a.npz", key="third")
    with pytest.raises(ValueError, match=r"a\.npz.*key=.*first.*second"):
        read_score(tmp_path / "a.npz")


def test_npy_is_mapped_in_its_memory_order(tmp_path):
    for order in "CF":
        array = np.asarray(scores(dtype="float16"), order=order)
        np.save(tmp_path / "a.npy", array)
        volume = read_score(tmp_path / "a.npy")
        np.testing.assert_array_equal(volume.array, array)
        assert volume.array.strides == array.strides
    np.save(tmp_path / "a.npy", scores().astype(">f4"))
    np.testing.assert_array_equal(read_score(tmp_path / "a.npy").array, scores())


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_nothing_is_ever_unpickled(tmp_path):
    trace = tmp_path / "unpickled"
    array = np.array([[[Bomb(trace)]]], dtype=object)
    np.savez(tmp_path / "a.npz", probabilities=array)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb(trace)))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb(trace)))
    for name in ("a.npz", "a.npy", "b.npz", "b.npy"):
        with pytest.raises(ValueError, match=name):
            read_volume(tmp_path / name)
    np.savez(tmp_path / "c.npz", probabilities=class_probabilities())
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(Bomb(trace)))
    read_score(tmp_path / "c.npz")
    assert not trace.exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz_is_found(tmp_path, save):
    probabilities = class_probabilities()
    path = tmp_path / "a.npz"
    save(path, probabilities=probabilities)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        assert read_or_clean_error(path) is None
    for position in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        volume = read_or_clean_error(path)
        if volume is not None:  # a date, a version: fields that do not touch the voxels
            np.testing.assert_array_equal(volume.array, probabilities[1].T)


def test_npz_that_announces_more_than_it_can_hold_takes_no_memory(tmp_path):
    path = tmp_path / "a.npz"
    member = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2, 4000, 4000, 4000)}
    np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("probabilities.npy", member.getvalue() + b"\0" * 1000)
    with pytest.raises(ValueError, match=r"a\.npz.*cannot hold"):
        read_score(path)


@pytest.mark.parametrize("array", [np.zeros((3, 4)), np.zeros((3, 0, 4)), np.zeros(SHAPE, "c8")])
def test_numpy_arrays_that_are_no_volume_are_refused(tmp_path, array):
    np.savez(tmp_path / "a.npz", array)
    np.save(tmp_path / "a.npy", array)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(ValueError, match=name):
            read_volume(tmp_path / name)
