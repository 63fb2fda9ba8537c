"""NRRD files, .nrrd, .nhdr and Slicer's .seg.nrrd.

ITK does not compare the checksum of compressed voxels, and damaged headers end its process. The
format: https://teem.sourceforge.net/nrrd/format.html; Slicer's segmentations:
https://apidocs.slicer.org/main/classvtkMRMLSegmentationStorageNode.html.
"""

from __future__ import annotations

import bz2
import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.files import is_file, naming
from twintrack.volumes.channels import Stored
from twintrack.volumes.geometry import LPS_TO_RAS, affine_of_axes, ghost
from twintrack.volumes.streams import MAX_DEFLATE_RATIO, ByteStream, gunzip, plain

_LARGEST_HEADER = 1 << 24  # bytes; segmentations name many segments
_MOST_BZIP2_RATIO = 1 << 17

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    **dict.fromkeys(("uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}


# Kinds of axes that ITK takes for space, and those of others that are volumes of their own.
_AXES_OF_SPACE = ("domain", "space", "time", "none", "???")
_CHANNELS = r"list|vector|point|scalar|stub|\d-vector|\d-color|rgba?-color"

_IN_RAS = {
    **dict.fromkeys(("left-posterior-superior", "lps"), LPS_TO_RAS),
    **dict.fromkeys(("right-anterior-superior", "ras"), np.eye(4)),
    **dict.fromkeys(("left-anterior-superior", "las"), np.diag([-1.0, 1.0, 1.0, 1.0])),
}

_MILLIMETRES = ("", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "none", "???")


class Segment(NamedTuple):
    """A segment of a ``.seg.nrrd`` file.

    Attributes
    ----------
    name
        As Slicer shows it.
    layer
        Number of the layer that it lies in; segments that overlap are in several layers.
    value
        Its label in that layer.
    """

    name: str
    layer: int
    value: int


@dataclass(frozen=True)
class _Header:
    """Fields of the header in small letters, the key-value pairs, and the byte where it ends."""

    fields: dict[str, str]
    pairs: dict[str, str]
    end: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the axes as they are stored, the fastest first."""
        return tuple(int(length) for length in self.fields["sizes"].split())

    @property
    def channels(self) -> int | None:
        """The axis that is none of space, as of vectors or layers; None if there is no such axis.

        Raises
        ------
        InputError
            There are several.
        """
        kinds = self.fields.get("kinds", "").lower().split()
        found = {axis for axis, direction in enumerate(self.directions) if direction is None}
        for axis, kind in enumerate(kinds[: len(self.sizes)]):
            if kind not in _AXES_OF_SPACE:
                found.add(axis)
                if not re.fullmatch(_CHANNELS, kind):
                    raise InputError(f"its axis {axis} is of the kind {kind}, which is not read")
        if len(found) > 1:
            raise InputError(f"its axes {sorted(found)} are none of space; one may be")
        return min(found, default=None)

    @property
    def directions(self) -> list[tuple[float, ...] | None]:
        """The vector of each axis, None of one that is none of space; [] if they are not stated.

        Raises
        ------
        InputError
            They are not one for each axis, of one length, and finite.
        """
        text = self.fields.get("space directions")
        if text is None:
            return []
        words = re.findall(r"none|\([^()]*\)", text)
        found = [None if word == "none" else _vector(word) for word in words]
        if len(found) != len(self.sizes) or len({len(v) for v in found if v is not None}) != 1:
            raise InputError(f"corrupt: space directions: {text}")
        return found

    @property
    def data_file(self) -> str | None:
        """Name of the file with the voxels; None if they follow the header."""
        return self.fields.get("data file", self.fields.get("datafile"))


def is_nrrd(path: Path) -> bool:
    """Whether the name of a file is that of an NRRD file."""
    return path.name.lower().endswith((".nrrd", ".nhdr"))


def read_nrrd(path: Path) -> Stored:
    """Read an NRRD file of two to four axes, and one more of channels or layers if it has one.

    Raises
    ------
    ValueError
        Truncated, corrupt or another number of axes; names `path`.
    """
    with naming(path):
        header = _read_header(path)
        dtype = _dtype(header)
        file, compressed = _voxel_file(path, header)
        _check_room(header, dtype.itemsize, file.stat().st_size)
        with file.open("rb") as opened:
            stream = ByteStream(_voxels(opened, header, dtype.itemsize, file == path, compressed))
            array = stream.read_array(math.prod(header.sizes), dtype)
            if compressed:
                stream.drain()  # to the checksum
        return _as_stored(path, header, array.reshape(header.sizes, order="F"))


def read_nrrd_header(path: Path) -> Stored:
    """Read what `read_nrrd` returns, but an array without values."""
    with naming(path):
        header = _read_header(path)
        return _as_stored(path, header, ghost(header.sizes, _dtype(header)))


def segments(path: Path) -> tuple[Segment, ...]:
    """Return the segments that a ``.seg.nrrd`` file names, in its order; none of other files."""
    if not is_nrrd(path):
        return ()
    with naming(path):
        pairs = _read_header(path).pairs
    found = []
    for number in range(len(pairs)):
        name = pairs.get(f"Segment{number}_Name", pairs.get(f"Segment{number}_ID"))
        if name is None:
            break
        layer, value = (pairs.get(f"Segment{number}_{key}", "") for key in ("Layer", "LabelValue"))
        if not (re.fullmatch(r"\d{0,6}", layer) and re.fullmatch(r"\d{0,6}", value)):
            raise InputError(f"segment {name!r} has layer {layer!r} and value {value!r}", file=path)
        found.append(Segment(name, int(layer or 0), int(value or 1)))
    return tuple(found)


def files_read(path: Path) -> list[Path]:
    """Return the file with the voxels, where they do not follow the header and it is there."""
    with contextlib.suppress(OSError, ValueError):
        file, _ = _voxel_file(path, _read_header(path))
        return [file] if file != path else []
    return []


def _read_header(path: Path) -> _Header:
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    with path.open("rb") as file:
        magic = file.readline(16)
        if not re.fullmatch(rb"NRRD000\d\r?\n", magic):
            raise InputError(f"not an NRRD file: it starts with the bytes {magic[:8].hex(' ')}")
        while line := file.readline(_LARGEST_HEADER):
            if file.tell() > _LARGEST_HEADER:
                raise InputError("corrupt: its header does not end")
            text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            if not text:
                break
            if text.startswith("#"):
                continue
            pair = re.fullmatch(r"([^:]+):=(.*)", text)
            field = re.fullmatch(r"([^:]+): *(.*)", text)
            if pair:
                pairs[pair[1]] = pair[2]
            elif field:
                fields[field[1].strip().lower()] = field[2].strip()
            else:
                raise InputError(f"corrupt: {text[:80]!r} is no line of a header")
        end = file.tell()
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in fields:
            raise InputError(f"corrupt: its header has no {name!r}")
    sizes = fields["sizes"].split()
    if not all(re.fullmatch(r"[1-9]\d{0,9}", length) for length in sizes):
        raise InputError(f"corrupt: sizes: {fields['sizes']}")
    if fields["dimension"] != str(len(sizes)) or len(sizes) not in (2, 3, 4, 5):
        raise InputError(f"has sizes {fields['sizes']}; one 3-D volume is needed")
    return _Header(fields, pairs, end)


def _as_stored(path: Path, header: _Header, array: NDArray[Any]) -> Stored:
    """Return what the file holds; a plane is 1 mm thick, and other spaces are none of a patient.

    ITK takes other spaces for that of a patient, as it writes them for two and four axes itself.
    """
    channels, fields = header.channels, header.fields
    lengths = [n for axis, n in enumerate(header.sizes) if axis != channels]
    directions = [vector for vector in header.directions if vector is not None]
    width = len(directions[0]) if directions else 0
    origin = _vector(fields["space origin"]) if "space origin" in fields else (0.0,) * width
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    if len(lengths) > 4 or (directions and not len(lengths) <= width == len(origin) <= 4):
        raise InputError(f"has {len(lengths)} axes of space in {width} dimensions")
    if wrong := [unit for unit in units if unit.strip().lower() not in _MILLIMETRES]:
        raise InputError(f"its space is in the unit {wrong[0]!r}; it must be mm")
    spacings = [] if directions else _spacings(header)
    in_ras = _IN_RAS.get(fields.get("space", "").lower())

    def affine(space: Sequence[int]) -> NDArray[np.float64] | None:
        size = max(len(lengths), width, 3)
        matrix, at = np.eye(size), np.zeros(size)
        if directions:
            matrix[:width, : len(lengths)] = np.transpose(directions)
            at[:width] = origin
            if (len(lengths), width) == (2, 3):
                normal = np.cross(directions[0], directions[1])
                matrix[:, 2] = normal / (np.linalg.norm(normal) or 1)
        elif spacings:
            matrix[range(len(lengths)), range(len(lengths))] = spacings
        else:
            return None
        with naming(path):
            found: NDArray[np.float64] = affine_of_axes(matrix, at, space)
            return (LPS_TO_RAS if in_ras is None else in_ras) @ found

    stated = "space origin" in fields and (in_ras is not None or width in (2, 4))
    return Stored(array, affine, channels=channels, stated=stated)


def _vector(text: str) -> tuple[float, ...]:
    numbers = text.strip().removeprefix("(").removesuffix(")").split(",")
    try:
        found = tuple(float(number) for number in numbers)
    except ValueError:
        found = (math.nan,)
    if not all(math.isfinite(number) for number in found):
        raise InputError(f"corrupt: {text[:80]!r} is no vector")
    return found


def _spacings(header: _Header) -> list[float]:
    """Return the distances of voxels along the axes of space; [] if they are not stated."""
    words = header.fields.get("spacings", "").split()
    if not words:
        return []
    if len(words) != len(header.sizes):
        raise InputError(f"corrupt: spacings: {header.fields['spacings']}")
    of_space = [word for axis, word in enumerate(words) if axis != header.channels]
    if all(word.lower() == "nan" for word in of_space):
        return []
    return [_vector(word)[0] for word in of_space]


def _dtype(header: _Header) -> np.dtype[Any]:
    kind = _TYPES.get(header.fields["type"].lower())
    if kind is None:
        raise InputError(f"voxels of type {header.fields['type']!r} are no real numbers")
    endian = header.fields.get("endian", "little" if kind[1] == "1" else "")
    if endian not in ("little", "big"):
        raise InputError(f"corrupt: endian is {endian!r}; it must be little or big")
    return np.dtype(("<" if endian == "little" else ">") + kind)


def _voxel_file(path: Path, header: _Header) -> tuple[Path, bool]:
    """Return the file with the voxels, and whether they are compressed."""
    encoding = header.fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz", "bzip2", "bz2"):
        raise InputError(f"voxels are written as {encoding!r}; save it with encoding raw or gzip")
    name, compressed = header.data_file, encoding != "raw"
    if name is None:
        return path, compressed
    if name.startswith("LIST") or "%" in name:
        raise InputError(f"its voxels are in several files ({name}); save it in one file")
    file = path.parent / name
    if not is_file(file):
        raise InputError(f"its voxels are in another file, {name!r}, which is not there")
    return file, compressed


def _voxels(
    file: BinaryIO, header: _Header, itemsize: int, attached: bool, compressed: bool
) -> Iterator[bytes]:
    """Yield the bytes of voxels, and read on to the checksum if there is one."""
    lines, skipped = (
        header.fields.get(f"{what} skip", header.fields.get(f"{what}skip", "0"))
        for what in ("line", "byte")
    )
    if not (re.fullmatch(r"\d{1,9}", lines) and re.fullmatch(r"-1|\d{1,18}", skipped)):
        raise InputError(f"corrupt: line skip is {lines}, byte skip {skipped}")
    file.seek(header.end if attached else 0)
    for _ in range(int(lines)):
        file.readline(_LARGEST_HEADER)
    if not compressed:
        if skipped == "-1":
            file.seek(-math.prod(header.sizes) * itemsize, 2)
        else:
            file.seek(int(skipped), 1)
        yield from plain(file)
        return
    inflate = gunzip if header.fields["encoding"].lower().startswith("g") else _bunzip
    left = int(skipped) if skipped != "-1" else 0  # of the voxels before compression
    for piece in inflate(file):
        yield piece[left:]
        left = max(0, left - len(piece))


def _bunzip(file: BinaryIO) -> Iterator[bytes]:
    try:
        with bz2.BZ2File(file) as opened:
            while piece := opened.read(1 << 18):
                yield piece
    except EOFError as error:
        raise InputError("truncated: ends in the middle of its compressed data") from error
    except OSError as error:
        raise InputError(f"corrupt compressed data ({error})") from error


def _check_room(header: _Header, itemsize: int, size: int) -> None:
    encoding = header.fields["encoding"].lower()
    ratio = {"raw": 1, "gzip": MAX_DEFLATE_RATIO, "gz": MAX_DEFLATE_RATIO}
    if math.prod(header.sizes) * itemsize > size * ratio.get(encoding, _MOST_BZIP2_RATIO):
        raise InputError(f"truncated or corrupt: {header.sizes} voxels are not in {size:,} bytes")
