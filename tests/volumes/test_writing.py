"""Volumes written: read back as they were, in any order of memory, whole or not at all."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from volume_samples import AFFINE, SHAPE, scores

from twintrack.volumes import Volume, read_labels, read_score, write_volume
from twintrack.volumes.streams import gzip_into


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
        one, other = io.BytesIO(), io.BytesIO()
        with gzip_into(one.write) as put, gzip_into(other.write) as put_other:
            put(data)
            put_other(data)
        assert one.getvalue() == other.getvalue()
    assert gzip.decompress(one.getvalue()) == data
    nothing = io.BytesIO()
    with gzip_into(nothing.write):
        pass
    assert gzip.decompress(nothing.getvalue()) == b""


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
        ({"like": Volume(scores((5, 4, 2)), AFFINE, Path("ct.nii"))}, r"\(5, 4, 2\).*ct\.nii"),
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
