"""MetaImage files of every form, against SimpleITK, which is what most of them are written for."""

from __future__ import annotations

import gzip
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from twintrack.volumes import read_labels, read_volume
from twintrack.volumes.metaimage import files_read, read_metaimage_header

sitk = pytest.importorskip("SimpleITK")

SHAPE = (5, 4, 3)
ARRAY = np.random.default_rng(0).random(SHAPE).astype(np.float32)

# One folder serves all examples of a property: each example overwrites its files.
fuzz = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def header(place: str = "a.raw", **fields: object) -> bytes:
    """The lines of a header; a field that is None is left out."""
    lines = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "TransformMatrix": "0 1 0 -1 0 0 0 0 1",
        "Offset": "-90.5 40.25 12",
        "ElementSpacing": "0.7 0.8 2.5",
        "DimSize": "5 4 3",
        "ElementType": "MET_FLOAT",
        **fields,
        "ElementDataFile": place,
    }
    return "".join(
        f"{key} = {value}\n" for key, value in lines.items() if value is not None
    ).encode()


@dataclass(frozen=True)
class Form:
    """A header, what follows it, and the other files."""

    content: bytes
    files: dict[str, bytes] = field(default_factory=dict)
    name: str = "v.mhd"

    def write(self, folder: Path) -> Path:
        """Write all of them, the header into the folder "in"; "FOLDER" stands for the one above."""
        path = folder / "in" / self.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.content.replace(b"FOLDER", bytes(folder)))
        for name, data in self.files.items():
            (path.parent / name).parent.mkdir(exist_ok=True)
            (path.parent / name).write_bytes(data)
        return path


def raw(data: bytes, place: str = "a.raw", at: str = "", **fields: object) -> Form:
    """The voxels in another file."""
    return Form(header(place, **fields), {at or place: data})


def listed(pieces: list[bytes], place: str = "LIST", end: str = "\n", **fields: object) -> Form:
    files = {f"s{number}.raw": piece for number, piece in enumerate(pieces)}
    return Form(header(place, **fields) + "".join(name + end for name in files).encode(), files)


def numbered(pieces: list[bytes], place: str, names: str, **fields: object) -> Form:
    """A file for each piece; `names` has a place for its number, from 1 on."""
    files = {names.format(number + 1): piece for number, piece in enumerate(pieces)}
    return Form(header(place, **fields), files)


def padded(size: int, **fields: object) -> bytes:
    """A header that a comment makes so long."""
    short = len(header("LOCAL", Comment="", **fields))
    return header("LOCAL", Comment="x" * (size - short), **fields)


RAW = ARRAY.tobytes(order="F")
BIG = ARRAY.astype(">f4").tobytes(order="F")
ZLIB, GZIP = zlib.compress(RAW), gzip.compress(RAW)
SLICES = [ARRAY[..., k].tobytes(order="F") for k in range(3)]
ROWS = [ARRAY[:, j, k].tobytes() for k in range(3) for j in range(4)]
PACKED = [zlib.compress(piece) for piece in SLICES]

FORMS = {
    "local": Form(header("LOCAL") + RAW, name="v.mha"),
    "local, .mhd": Form(header("Local") + RAW),
    "local, at the end": Form(header("LOCAL", HeaderSize=-1) + b"pad" + RAW, name="v.mha"),
    "local, padded": Form(header("LOCAL") + RAW + bytes(512), name="v.mha"),
    "local, HeaderSize": Form(padded(400, HeaderSize=407) + b"1234567" + RAW, name="v.mha"),
    "local, zlib": Form(
        header("LOCAL", CompressedData="True", CompressedDataSize=len(ZLIB)) + ZLIB, name="v.mha"
    ),
    "another file": raw(RAW),
    "another file, .mha": Form(header(), {"a.raw": RAW}, "v.mha"),
    "in a folder": raw(RAW, "d/a.raw"),
    "in the folder above": raw(RAW, "../a.raw"),
    "an absolute place": raw(RAW, "FOLDER/a.raw", at="../a.raw"),
    "a blank in the name": raw(RAW, "my a.raw"),
    "an accent in the name": raw(RAW, "é.raw"),
    "padded": raw(RAW + bytes(4096)),
    "HeaderSize": raw(b"x" * 100 + RAW, HeaderSize=100),
    "HeaderSize, padded": raw(b"x" * 100 + RAW + b"y" * 9, HeaderSize=100),
    "HeaderSize and a remark": raw(b"xxx" + RAW, HeaderSize="3 (bytes)"),
    "HeaderSize of 0": raw(RAW, HeaderSize=0),
    "two HeaderSize": Form(b"HeaderSize = 5\n" + header(HeaderSize=7), {"a.raw": bytes(7) + RAW}),
    "at the end": raw(b"x" * 100 + RAW, HeaderSize=-1),
    "zlib": raw(ZLIB, "a.zraw", CompressedData="True"),
    "zlib, padded": raw(ZLIB + bytes(512), CompressedData="True"),
    "zlib, its size": raw(ZLIB + b"x", CompressedData="True", CompressedDataSize=len(ZLIB)),
    "zlib, HeaderSize": raw(
        b"12" + ZLIB, CompressedData="True", CompressedDataSize=len(ZLIB), HeaderSize=2
    ),
    "gzip": raw(GZIP, CompressedData="True"),
    "there as .gz": raw(GZIP, at="a.raw.gz"),
    "there as .Z": raw(ZLIB, at="a.raw.Z"),
    "big-endian": raw(BIG, BinaryDataByteOrderMSB="True"),
    "big-endian, other name": raw(BIG, ElementByteOrderMSB="1"),
    "big-endian, both names": raw(BIG, ElementByteOrderMSB="F", BinaryDataByteOrderMSB="true"),
    "LIST": listed(SLICES),
    "LIST of Windows": listed(SLICES, end="\r\n"),
    "LIST in .mha": Form(
        header("LIST") + b"a\nb\nc\n", dict(zip("abc", SLICES, strict=True)), "v.mha"
    ),
    "LIST 2D": listed(SLICES, "LIST 2D", end=" \n"),
    "LIST 1D": listed(ROWS, "LIST 1"),
    "LIST, zlib": listed(PACKED, CompressedData="True"),
    "LIST, at the ends": listed([b"x" * k + s for k, s in enumerate(SLICES)], HeaderSize=-1),
    "LIST, HeaderSize": listed([b"xx" + piece + b"y" for piece in SLICES], HeaderSize=2),
    "numbers": numbered(SLICES, "s%03d.raw 1 3 1", "s00{}.raw"),
    "numbers in a folder": numbered(SLICES, "d/s%d.raw 1 3 1", "d/s{}.raw"),
    "numbers from 1": numbered(SLICES, "s%03d.raw", "s00{}.raw"),
    "numbers from 21": numbered(SLICES, "s%d.raw 21", "s2{}.raw"),
    "numbers in steps": numbered(SLICES, "s%d.raw 10 30 10", "s{}0.raw"),
    "numbers, step left out": numbered(SLICES, "s%d.raw 10 40", "s{}0.raw"),
    "more numbers than slices": numbered(SLICES, "s%d.raw 1 9 1", "s{}.raw"),
    "numbers after a blank": numbered(SLICES, "my s%d.raw 1 3 1", "my s{}.raw"),
    "numbers after %": numbered(SLICES, "s%%%d.raw 1 3 1", "s%{}.raw"),
    "numbers, zlib": numbered(PACKED, "s%d.z 1 3 1", "s{}.z", CompressedData="True"),
    "line ends of Windows": Form(header().replace(b"\n", b"\r\n"), {"a.raw": RAW}),
    "colons": Form(header().replace(b" = ", b": "), {"a.raw": RAW}),
    "no blanks": Form(header().replace(b" = ", b"="), {"a.raw": RAW}),
    "indented": Form(header().replace(b"DimSize", b"\t DimSize \t"), {"a.raw": RAW}),
    "no last line end": Form(header().rstrip(), {"a.raw": RAW}),
    "a comment": raw(RAW, Comment="a = b: c", Name=""),
    "a remark": Form(b"# of a scanner\n\n" + header(), {"a.raw": RAW}),
    "keys of a scanner": raw(RAW, SeriesDescription="x" * 3000, Modality="MET_MOD_CT"),
    "no BinaryData": raw(RAW, BinaryData=None),
    "lines after the last": Form(header() + b"Color = 1\n", {"a.raw": RAW}),
}


def read_or_clean_error(path: Path) -> np.ndarray | None:
    """Read `path`; whatever is not a ValueError or OSError that names it fails the test."""
    try:
        return read_volume(path).array
    except (ValueError, OSError) as error:
        if str(path) not in str(error):
            raise AssertionError(f"does not name its file: {error}") from error
        return None


def by_itk(path: Path) -> np.ndarray:
    """The voxels as SimpleITK reads them, axes (x, y, z)."""
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_as_itk_reads_it(tmp_path, form):
    path = FORMS[form].write(tmp_path)
    volume = read_volume(path)
    np.testing.assert_array_equal(by_itk(path), ARRAY)
    np.testing.assert_array_equal(volume.array, ARRAY)
    assert volume.array.dtype == np.float32
    assert volume.array.dtype.isnative
    assert volume.array.flags.f_contiguous
    assert volume.path == path
    stored = read_metaimage_header(path)
    assert stored.array.shape == SHAPE
    affine = stored.affine_of((0, 1, 2))
    np.testing.assert_array_equal(volume.affine, affine)
    x, y, z = sitk.ReadImage(str(path)).TransformIndexToPhysicalPoint((4, 0, 2))
    np.testing.assert_allclose(affine @ (4, 0, 2, 1), [-x, -y, z, 1], rtol=1e-12)


# ITK refuses these, returns what is in memory, or ends the process.
OURS = {
    "folder of Windows": raw(RAW, "d\\a.raw", at="d/a.raw"),
    "LIST of Windows's folder": Form(
        header("LIST") + b"d\\a\nd\\b\nd\\c\n",
        {f"d/{k}": s for k, s in zip("abc", SLICES, strict=True)},
    ),
    "LIST, no last line end": Form(
        header("LIST") + b"a\nb\nc", dict(zip("abc", SLICES, strict=True))
    ),
    "numbers without a step": numbered(SLICES, "s%d.raw 1 3", "s{}.raw"),
    "numbers after many blanks": numbered(SLICES, "s%d.raw  1   3  1 ", "s{}.raw"),
    "numbers from 1, after a blank": numbered(SLICES, "my s%d.raw", "my s{}.raw"),
    "a per cent sign": raw(RAW, "50%.raw"),
    "a file whose name starts with LIST": raw(RAW, "LISTING.raw"),
    "local, zlib, no size": Form(header("LOCAL", CompressedData="True") + ZLIB, name="v.mha"),
    "zlib, HeaderSize, no size": raw(b"1234567" + ZLIB, CompressedData="True", HeaderSize=7),
    "zlib, its size too large": raw(ZLIB, CompressedData="True", CompressedDataSize=10**6),
    "zlib, its size too small": raw(ZLIB, CompressedData="True", CompressedDataSize=9),
    "capital letters": Form(header(), {"a.raw": RAW}, "V.MHD"),
}


@pytest.mark.parametrize("form", OURS)
def test_forms_that_itk_cannot_read(tmp_path, form):
    np.testing.assert_array_equal(read_volume(OURS[form].write(tmp_path)).array, ARRAY)


REFUSED = {
    "no file": (Form(header()), r"another file, 'a\.raw', which is not there"),
    "no file above": (Form(header("../a.raw")), r"'\.\./a\.raw', which is not there"),
    "no absolute file": (Form(header("FOLDER/a.raw")), r"'/.*/a\.raw', which is not there"),
    "no slice": (listed(SLICES[:2]), "lists 2 files, but DimSize asks 3"),
    "no file of a slice": (Form(header("s%d.raw 1 3 1"), {"s1.raw": SLICES[0]}), r"'s2\.raw'"),
    "too few numbers": (numbered(SLICES, "s%d.raw 1 2 1", "s{}.raw"), "2 files, .* asks 3"),
    "numbers downwards": (numbered(SLICES, "s%d.raw 3 1 1", "s{}.raw"), "files, but DimSize asks"),
    "a step of 0": (numbered(SLICES, "s%d.raw 1 3 0", "s{}.raw"), "0 files, but DimSize asks 3"),
    "a volume in LIST": (listed([RAW], "LIST 3D"), "LIST 2D names a file for each slice"),
    "a device": (raw(RAW, "/dev/zero", at="a"), "'/dev/zero', which is not there"),
    "a folder": (raw(RAW, "d", at="d/a"), "'d', which is not there"),
    "no name": (raw(RAW, "", at="a"), "nothing follows ElementDataFile"),
    "short by a byte": (raw(RAW[1:]), r"truncated: 240 bytes of voxels are not in 'a\.raw'"),
    "HeaderSize too large": (raw(b"x" * 9 + RAW, HeaderSize=10), "truncated"),
    "at the end, too short": (raw(RAW[1:], HeaderSize=-1), "truncated"),
    "HeaderSize below -1": (raw(RAW, HeaderSize=-5), "HeaderSize = '-5'; it is the bytes before"),
    "HeaderSize no number": (raw(RAW, HeaderSize="1e1"), "HeaderSize = '1e1'; it is the bytes"),
    "HeaderSize in the header": (Form(header("LOCAL", HeaderSize=9) + RAW), "do not follow it"),
    "zlib at the end": (raw(ZLIB, CompressedData="True", HeaderSize=-1), "compressed voxels start"),
    "no zlib": (raw(RAW, CompressedData="True"), r"'a\.raw': corrupt compressed data"),
    "zlib cut off": (raw(ZLIB[:-3], CompressedData="True"), r"'a\.raw': truncated"),
    "zlib of fewer voxels": (raw(zlib.compress(RAW[4:]), CompressedData="True"), "holds 236 of"),
    "a slice cut off": (listed([*PACKED[:2], PACKED[2][:-1]], CompressedData="True"), "'s2.raw'"),
    "short slice, short sum": (listed([SLICES[0] + b"1234", SLICES[1], SLICES[2][4:]]), "'s2.raw'"),
    "text": (raw(b"1 2 3", BinaryData="False"), "written as text; save it with BinaryData = True"),
    "two values a voxel": (
        raw(RAW * 2, ElementNumberOfChannels=2),
        r"\(5, 4, 3\) x 2 channels, several volumes in one",
    ),
    "values of no number": (raw(RAW, ElementNumberOfChannels="x"), "NumberOfChannels = 'x'"),
    "one axis": (raw(RAW, NDims=1, DimSize="60"), "one 3-D volume is needed"),
    "slices of a plane": (listed(SLICES, NDims=2, DimSize="20 3"), "save one file"),
    "axes below 0": (raw(RAW, NDims=-1, DimSize="5 12"), "NDims = '-1'"),
    "sizes below 0": (raw(RAW, DimSize="-5 4 3"), "DimSize = '-5 4 3'"),
    "sizes of 0": (raw(RAW, DimSize="0 4 3"), r"has \(0, 4, 3\) voxels"),
    "too few sizes": (raw(RAW, DimSize="5 12"), "NDims = 3, but DimSize = 5 12"),
    "no sizes": (raw(RAW, DimSize=None), "NDims = 3, but DimSize = "),
    "an unknown type": (raw(RAW, ElementType="MET_HALF"), "v.mhd"),
    "sizes of a bomb": (raw(RAW, DimSize="30000 30000 30000"), "truncated"),
    "a bomb": (raw(ZLIB, DimSize="9999 9999 99", CompressedData="True"), "do not fit into"),
    "a bomb of one file": (
        Form(
            header("LIST", DimSize="9999 10 99", CompressedData="True") + b"a\n" * 99, {"a": ZLIB}
        ),
        "do not fit into",
    ),
    "numbers of a bomb": (raw(RAW, "s%d.raw", "s1.raw", DimSize="1 1 999999999"), r"'s2\.raw'"),
    "a key in small letters": (
        raw(RAW, headersize=3),
        "passes over 'headersize'; write 'HeaderSize'",
    ),
    "a line that hides a key": (
        Form(header(HeaderSize=3).replace(b"HeaderSize", b"# skip\nHeaderSize"), {"a.raw": RAW}),
        "the line '# skip' has no '=', and ITK passes over 'HeaderSize' after it",
    ),
    "no end": (Form(header()[:60]), "does not end with ElementDataFile"),
    "no line ends": (Form(b"x" * (1 << 20)), "does not end with ElementDataFile"),
    "another type": (
        raw(ARRAY.astype("f8").tobytes() * 999, DimSize="5 4 2997", ElementType="MET_FLOAT"),
        r"239,760 bytes follow the 239,760 .* in 'a\.raw': .*HeaderSize = -1 at its end",
    ),
    "a large header": (raw(bytes(1 << 21) + RAW), "2,097,152 bytes follow .*HeaderSize = 0 at the"),
    "endless zeros": (
        raw(zlib.compress(RAW + bytes(1 << 24)), CompressedData="True"),
        r"'a\.raw': corrupt: more than 65,536 bytes follow the voxels",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_damaged_or_may_be_misread_is_refused(tmp_path, form):
    written, message = REFUSED[form]
    path = written.write(tmp_path)
    with pytest.raises(ValueError, match=message) as refused:
        read_labels(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("form", ["another file", "LIST", "zlib"])
def test_probabilities_lie_where_the_segmentation_beside_them_lies(tmp_path, form):
    path = FORMS[form].write(tmp_path)
    np.savez(path.with_suffix(".npz"), probabilities=np.stack([1 - ARRAY.T, ARRAY.T]))
    volume = read_volume(path.with_suffix(".npz"))
    np.testing.assert_array_equal(volume.array, ARRAY)
    np.testing.assert_array_equal(volume.affine, read_volume(path).affine)


TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2"},
    **{"MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4"},
    **{"MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}


@st.composite
def forms(draw: st.DrawFn) -> tuple[Form, np.ndarray]:
    """Any type, byte order and sizes, the voxels in any place."""
    element = draw(st.sampled_from(sorted(TYPES)))
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    numbers = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 120, shape)
    array = numbers.astype(TYPES[element])
    big, packed, at_end = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    place = draw(st.sampled_from(["LOCAL", "a.raw", "d/a.raw", "LIST", "LIST 1D", "s%02d.raw 1"]))
    count = {"LIST": shape[2], "LIST 1D": shape[1] * shape[2], "s%02d.raw 1": shape[2]}
    stored = array.astype(array.dtype.newbyteorder(">" if big else "<")).ravel(order="F")
    pieces = [part.tobytes() for part in stored.reshape(count.get(place, 1), -1)]
    pieces = [zlib.compress(piece) if packed else piece for piece in pieces]
    before, after = draw(st.binary(max_size=5)), draw(st.binary(max_size=5))
    fields: dict[str, object] = {
        "DimSize": " ".join(map(str, shape)),
        "ElementType": element,
        "BinaryDataByteOrderMSB": big,
        "CompressedData": packed,
    }
    if packed and len(pieces) == 1:
        # Without it ITK 5.4 looks for compressed voxels at the start of every file.
        fields["CompressedDataSize"] = len(pieces[0])
    elif packed or place == "LOCAL":
        before = b""
    if at_end and not packed:
        fields["HeaderSize"], after = -1, b""
    elif before and place != "LOCAL":
        fields["HeaderSize"] = len(before)
    else:
        before = b""
    pieces = [before + piece + after for piece in pieces]
    if place == "LOCAL":
        name = draw(st.sampled_from(["v.mha", "v.mhd"]))
        return Form(header(place, **fields) + pieces[0], name=name), array
    if "LIST" in place:
        return listed(pieces, place, **fields), array
    if "%" in place:
        files = {f"s{number + 1:02d}.raw": piece for number, piece in enumerate(pieces)}
        return Form(header(place, **fields), files), array
    return raw(pieces[0], place, **fields), array


@fuzz
@given(forms())
def test_any_volume_in_any_place(tmp_path, drawn):
    form, array = drawn
    path = form.write(tmp_path)
    found = read_volume(path).array
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(by_itk(path), array)


@fuzz
@given(st.data())
def test_no_damaged_volume_is_read(tmp_path, data):
    """Cut off anywhere, a file is refused by a message that names it, and never read as another."""
    form, array = data.draw(forms())
    # From the end of a file that is cut off, other bytes are the last.
    assume(b"HeaderSize = -1" not in form.content)
    path = form.write(tmp_path)
    file = path.parent / data.draw(st.sampled_from([path.name, *form.files]))
    content = file.read_bytes()
    file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    found = read_or_clean_error(path)
    if found is not None:
        np.testing.assert_array_equal(found, array)  # only what follows the voxels was cut off


@pytest.mark.parametrize("form", {**FORMS, **OURS})
def test_files_that_reading_opens(tmp_path, form, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)  # not needed for that
    written = {**FORMS, **OURS}[form]
    path = written.write(tmp_path)
    found = files_read(path)
    assert [file.resolve() for file in found] == [
        (path.parent / name).resolve() for name in written.files
    ]


def test_files_that_reading_opens_up_to_the_first_that_is_missing(tmp_path):
    form = listed(SLICES)
    path = form.write(tmp_path)
    names = [path.parent / name for name in form.files]
    assert files_read(path) == names
    names[1].unlink()
    assert files_read(path) == names[:1]
    path.write_bytes(header("s%d.raw", DimSize="1 1 999999999"))
    assert files_read(path) == []
    for content in (b"", b"\0" * 99, header()[:50], header(DimSize="a b c")):
        path.write_bytes(content)
        assert files_read(path) == []
    path.unlink()
    assert files_read(path) == []
    form = Form(header("LOCAL") + RAW, name="v.mha")
    assert files_read(form.write(tmp_path)) == []
