"""NRRD files as ITK and Slicer write them, whole and damaged, against SimpleITK."""

from __future__ import annotations

import bz2
import gzip
import sys

import numpy as np
import pytest

from twintrack.volumes import read_labels, read_volume
from twintrack.volumes.grid import stated_affine
from twintrack.volumes.nrrd import Segment, files_read, read_nrrd, read_nrrd_header, segments

sitk = pytest.importorskip("SimpleITK")

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def image_of(array, vector=False):
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing((0.8, 0.7, 2.5))
    image.SetOrigin((-9, 7, 12))
    image.SetDirection(DIRECTION)
    return image


def affine_of(image):
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr"])
def test_reads_what_itk_wrote(tmp_path, name, compressed, dtype):
    rng = np.random.default_rng(0)
    array = (rng.random((6, 5, 4)) * 100).astype(dtype)
    image = image_of(array)
    sitk.WriteImage(image, str(tmp_path / name), useCompression=compressed)
    volume = read_volume(tmp_path / name)
    assert volume.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array, array.T)
    np.testing.assert_allclose(volume.affine, affine_of(image), atol=1e-12)
    assert read_nrrd_header(tmp_path / name).array.shape == (4, 5, 6)
    beside = {path.name for path in tmp_path.iterdir()} - {name}
    assert {path.name for path in files_read(tmp_path / name)} == beside


HEADER = """NRRD0005
# made by hand
type: short
dimension: 3
space: right-anterior-superior
sizes: 4 5 6
space directions: (0.5,0,0) (0,2,0) (0,0,3)
encoding: {encoding}
endian: {endian}
space origin: (1,2,3)
{more}
"""


def by_hand(path, array, encoding="raw", endian="little", more="", body=None, skipped=b""):
    raw = array.T.astype({"little": "<i2", "big": ">i2"}[endian]).tobytes()
    packed = {"raw": raw, "gzip": gzip.compress(raw), "bzip2": bz2.compress(raw)}[encoding]
    header = HEADER.format(encoding=encoding, endian=endian, more=more).replace("\n\n", "\n")
    path.write_bytes(header.encode() + b"\n" + skipped + (packed if body is None else body))
    return path


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_encodings_spaces_and_byte_orders(tmp_path, encoding, endian):
    array = np.arange(120, dtype="i2").reshape(4, 5, 6)
    volume = read_volume(by_hand(tmp_path / "a.nrrd", array, encoding, endian))
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine[:3, 3], [1, 2, 3])
    np.testing.assert_allclose(np.diag(volume.affine), [0.5, 2, 3, 1])


@pytest.mark.parametrize("more", ["byte skip: 7", "line skip: 1", "byte skip: -1"])
def test_voxels_behind_something_else(tmp_path, more):
    array = np.arange(120, dtype="i2").reshape(4, 5, 6)
    path = by_hand(tmp_path / "a.nrrd", array, more=more, skipped=b"123456\n")
    np.testing.assert_array_equal(read_volume(path).array, array)


def test_every_bit_of_compressed_voxels_is_checked(tmp_path):
    """ITK reads a file whose checksum is wrong; what it gives is not what was written."""
    array = np.arange(120, dtype="i2").reshape(4, 5, 6)
    good = by_hand(tmp_path / "a.nrrd", array, "gzip").read_bytes()
    start = good.index(b"\x1f\x8b")
    for at in range(start + 10, len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        (tmp_path / "b.nrrd").write_bytes(bad)
        with pytest.raises(ValueError, match=r"b\.nrrd: (corrupt|truncated)"):
            read_volume(tmp_path / "b.nrrd")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_truncated_files_are_refused(tmp_path, encoding):
    array = np.arange(120, dtype="i2").reshape(4, 5, 6)
    good = by_hand(tmp_path / "a.nrrd", array, encoding).read_bytes()
    for left in range(0, len(good) - 1, 7):
        (tmp_path / "b.nrrd").write_bytes(good[:left])
        with pytest.raises(ValueError, match=r"b\.nrrd: "):
            read_volume(tmp_path / "b.nrrd")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type: short", "type: block", "no real numbers"),
        ("sizes: 4 5 6", "sizes: 4 5 -6", "corrupt: sizes"),
        ("sizes: 4 5 6", "sizes: 99999 99999 99999", "are not in"),
        ("dimension: 3", "dimension: 4", "one 3-D volume"),
        ("encoding: raw", "encoding: hex", "save it with encoding raw or gzip"),
        ("endian: little", "endian: middle", "little or big"),
        ("encoding: raw", "", "no 'encoding'"),
        ("encoding: raw", "encoding: raw\ndata file: gone.raw", "which is not there"),
        ("encoding: raw", "encoding: raw\ndata file: LIST", "in several files"),
        ("NRRD0005", "NIFTI", "not an NRRD file"),
        ("# made by hand", "no line", "no line of a header"),
    ],
)
def test_headers_that_say_something_else(tmp_path, old, new, message):
    path = by_hand(tmp_path / "a.nrrd", np.zeros((4, 5, 6), "i2"))
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    with pytest.raises(ValueError, match=message):
        read_volume(path)


def test_segments_in_layers(tmp_path):
    layers = np.zeros((6, 5, 4, 2), np.uint8)
    layers[1, 2, 3, 0], layers[1, 2, 3, 1], layers[4, 4, 0, 1] = 1, 2, 1
    image = image_of(layers, vector=True)
    for number, (name, layer, value) in enumerate(
        [("tumour", 0, 1), ("duct", 1, 2), ("cyst", 1, 1)]
    ):
        image.SetMetaData(f"Segment{number}_ID", f"Segment_{number}")
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_Layer", str(layer))
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
    path = tmp_path / "a.seg.nrrd"
    sitk.WriteImage(image, str(path), useCompression=True)
    assert segments(path) == (
        Segment("tumour", 0, 1),
        Segment("duct", 1, 2),
        Segment("cyst", 1, 1),
    )
    stored = read_nrrd(path)
    assert stored.channels == 0
    np.testing.assert_array_equal(stored.array, np.moveaxis(layers, -1, 0).transpose(0, 3, 2, 1))
    np.testing.assert_allclose(stored.affine_of((0, 1, 2)), affine_of(image), atol=1e-12)
    with pytest.raises(
        ValueError, match=r"x 2 channels.*--label among its segments: tumour, duct, cyst"
    ):
        read_labels(path)


def test_files_without_segments_name_none(tmp_path):
    assert segments(by_hand(tmp_path / "a.nrrd", np.zeros((4, 5, 6), "i2"))) == ()


def geometry(tmp_path, sizes, lines):
    """Write a header of zeros with these lines; return what is read of it."""
    path = tmp_path / "g.nrrd"
    text = f"NRRD0005\ntype: uint8\ndimension: {len(sizes)}\nencoding: raw\n"
    text += f"sizes: {' '.join(map(str, sizes))}\n{lines}\n\n"
    path.write_bytes(text.encode() + bytes(int(np.prod(sizes))))
    return read_labels(path), path


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
@pytest.mark.parametrize("seed", range(5))
def test_places_are_those_of_itk(tmp_path, space, seed):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.3, 5, 3)
    vectors = " ".join(f"({','.join(map(repr, map(float, v)))})" for v in turn.T)
    lines = f"space: {space}\nspace directions: {vectors}\nspace origin: (1.5,-2e1,+3)"
    volume, path = geometry(tmp_path, (4, 5, 6), lines)
    np.testing.assert_allclose(volume.affine, affine_of(sitk.ReadImage(str(path))), atol=1e-9)
    assert volume.stated


def test_places_that_are_not_stated(tmp_path):
    directions = "space directions: (0.5,0,0) (0,2,0) (0,0,3)"
    for lines, spacing, stated in [
        ("", None, False),
        ("spacings: nan nan nan", None, False),
        ("spacings: 0.5 2 3", (0.5, 2, 3), False),
        (f"space dimension: 3\n{directions}\nspace origin: (1,2,3)", (0.5, 2, 3), False),
        (f"space: scanner-xyz\n{directions}\nspace origin: (1,2,3)", (0.5, 2, 3), False),
        (f"space: LPS\n{directions}", (0.5, 2, 3), False),
        (f"space: LPS\n{directions}\nspace origin: (1,2,3)", (0.5, 2, 3), True),
    ]:
        volume, _ = geometry(tmp_path, (4, 5, 6), lines)
        assert volume.stated is stated or volume.affine is None
        assert (volume.affine is None) is (spacing is None)
        if spacing:
            assert volume.spacing == spacing
            assert (stated_affine(volume) is not None) is stated


def test_axes_of_layers_without_a_kind_and_planes_in_space(tmp_path):
    """As pynrrd writes what was given a header of three axes; ITK refuses both."""
    lines = "space: RAS\nspace directions: none (1,0,0) (0,0,2) (0,3,0)\nspace origin: (1,2,3)"
    volume, _ = geometry(tmp_path, (1, 4, 5, 6), lines)
    assert volume.array.shape == (4, 5, 6)
    np.testing.assert_array_equal(volume.affine[:3], [[1, 0, 0, 1], [0, 0, 3, 2], [0, 2, 0, 3]])
    lines = "space: RAS\nspace directions: (0,2,0) (0,0,3)\nspace origin: (1,2,3)"
    volume, _ = geometry(tmp_path, (4, 5), lines)
    np.testing.assert_array_equal(volume.affine[:3], [[0, 0, 1, 1], [2, 0, 0, 2], [0, 3, 0, 3]])
    assert volume.voxel_volume == pytest.approx(6)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("space directions: (1,0,0) (0,1,0)", "corrupt: space directions"),
        ("space directions: (1,0,0) (0,1) (0,0,1)", "corrupt: space directions"),
        ("space directions: none none none", "corrupt: space directions"),
        ("space directions: (1,0,x) (0,1,0) (0,0,1)", r"corrupt: '\(1,0,x\)' is no vector"),
        ("space directions: (1,0,nan) (0,1,0) (0,0,1)", "is no vector"),
        ("space directions: (1,0) (0,1) (1,1)", "3 axes of space in 2 dimensions"),
        ("space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,2)", "3 axes of space in"),
        ("space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,2,inf)", "is no vector"),
        ("spacings: 1 2", "corrupt: spacings"),
        ("kinds: complex domain domain", "axis 0 is of the kind complex"),
        ("kinds: list domain vector", r"axes \[0, 2\] are none of space"),
        ('space units: "um" "um" "um"', "its space is in the unit 'um'; it must be mm"),
    ],
)
def test_places_that_are_damaged_or_may_be_misread(tmp_path, lines, message):
    with pytest.raises(ValueError, match=rf"g\.nrrd: .*{message}"):
        geometry(tmp_path, (4, 5, 6), lines)


def test_reading_needs_no_simpleitk(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    array = np.arange(120, dtype="i2").reshape(4, 5, 6)
    np.testing.assert_array_equal(read_volume(by_hand(tmp_path / "a.nrrd", array)).array, array)
