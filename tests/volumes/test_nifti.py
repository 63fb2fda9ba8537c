"""NIfTI files: what nibabel reads, in the file's own type; damaged ones by name."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from volume_samples import AFFINE, SHAPE, fuzz, nifti_bytes, read_or_clean_error, scores

from twintrack.volumes import read_score, read_volume, write_volume


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
