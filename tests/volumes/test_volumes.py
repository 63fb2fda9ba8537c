from __future__ import annotations

import gzip
import io
import itertools
import json
import pickle
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twintrack import ensemble_score
from twintrack.volumes import (
    Volume,
    check_same_geometry,
    find_part,
    paste,
    read_label_map,
    read_labels,
    read_score,
    read_volume,
    write_volume,
)
from twintrack.volumes.slabs import open_slabs
from twintrack.volumes.streams import gzipped

SHAPE = (5, 4, 3)

# Oblique, with a flip, so that no axis and no sign can be mixed up unnoticed.
AFFINE = np.array(
    [[-0.7, 0.1, 0.0, 90.5], [0.1, 0.7, 0.2, -40.25], [0.0, -0.2, 2.5, 12.0], [0, 0, 0, 1]]
)

# One folder serves all examples of a property: each example overwrites its file.
fuzz = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def scores(shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(dtype)


def nifti_bytes(array: np.ndarray, image_class: type = nib.Nifti1Image, order: str = "<") -> bytes:
    """A NIfTI file as nibabel writes it, in the given byte order and without scaling."""
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    image = image_class(array, AFFINE, header, dtype=array.dtype)
    return image.to_bytes()


def read_or_clean_error(path: Path) -> Volume | None:
    """Read `path`; whatever is not a ValueError or OSError that names it fails the test."""
    try:
        return read_volume(path)
    except (ValueError, OSError) as error:
        if str(path) not in str(error):
            raise AssertionError(f"does not name its file: {error}") from error
        return None


# --- NIfTI in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_nifti_reads_as_nibabel_in_the_dtype_of_the_file(tmp_path, dtype, order, image_class, name):
    array = (scores() * 100).astype(dtype)
    data = nifti_bytes(array, image_class, order)
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)

    volume = read_volume(path)

    assert volume.array.dtype == np.dtype(dtype)
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_array_equal(volume.affine, nib.load(path).affine)
    assert volume.array.flags.f_contiguous
    assert volume.array.flags.aligned
    assert volume.path == path


def test_nifti_scaled_integers_become_float32_and_scaled_doubles_stay_double(tmp_path):
    stored = np.arange(60).reshape(SHAPE)
    for dtype, expected in [("u1", "f4"), ("i2", "f4"), ("f4", "f4"), ("f8", "f8")]:
        data = bytearray(nifti_bytes(stored.astype(dtype)))
        data[112:120] = struct.pack("<ff", 0.25, -3.0)  # scl_slope, scl_inter
        path = tmp_path / f"{dtype}.nii"
        path.write_bytes(data)
        volume = read_volume(path)
        assert volume.array.dtype == np.dtype(expected)
        np.testing.assert_array_equal(volume.array, stored * 0.25 - 3)
        np.testing.assert_array_equal(volume.array, nib.load(path).get_fdata())


def test_nifti_slope_of_zero_means_no_scaling(tmp_path):
    data = bytearray(nifti_bytes(np.ones(SHAPE, "u1")))
    data[112:120] = struct.pack("<ff", 0.0, 5.0)
    (tmp_path / "v.nii").write_bytes(data)
    volume = read_volume(tmp_path / "v.nii")
    assert volume.array.dtype == np.uint8
    assert (volume.array == 1).all()


def test_nifti_with_extension_and_unaligned_voxels(tmp_path):
    # The voxels start at byte 352 + 32 + 1: an extension to pass over and an odd address.
    array = scores()
    data = bytearray(nifti_bytes(array))
    data[108:112] = struct.pack("<f", 385)
    header = bytes(data[:348]) + b"\1\0\0\0" + struct.pack("<ii", 32, 6) + b"x" * 24
    raw = header + b"\0" + array.tobytes("F")
    for name, content in [("v.nii", raw), ("v.nii.gz", gzip.compress(raw))]:
        (tmp_path / name).write_bytes(content)
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array, array)
        assert volume.array.flags.aligned


def test_nifti_that_leaves_the_position_of_its_voxels_at_zero(tmp_path):
    data = bytearray(nifti_bytes(scores()))
    data[108:112] = bytes(4)
    (tmp_path / "v.nii").write_bytes(data)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.nii").array, scores())


def test_nifti_axes_of_length_one_beyond_the_third_are_dropped_and_missing_ones_added(tmp_path):
    for shape, expected in [((5, 4, 3, 1), SHAPE), ((5, 4), (5, 4, 1))]:
        (tmp_path / "v.nii").write_bytes(nifti_bytes(scores(shape)))
        assert read_volume(tmp_path / "v.nii").array.shape == expected
    (tmp_path / "v.nii").write_bytes(nifti_bytes(scores((5, 4, 3, 2))))
    with pytest.raises(ValueError, match=r"v\.nii.*\(5, 4, 3, 2\)"):
        read_volume(tmp_path / "v.nii")


def test_uncompressed_file_is_mapped_and_never_changed_by_writing_into_the_array(tmp_path):
    path = tmp_path / "v.nii"
    before = nifti_bytes(scores())
    path.write_bytes(before)
    volume = read_volume(path)
    volume.array[:] = 0
    assert path.read_bytes() == before


@given(cuts=st.lists(st.integers(0, 592), max_size=6), padding=st.integers(0, 600))
@fuzz
def test_gzip_of_several_members_and_zero_padding(tmp_path, cuts, padding):
    # pigz, bgzip and appended files make several members; reading the first alone loses voxels.
    array = scores()
    data = nifti_bytes(array)
    edges = [0, *sorted(cuts), len(data)]
    members = [gzip.compress(data[a:b]) for a, b in itertools.pairwise(edges)]
    path = tmp_path / "v.nii.gz"
    path.write_bytes(b"".join(members) + b"\0" * padding)
    np.testing.assert_array_equal(read_volume(path).array, array)


def test_gzip_larger_than_every_internal_buffer(tmp_path):
    array = scores((97, 89, 83))  # 2.9 MB that hardly compress
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes(array), 1))
    np.testing.assert_array_equal(read_volume(path).array, array)


@pytest.mark.parametrize("name", ["score.nii.gz", "classes.npz"])
def test_reading_takes_no_memory_beyond_the_array(tmp_path, name):
    # A cohort's largest case has 209 million voxels: every needless copy is 0.8 GB.
    array = np.zeros((200, 150, 100), "f4")
    path = tmp_path / name
    if name == "score.nii.gz":
        write_volume(path, array, AFFINE)
    else:
        np.savez_compressed(path, probabilities=np.zeros((5, *array.shape[::-1]), "f4"))
    tracemalloc.start()
    try:
        volume = read_score(path, tumour=(4,))
        assert tracemalloc.get_traced_memory()[1] < array.nbytes + 2e6
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(volume.array, array)


# --- NIfTI: bad input -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_truncation_anywhere_is_an_error_that_names_the_file(tmp_path, name):
    data = nifti_bytes(scores())
    data = gzip.compress(data) if name.endswith("gz") else data
    path = tmp_path / name
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert read_or_clean_error(path) is None, length


def test_a_flipped_bit_anywhere_in_a_gzip_file_is_found(tmp_path):
    array = scores()
    data = gzip.compress(nifti_bytes(array), mtime=0)
    path = tmp_path / "v.nii.gz"
    path.write_bytes(data)
    affine = read_volume(path).affine
    found = 0
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        volume = read_or_clean_error(path)
        # What is read in spite of it is the same: a date changed, or a copy of zeros from
        # another place among zeros.
        if volume is None:
            found += 1
        else:
            np.testing.assert_array_equal(volume.array, array)
            np.testing.assert_array_equal(volume.affine, affine)
    assert found > 0.9 * len(data)


def test_checksum_behind_the_last_voxel_is_verified(tmp_path):
    # A reader that stops at the last voxel never gets to see the CRC-32.
    data = bytearray(gzip.compress(nifti_bytes(scores())))
    data[-8] ^= 1
    (tmp_path / "v.nii.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"v\.nii\.gz.*corrupt"):
        read_volume(tmp_path / "v.nii.gz")


@given(
    patches=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=8),
    compressed=st.booleans(),
)
@fuzz
def test_header_with_wrong_bytes_reads_or_fails_cleanly(tmp_path, patches, compressed):
    data = bytearray(nifti_bytes(scores()))
    for position, value in patches:
        data[position] = value
    path = tmp_path / "v.nii"
    path.write_bytes(gzip.compress(data) if compressed else data)
    read_or_clean_error(path)


@given(
    st.binary(max_size=700),
    st.sampled_from(["v.nii", "v.nii.gz", "v.npz", "v.npy"]),
    st.sampled_from([b"", b"\x1f\x8b\x08\0", b"PK\3\4", b"\x93NUMPY\1\0", b"\x5c\1\0\0"]),
)
@fuzz
def test_random_bytes_fail_cleanly(tmp_path, noise, name, magic):
    path = tmp_path / name
    path.write_bytes(magic + noise)
    assert read_or_clean_error(path) is None


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "lengths", [(32767, 32767, 32767), (-5, 4, 3), (0, 4, 3), (5, 4, -32768), (200, 200, 200)]
)
def test_impossible_shape_is_refused_before_memory_is_taken(tmp_path, lengths, compressed):
    data = bytearray(nifti_bytes(scores()))
    data[40:48] = struct.pack("<4h", 3, *lengths)
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(data) if compressed else data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"v\.nii\.gz"):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (344, b"ni1\0", r"\.hdr/\.img"),
        (70, struct.pack("<hh", 32, 64), "complex64"),
        (70, struct.pack("<hh", 128, 24), "cannot be used"),
        (70, struct.pack("<hh", 9999, 8), "9999"),
        (108, struct.pack("<f", float("nan")), ""),
        (108, struct.pack("<f", 1e30), "puts the voxels at byte"),
        (108, struct.pack("<f", -400.0), ""),
        (112, struct.pack("<ff", 1.0, float("inf")), "inf"),
    ],
)
def test_unusable_header_fields_are_named(tmp_path, position, value, message):
    data = bytearray(nifti_bytes(scores()))
    data[position : position + len(value)] = value
    (tmp_path / "v.nii").write_bytes(data)
    with pytest.raises(ValueError, match=rf"v\.nii.*{message}"):
        read_volume(tmp_path / "v.nii")


def test_missing_file_folder_and_unknown_format_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.nii\.gz"):
        read_volume(tmp_path / "absent.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(OSError, match=r"folder\.nii"):
        read_volume(tmp_path / "folder.nii")
    with pytest.raises(ValueError, match=r"image\.png.*\.nii\.gz"):
        read_volume(tmp_path / "image.png")


# --- NumPy files and nnU-Net ------------------------------------------------------------------


def class_probabilities(classes: int = 3, dtype: str = "float32") -> np.ndarray:
    """Softmax of shape (class, z, y, x)."""
    exponentials = np.exp(np.random.default_rng(1).normal(0, 3, (classes, *SHAPE[::-1])))
    return (exponentials / exponentials.sum(0)).astype(dtype)


def describe_labels(folder: Path, **labels: int | list[int]) -> None:
    """Write what nnU-Net leaves beside its predictions: without lists, labels are classes."""
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **labels}}))


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


# --- scores and labels ------------------------------------------------------------------------


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


# --- geometry ---------------------------------------------------------------------------------


def volume_at(affine: np.ndarray | None, name: str, shape: tuple[int, ...] = SHAPE) -> Volume:
    return Volume(np.zeros(shape), affine, Path(name))


@pytest.mark.parametrize(
    ("change", "part", "amount"),
    [
        (lambda a: a @ np.diag([1, 1, 1.4, 1]), "spacing", r"1\.00\d mm"),
        (lambda a: a + np.eye(4, k=3) * 1000, "origin", "1000 mm"),
        (lambda a: a @ np.diag([-1, 1, 1, 1]), "direction", r"1\.98"),
        (lambda a: a * np.nan, "spacing", "nan mm"),
    ],
)
def test_geometry_fault_names_files_part_amount_and_override(change, part, amount):
    reference, other = volume_at(AFFINE, "ct.nii"), volume_at(change(AFFINE), "rater.nii")
    with pytest.raises(ValueError, match=rf"rater\.nii.*ct\.nii.*{part}.*{amount}") as caught:
        check_same_geometry(reference, other)
    assert "ignore_header=True" in str(caught.value)
    assert "--ignore-header" in str(caught.value)
    check_same_geometry(reference, other, ignore=("spacing", "origin", "direction"))
    if part != "spacing":  # the other parts agree
        assert "spacing" not in str(caught.value)
        check_same_geometry(reference, other, ignore=(part,))


def test_geometry_tolerates_rounding_and_unknown_places_but_never_another_shape():
    reference = volume_at(AFFINE, "ct.nii")
    check_same_geometry(reference, volume_at(AFFINE + 5e-4, "rater.nii"))
    check_same_geometry(reference, volume_at(None, "score.npy"))
    for affine in (AFFINE, None):
        other = volume_at(affine, "rater.nii", (5, 4, 2))
        with pytest.raises(ValueError, match=r"rater\.nii: shape \(5, 4, 2\).*3\) of ct\.nii"):
            check_same_geometry(reference, other, ignore=("spacing", "origin", "direction"))
    with pytest.raises(ValueError, match="orign"):
        check_same_geometry(reference, reference, ignore=("orign",))


@pytest.mark.parametrize("part", ["spacing", "origin", "direction"])
def test_geometry_tolerates_a_thousandth_and_no_more(part):
    """Of a millimetre, or of a unit vector: a hundredth would hide a wrong slice distance."""
    spacing, origin, angle = np.diag([0.7, 0.8, 2.5]), [90.5, -40.25, 12.0], 0.3

    def placed(off: float) -> np.ndarray:
        turn = angle + off * (part == "direction")
        c, s = np.cos(turn), np.sin(turn)
        longer = spacing + np.diag([0, 0, off * (part == "spacing")])
        turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ longer
        return nib.affines.from_matvec(turned, np.add(origin, [0, off * (part == "origin"), 0]))

    reference = volume_at(placed(0), "ct.nii")
    for off in (0.9e-3, -0.9e-3):
        check_same_geometry(reference, volume_at(placed(off), "rater.nii"))
    for off in (1.2e-3, -1.2e-3, 0.01):
        with pytest.raises(ValueError, match=rf"geometry differs from ct\.nii: {part} "):
            check_same_geometry(reference, volume_at(placed(off), "rater.nii"))


def test_spacing_and_voxel_volume():
    volume = volume_at(np.diag([-0.5, 0.8, 3.0, 1.0]), "a.nii")
    assert volume.spacing == pytest.approx((0.5, 0.8, 3.0))
    assert volume.voxel_volume == pytest.approx(1.2)
    for unknown in ("voxel_volume", "spacing"):  # 1 would pass for millimetres
        with pytest.raises(ValueError, match=r"a\.npy: states no voxel size"):
            getattr(volume_at(None, "a.npy"), unknown)
    # Of the array's axes, wherever these point: sagittal slices, a little aslant.
    slices = nib.affines.from_matvec([[0, 0, 3.0], [-0.4, 0, 0], [0.3, -0.8, 0]])
    assert volume_at(slices, "a.nii").spacing == pytest.approx((0.5, 0.8, 3.0))
    assert volume_at(slices, "a.nii").voxel_volume == pytest.approx(0.4 * 0.8 * 3)


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_written_score_is_read_back_exactly_by_us_and_by_nibabel(tmp_path, name, dtype):
    array = scores(dtype=dtype)
    error = write_volume(tmp_path / name, array, AFFINE, dtype)
    assert error == 0
    volume = read_score(tmp_path / name)
    assert volume.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_array_equal(nib.load(tmp_path / name).get_fdata(), array)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize(("dtype", "levels"), [("uint8", 255), ("uint16", 65535)])
@pytest.mark.parametrize("source", ["float16", "float32", "float64"])
def test_quantised_scores_stay_within_the_stated_error_and_in_range(
    tmp_path, dtype, levels, source
):
    grid = np.linspace(0, 1, 100_001)
    array = np.append(grid, np.arange(levels + 1) / levels).astype(source)[: 41 * 43 * 56]
    array = np.append(array, np.ones(41 * 43 * 100 - array.size)).reshape(41, 43, 100)
    path = tmp_path / "v.nii.gz"
    error = write_volume(path, array.astype(source), AFFINE, dtype)
    assert error == 0.5 / levels
    read = read_score(path).array
    assert read.dtype == np.float32
    assert np.abs(read - array.astype("f8")).max() <= error + 1e-7
    assert read.min() == 0
    assert read.max() == 1
    assert nib.load(path).header.get_data_dtype() == np.dtype(dtype)
    assert nib.load(path).dataobj.slope == np.float32(1 / levels)


def test_every_stored_integer_reads_as_a_score_in_range(tmp_path):
    # 65535 × float32(1/65535) must not come out above 1, where the range check would refuse it.
    for dtype, levels in (("uint8", 255), ("uint16", 65535)):
        array = (np.arange(levels + 1) / levels).reshape(-1, 8, 4)
        write_volume(tmp_path / "v.nii", array, AFFINE, dtype)
        read = read_score(tmp_path / "v.nii").array
        assert read.min() == 0
        assert read.max() == 1
        np.testing.assert_array_equal(np.rint(read * levels), np.rint(array * levels))


@pytest.mark.parametrize("value", [np.nan, -1e-3, 1.001, np.inf])
def test_score_out_of_range_is_not_quantised(tmp_path, value):
    array = scores()
    array[4, 0, 2] = value
    with pytest.raises(ValueError, match=r"v\.nii.*voxel \(4, 0, 2\).*not in \[0, 1\]"):
        write_volume(tmp_path / "v.nii", array, AFFINE, "uint8")
    assert list(tmp_path.iterdir()) == []


def test_blocks_of_any_thickness_give_the_same_file_and_the_right_voxel(tmp_path, monkeypatch):
    array = scores((9, 8, 7))
    write_volume(tmp_path / "whole.nii", array, AFFINE, "uint16")
    for size in (1, 9 * 8 * 2 * 3):
        monkeypatch.setattr("twintrack.volumes.writing._BLOCK_BYTES", size)
        write_volume(tmp_path / "blocks.nii", array, AFFINE, "uint16")
        assert (tmp_path / "blocks.nii").read_bytes() == (tmp_path / "whole.nii").read_bytes()
    array[8, 0, 5] = np.nan
    with pytest.raises(ValueError, match=r"voxel \(8, 0, 5\) is nan"):
        write_volume(tmp_path / "blocks.nii", array, AFFINE, "uint16")


def test_compressed_bytes_do_not_depend_on_where_the_compressor_lies():
    # isal puts the third position of a stream into the slot of its table that the address of its
    # state says. Every slot is the right one for one of these, so also those of the two here, which
    # are held at once; then one of them, and not the other, knows that bytes 2 to 18 come again.
    text = np.random.default_rng(0).bytes(600)
    for slot in range(1 << 13):
        twice = struct.pack("<I", slot << 16) + text[:12]
        data = memoryview(b"ab" + twice + b"cd" + twice + text[12:] + bytes(1 << 16))
        one, other = zip(*zip(gzipped([data]), gzipped([data]), strict=True), strict=True)
        assert one == other
    assert gzip.decompress(b"".join(one)) == data
    assert gzip.decompress(b"".join(gzipped([]))) == b""


def test_memory_order_and_strides_do_not_change_the_file(tmp_path):
    array = scores((40, 30, 20))
    double = np.zeros((80, 30, 20), "f4")
    double[::2] = array
    written = []
    for dtype in ("float32", "uint16"):
        for view in (array, np.asfortranarray(array), double[::2], array[::-1][::-1]):
            write_volume(tmp_path / "v.nii.gz", view, AFFINE, dtype)
            written.append((tmp_path / "v.nii.gz").read_bytes())
    assert len(set(written[:4])) == len(set(written[4:])) == 1
    assert written[0] != written[4]


def test_output_keeps_codes_units_and_both_transforms_of_its_source(tmp_path):
    one, two = nib.Nifti1Image, nib.Nifti2Image
    for image_class, order in [(one, "<"), (one, ">"), (two, "<")]:
        image = image_class(scores(), AFFINE, image_class.header_class(endianness=order))
        image.set_sform(AFFINE, "mni")
        image.set_qform(np.diag([2.0, 3.0, 4.0, 1.0]), "aligned")
        image.header.set_xyzt_units("mm", "sec")
        (tmp_path / "source.nii").write_bytes(image.to_bytes())
        write_volume(tmp_path / "v.nii.gz", scores(), read_score(tmp_path / "source.nii"))
        header = nib.load(tmp_path / "v.nii.gz").header
        source = nib.load(tmp_path / "source.nii").header
        assert header.get_xyzt_units() == ("mm", "sec")
        assert header.get_zooms() == pytest.approx(source.get_zooms())
        for transform in ("get_sform", "get_qform"):
            matrix, code = getattr(header, transform)(coded=True)
            expected, expected_code = getattr(source, transform)(coded=True)
            assert code == expected_code
            np.testing.assert_allclose(matrix, expected, atol=1e-6)


def test_labels_are_written_as_their_values(tmp_path):
    for labels in (scores() > 0.5, (scores() * 5).astype("i2"), (scores() * 5).astype("i8")):
        assert write_volume(tmp_path / "v.nii.gz", labels, AFFINE) == 0
        read = read_labels(tmp_path / "v.nii.gz").array
        assert read.dtype == (np.uint8 if labels.dtype == bool else labels.dtype)
        np.testing.assert_array_equal(read, labels)
    labels[2, 3, 1] = 300
    with pytest.raises(ValueError, match=r"voxel \(2, 3, 1\) is 300.*uint8"):
        write_volume(tmp_path / "v.nii.gz", labels, AFFINE, "uint8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "v.png"}, r"v\.png.*\.nii\.gz"),
        ({"path": "absent/v.nii"}, "folder does not exist"),
        ({"dtype": "int32"}, "dtype='int32'"),
        ({"array": scores((5, 4))}, r"\(5, 4\)"),
        ({"like": volume_at(AFFINE, "ct.nii", (5, 4, 2))}, r"\(5, 4, 2\).*ct\.nii"),
        ({"like": np.eye(3)}, r"\(3, 3\)"),
        ({"array": scores().astype("c8")}, "complex64"),
        ({"array": np.zeros((32768, 1, 1))}, "32768"),
    ],
)
def test_unwritable_requests_are_refused_and_leave_nothing(tmp_path, change, message):
    arguments = {"path": "v.nii", "array": scores(), "like": AFFINE, "dtype": None, **change}
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        write_volume(**arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, name):
    resource = pytest.importorskip("resource")
    path = tmp_path / name
    write_volume(path, np.zeros(SHAPE, "f4"), AFFINE)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"4,000,352 bytes are needed.*free") as caught:
            write_volume(path, scores((100, 100, 100)), AFFINE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_output_has_the_permissions_of_any_new_file(tmp_path):
    # Temporary-file helpers make private files; the rename would hand that on to the output.
    write_volume(tmp_path / "v.nii", scores(), AFFINE)
    (tmp_path / "plain").touch()
    assert (tmp_path / "v.nii").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- MetaImage --------------------------------------------------------------------------------


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


def part_at(start: tuple[int, ...], shape: tuple[int, ...], affine: np.ndarray = AFFINE) -> Volume:
    placed = affine.copy()
    placed[:3, 3] += AFFINE[:3, :3] @ start
    return Volume(scores(shape), placed)


@given(st.data())
def test_every_box_of_a_grid_is_found_and_nothing_else(data):
    whole = Volume(scores((9, 8, 7)), AFFINE)
    shape = [data.draw(st.integers(1, n)) for n in (9, 8, 7)]
    start = [data.draw(st.integers(-2, n)) for n in (9, 8, 7)]
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    inside = all(b.start >= 0 and b.stop <= n for b, n in zip(box, (9, 8, 7), strict=True))
    part = part_at(tuple(start), tuple(shape))
    found = find_part(whole, part)
    assert found == (box if inside and shape != [9, 8, 7] else None)
    if found is not None:
        pasted = paste(part, found, whole)
        np.testing.assert_array_equal(pasted.array[box], part.array)
        assert np.count_nonzero(pasted.array) == np.count_nonzero(part.array)
        assert pasted.array.dtype == part.array.dtype
        np.testing.assert_array_equal(pasted.affine, AFFINE)


def test_part_of_a_grid_is_told_by_every_corner(tmp_path):
    whole = Volume(scores((40, 30, 20)), AFFINE)
    box = (slice(10, 30), slice(5, 25), slice(3, 4))
    shape = (20, 20, 1)
    part = part_at((10, 5, 3), shape)
    assert find_part(whole, part) == box
    # What headers round, but neither another spacing, also across one plane, nor half a voxel.
    rounded = part.affine.astype(np.float32).astype(np.float64)
    assert find_part(whole, Volume(part.array, rounded)) == box
    for axis in range(3):
        stretched = part.affine.copy()
        stretched[:3, axis] *= 1.1
        assert find_part(whole, Volume(part.array, stretched)) is None
        shifted = part.affine.copy()
        shifted[:3, 3] += 0.5 * AFFINE[:3, axis]
        assert find_part(whole, Volume(part.array, shifted)) is None
    for unknown in (None, np.full((4, 4), np.nan), np.zeros((4, 4))):
        assert find_part(whole, Volume(part.array, unknown)) is None
        assert find_part(Volume(whole.array, unknown), part) is None
    # Without codes every reader has its own guess; nibabel's puts all volumes around one point.
    files = []
    for name, array in (("whole", whole.array), ("part", scores((20, 10, 10)))):
        header = nib.Nifti1Header()
        header.set_data_shape(array.shape)
        image = nib.Nifti1Image(array, None, header)
        files.append(tmp_path / f"{name}.nii")
        nib.save(image, files[-1])
    guessed = [read_volume(file) for file in files]
    assert find_part(*guessed) is None
    # One code is enough: a file may have a qform alone, or an sform.
    part = part_at((10, 5, 3), shape)
    for code in ("qform", "sform"):
        placed = []
        for volume, of in zip((whole, part), guessed, strict=True):
            header = of.header.copy()
            header[f"{code}_code"] = 1
            placed.append(Volume(volume.array, volume.affine, header=header))
        assert find_part(*placed) == box
