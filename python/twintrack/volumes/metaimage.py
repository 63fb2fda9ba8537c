"""MetaImage files, .mha and .mhd, through SimpleITK (``pip install 'twintrack[mha]'``)."""

from __future__ import annotations

import contextlib
import errno
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.files import is_file, naming, replacing
from twintrack.volumes.channels import Stored
from twintrack.volumes.geometry import LPS_TO_RAS, affine_of_axes, ghost
from twintrack.volumes.streams import (
    MAX_DEFLATE_RATIO,
    MAX_TRAILING,
    ByteStream,
    plain,
    zlib_inflate,
)

_LONGEST_LINE, _LARGEST_HEADER = 1 << 16, 1 << 20  # bytes

# What decides voxels and geometry. ITK passes over a key in other letters without a word.
_KEYS = {
    key.lower(): key
    for key in (
        *("NDims", "DimSize", "ElementType", "ElementNumberOfChannels", "ElementDataFile"),
        *("HeaderSize", "BinaryData", "CompressedData"),
        *("ElementByteOrderMSB", "BinaryDataByteOrderMSB", "ElementSpacing", "ElementSize"),
        *("Offset", "Position", "Origin", "TransformMatrix", "Orientation", "Rotation"),
        *("FileFormatVersion", "ElementOrigin", "ElementDirection", "ImagePosition"),
    )
}

# Without any of these the header does not state a place; ITK takes 0 and the axes of the patient.
_PLACE = ("Offset", "Position", "Origin", "TransformMatrix", "Orientation", "Rotation")

# Tried by ITK where a file is not there under its own name; it takes them to be compressed.
_PACKED = (".gz", ".Z")

# name%03d.raw first last step: a file for each number, written as C's printf writes it.
_NUMBERED = re.compile(
    r"(?P<name>(?:[^%]|%%)*%[-+ 0]*\d{0,2}[diuxXo](?:[^%]|%%)*?)(?P<numbers>(?: +\d{1,9}){0,3})"
)

# Bytes that may follow the voxels of a small file; more of them are another type or size.
_SMALL_TRAILING = 1 << 16


@dataclass(frozen=True)
class _Header:
    """What the header says of the voxels.

    Attributes
    ----------
    fields
        Key to value, as written.
    end
        The byte at which the header ends.
    shape
        (x, y, z), (x, y) or (x, y, z, t).
    channels
        Numbers of each voxel, which lie side by side.
    """

    fields: dict[str, str]
    end: int
    shape: tuple[int, ...]
    channels: int

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of the array, the fastest axis first: that of the channels if there are several."""
        return self.shape if self.channels == 1 else (self.channels, *self.shape)

    @property
    def place(self) -> str:
        """What ElementDataFile says."""
        return self.fields["ElementDataFile"]

    @property
    def local(self) -> bool:
        """Whether the voxels follow the header."""
        return self.place in ("LOCAL", "Local", "local")

    def says(self, *keys: str) -> bool:
        """Whether the first of these fields that is there is true."""
        value = next((self.fields[key] for key in keys if key in self.fields), "")
        return value[:1] in ("T", "t", "1")  # as ITK asks


@dataclass(frozen=True)
class _Piece:
    """The `nbytes` bytes of voxels that are in one file, from the byte `start` on.

    `name` is what messages call the file, "" for that of the header.
    """

    file: Path
    name: str
    start: int
    nbytes: int
    compressed: bool

    @property
    def most(self) -> int:
        """How many bytes may follow the voxels; of twice as many the header tells nothing true."""
        return min(MAX_TRAILING, max(self.nbytes - 1, _SMALL_TRAILING))


def read_metaimage(path: Path) -> Stored:
    """Read a MetaImage file of two to four axes, x fastest in memory; channels are the first axis.

    The voxels are where ITK looks for them: behind the header or in another file, at its start,
    behind the bytes of HeaderSize or (-1) at its end, in a file for each slice (LIST) or number
    (``name%03d.raw 1 20 1``), as they are or compressed. They are inflated here: ITK returns
    whatever is in memory when they are damaged.

    Raises
    ------
    ImportError
        SimpleITK is not installed.
    ValueError
        Truncated, corrupt, contradictory, another number of axes or not real numbers; the message
        names `path`.
    """
    header, reader, dtype = _read_header(path)
    with naming(path):
        if "BinaryData" in header.fields and not header.says("BinaryData"):
            raise InputError("its numbers are written as text; save it with BinaryData = True")
        most_first = header.says("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
        pieces = _pieces(path, header, dtype.itemsize)
        there = sum(file.stat().st_size for file in {piece.file for piece in pieces})
        _check_room(header.stored, dtype.itemsize, there)
        stream = ByteStream(part for piece in pieces for part in _voxels(piece))
        stored = dtype.newbyteorder(">" if most_first else "<")
        array = stream.read_array(math.prod(header.stored), stored)
        stream.drain()  # to the checksum of the last file
        return _as_stored(path, header, reader, array.reshape(header.stored, order="F"))


def read_metaimage_header(path: Path) -> Stored:
    """Read what `read_metaimage` returns, but an array without values."""
    header, reader, dtype = _read_header(path)
    return _as_stored(path, header, reader, ghost(header.stored, dtype))


def _as_stored(path: Path, header: _Header, reader: Any, array: NDArray[Any]) -> Stored:
    axes = len(header.shape)
    matrix, origin = np.eye(max(axes, 3)), np.zeros(max(axes, 3))  # a plane is 1 mm thick
    matrix[:axes, :axes] = np.reshape(reader.GetDirection(), (axes, axes)) * reader.GetSpacing()
    origin[:axes] = reader.GetOrigin()

    def affine(space: Sequence[int]) -> NDArray[np.float64]:
        with naming(path):
            found: NDArray[np.float64] = LPS_TO_RAS @ affine_of_axes(matrix, origin, space)
            return found

    stated = not header.fields.keys().isdisjoint(_PLACE)
    return Stored(array, affine, channels=None if header.channels == 1 else 0, stated=stated)


def files_read(path: Path) -> list[Path]:
    """Return the files besides `path` that reading it opens, up to the first that is not there.

    Empty where the voxels follow the header, or it cannot be read. SimpleITK is not needed.
    """
    found: dict[Path, None] = {}
    with contextlib.suppress(OSError, ValueError):
        for file, _ in _named(path, _parse_header(path)):
            if not is_file(file):
                break
            found[file] = None
    return [file for file in found if file != path]


def _read_header(path: Path) -> tuple[_Header, Any, np.dtype[Any]]:
    """Return the header, the reader that ITK has of it, and the type of a number."""
    sitk = _simpleitk(path)
    with naming(path):
        header = _parse_header(path)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("MetaImageIO")  # which by itself does not know A.MHD
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        shape = tuple(int(length) for length in reader.GetSize())
        if shape != header.shape:
            raise InputError(f"corrupt: DimSize is {header.shape}, which ITK takes for {shape}")
        pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        number = re.fullmatch(
            r"(?:vector of )?(\d+)-bit (unsigned integer|signed integer|float)", pixel
        )
        if reader.GetNumberOfComponents() != header.channels or not number:
            raise InputError(f"{shape} pixels of type {pixel!r}; real numbers are needed")
        kind = {"unsigned integer": "u", "signed integer": "i", "float": "f"}[number[2]]
        dtype = np.dtype(f"{kind}{int(number[1]) // 8}")
        if header.local:
            _check_room(header.stored, dtype.itemsize, path.stat().st_size)
        return header, reader, dtype


def _parse_header(path: Path) -> _Header:
    """Read the lines ``key = value``.

    ITK reads them again for the geometry; what it would misread is refused here.
    """
    fields: dict[str, str] = {}
    loose = ""
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            line = file.readline(_LONGEST_LINE)
            if not line or len(line) == _LONGEST_LINE or file.tell() > _LARGEST_HEADER:
                raise InputError("corrupt: its header does not end with ElementDataFile = …")
            text = line.decode("utf-8", "surrogateescape").strip()
            separator = re.search("[=:]", text)
            if separator is None:
                loose = loose or text
                continue
            key = text[: separator.start()].rstrip(" \t")
            if key not in _KEYS.values() and key.lower() in _KEYS:
                raise InputError(f"ITK passes over {key!r}; write {_KEYS[key.lower()]!r}")
            if loose and key in _KEYS.values():
                raise InputError(
                    f"the line {loose[:80]!r} has no '=', and ITK passes over {key!r} after it; "
                    "write it as Comment = …"
                )
            loose = ""
            fields[key] = text[separator.start() :].lstrip("=: \t")
        end = file.tell()
    dimensions, sizes = fields.get("NDims", ""), fields.get("DimSize", "")
    if not all(re.fullmatch(r"\d{1,10}", number) for number in (dimensions, *sizes.split())):
        raise InputError(f"corrupt: NDims = {dimensions!r}, DimSize = {sizes!r}")
    shape = tuple(int(number) for number in sizes.split())
    if len(shape) != int(dimensions):
        raise InputError(f"corrupt: NDims = {dimensions}, but DimSize = {sizes}")
    if len(shape) not in (2, 3, 4) or min(shape) < 1:
        raise InputError(f"has {shape} voxels; one 3-D volume is needed")
    channels = fields.get("ElementNumberOfChannels", "1")
    if not re.fullmatch(r"[1-9]\d{0,5}", channels):
        raise InputError(f"corrupt: ElementNumberOfChannels = {channels!r}")
    if not fields["ElementDataFile"]:
        raise InputError("corrupt: nothing follows ElementDataFile =")
    return _Header(fields, end, shape, int(channels))


def _named(path: Path, header: _Header) -> Iterator[tuple[Path, bool]]:
    """Yield the files that the voxels are in, and whether each is compressed for its name alone.

    One after the other, each with as many voxels, and whether they are there or not. ITK reads the
    same files, but cannot read numbers without a step, or names with Windows' separators.
    """
    if header.local:
        yield path, False
        return
    place, slices = header.place, header.shape[-1]
    several = re.fullmatch(r"LIST( .*)?", place) or _NUMBERED.fullmatch(place)
    if several and len(header.shape) != 3:
        raise InputError(f"ElementDataFile = {place!r} with {header.shape} voxels; save one file")
    if re.fullmatch(r"LIST( .*)?", place):
        rank = re.fullmatch(r"LIST(?: +([12])[dD]?)? *", place)
        if rank is None:
            raise InputError(f"ElementDataFile = {place!r}; LIST 2D names a file for each slice")
        count = slices * (header.shape[1] if rank[1] == "1" else 1)
        with path.open("rb") as lines:
            lines.seek(header.end)
            for number in range(count):
                name = lines.readline(_LONGEST_LINE).decode("utf-8", "surrogateescape").strip()
                if not name:
                    raise InputError(f"truncated: lists {number} files, but DimSize asks {count}")
                yield _beside(path, name), False
    elif numbered := _NUMBERED.fullmatch(place):
        numbers = [int(number) for number in numbered["numbers"].split()]
        first = numbers[0] if numbers else 1
        last = numbers[1] if len(numbers) > 1 else first + slices - 1
        # Without a step ITK takes this one, or divides by zero.
        step = numbers[2] if len(numbers) > 2 else max(1, (last - first) // slices)
        count = (last - first) // step + 1 if step > 0 else 0
        if count < slices:
            raise InputError(f"{place!r} names {count} files, but DimSize asks {slices}")
        for number in range(slices):  # ITK passes over the others, too
            yield _beside(path, numbered["name"] % (first + number * step)), False
    else:
        file = _beside(path, place)
        others = (file.with_name(file.name + suffix) for suffix in _PACKED)
        other = None if is_file(file) else next(filter(is_file, others), None)
        yield other or file, other is not None


def _beside(path: Path, name: str) -> Path:
    """Return the file of that name, which may have been written with Windows' separators."""
    file = path.parent / name
    return file if is_file(file) else path.parent / name.replace("\\", "/")


def _pieces(path: Path, header: _Header, itemsize: int) -> list[_Piece]:
    """Find the voxels, all of which are there unless they are compressed."""
    found: list[tuple[Path, str, bool]] = []
    for file, packed in _named(path, header):
        within = path.parent in file.parents
        name = str(file.relative_to(path.parent) if within else file)
        if not is_file(file):
            raise InputError(f"its voxels are in another file, {name!r}, which is not there")
        found.append((file, name, packed or header.says("CompressedData")))
    nbytes = math.prod(header.stored) * itemsize // len(found)
    return [_piece(header, file, name, nbytes, packed) for file, name, packed in found]


def _piece(header: _Header, file: Path, name: str, nbytes: int, compressed: bool) -> _Piece:
    size = file.stat().st_size
    given = header.fields.get("HeaderSize", "0")
    number = re.match(r"[+-]?\d{1,18}(?![\w.])", given)
    skipped = int(number[0]) if number else -2
    if skipped < -1:
        raise InputError(
            f"HeaderSize = {given!r}; it is the bytes before the voxels, or -1 for voxels at the "
            "end of the file"
        )
    if skipped == -1 and compressed:
        raise InputError(
            "HeaderSize = -1 does not tell where compressed voxels start; give the bytes before "
            "them"
        )
    start = size - nbytes if skipped == -1 else skipped or (header.end if header.local else 0)
    piece = _Piece(file, "" if header.local else name, start, nbytes, compressed)
    if header.local and start < header.end:
        raise InputError(f"truncated or corrupt: {nbytes:,} bytes of voxels do not follow it")
    if compressed:
        return piece
    if not 0 <= start <= size - nbytes:
        raise InputError(f"truncated: {nbytes:,} bytes of voxels are not in {name!r}")
    follow = size - nbytes - start
    if follow > piece.most and "HeaderSize" not in header.fields:
        raise InputError(
            f"{follow:,} bytes follow the {nbytes:,} bytes of voxels in {name!r}: correct "
            "ElementType and DimSize, or say where the voxels are: HeaderSize = 0 at the start of "
            "the file, HeaderSize = -1 at its end"
        )
    return piece


def _voxels(piece: _Piece) -> Iterator[bytes]:
    """Yield the bytes of voxels, and read on to the checksum if there is one."""
    left = piece.nbytes
    with piece.file.open("rb") as file:
        file.seek(piece.start)
        try:
            for part in zlib_inflate(file) if piece.compressed else plain(file):
                if left > 0:
                    yield part[:left]
                left -= len(part)
                if left <= 0 and not piece.compressed:
                    return
                if left < -piece.most:  # it may be endless
                    raise InputError(f"corrupt: more than {piece.most:,} bytes follow the voxels")
            if left > 0:
                raise InputError(
                    f"truncated: holds {piece.nbytes - left:,} of the {piece.nbytes:,} bytes its "
                    "header announces"
                )
        except ValueError as error:
            raise InputError(f"{piece.name!r}: {error}" if piece.name else str(error)) from error


def _check_room(shape: tuple[int, ...], itemsize: int, size: int) -> None:
    """Raise if files of `size` bytes cannot hold the voxels, before memory is taken for them."""
    if math.prod(shape) * itemsize > size * MAX_DEFLATE_RATIO:
        raise InputError(f"corrupt: {shape} voxels do not fit into {size:,} bytes")


def write_metaimage(path: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write a compressed MetaImage file; `array` has axes (x, y, z)."""
    sitk = _simpleitk(path)
    image = sitk.GetImageFromArray(array.T)
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    with naming(path):
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    with replacing(path, array.nbytes) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OSError(errno.EIO, str(error).splitlines()[-1].strip()) from error


def _simpleitk(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            f"{path}: MetaImage files need SimpleITK: pip install 'twintrack[mha]'"
        ) from error
    return SimpleITK
