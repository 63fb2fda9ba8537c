"""Gzip in small pieces: constant memory, checksums verified, hostile sizes harmless."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from twintrack.errors import InputError

# Pieces that stay in the L2 cache between being inflated and being copied to their place.
_INPUT = 1 << 18
_OUTPUT = 1 << 18

# One deflate symbol takes at least 2 bits (length and distance) and gives at most 258 bytes.
MAX_DEFLATE_RATIO = 1032

# Bytes that may follow an array: padding, or nothing.
MAX_TRAILING = 1 << 20

# isal's levels 1 and 2 are equally fast on scores and label maps; 0 grows noise, 3 is 3x slower.
_GZIP_LEVEL = 1

_FIRST_BLOCK = 8  # bytes

_ZIP_LOCAL_HEADER = struct.Struct("<4s22xHH")


class ByteStream:
    """Reads an iterator's pieces as one file that can only be read forwards."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readinto(self, target: memoryview, *, zeroed: bool = False) -> int:
        """Fill `target` as far as the stream reaches and return the number of bytes.

        If it is `zeroed`, what is 0 already is not written: fresh memory that nobody writes to
        costs the system no pages.
        """
        filled = 0
        while filled < len(target):
            if not self._left:
                self._left = memoryview(next(self._pieces, b""))
                if not self._left:
                    break
            step = min(len(self._left), len(target) - filled)
            # NumPy copies without the lock of the interpreter, so that other threads go on.
            source = np.frombuffer(self._left[:step], np.uint8)
            if not zeroed or source.view(np.bool_).any():
                np.frombuffer(target[filled : filled + step], np.uint8)[:] = source
            self._left = self._left[step:]
            filled += step
        return filled

    def read(self, size: int = _OUTPUT, /) -> bytes:
        """Return the next `size` bytes, fewer only at the end of the stream."""
        # In pieces: a file may ask for more than it holds.
        data = bytearray()
        while len(data) < size:
            piece = memoryview(bytearray(min(size - len(data), _OUTPUT)))
            filled = self.readinto(piece)
            data += piece[:filled]
            if filled < len(piece):
                break
        return bytes(data)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes without keeping them."""
        scratch = memoryview(bytearray(min(size, _OUTPUT)))
        while size > 0:
            step = self.readinto(scratch[: min(size, _OUTPUT)])
            if step == 0:
                raise InputError(f"truncated: ends {size:,} bytes too early")
            size -= step

    def read_array(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the next `count` items as a fresh 1-D array in native byte order.

        The caller has made sure that `count` is plausible for the size of the file.
        """
        # Most of a mask, and of a score outside of the region of interest, is 0.
        array = np.zeros(count, dtype)
        filled = self.readinto(array.view(np.uint8).data, zeroed=True)
        if filled != array.nbytes:
            raise InputError(
                f"truncated: holds {filled:,} of the {array.nbytes:,} bytes its header announces"
            )
        return native(array)

    def drain(self, most: int | None = None) -> None:
        """Read to the end, where the checksums are.

        Raises
        ------
        ValueError
            The end is more than `most` bytes away: what follows is no padding, and may be endless.
        """
        passed = len(self._left)
        self._left = memoryview(b"")
        for piece in self._pieces:
            passed += len(piece)
            if most is not None and passed > most:
                raise InputError(
                    f"corrupt: more than {most:,} bytes follow the last number that its header "
                    "announces"
                )


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` in the machine's byte order, swapped in place where it may be."""
    if array.dtype.isnative:
        return array
    owned = array.flags.writeable and array.base is None
    swapped: NDArray[Any] = array.byteswap(inplace=owned).view(array.dtype.newbyteorder("="))
    return swapped


def plain(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of an uncompressed file."""
    return iter(partial(file.read, _INPUT), b"")


def gunzip(file: BinaryIO) -> Iterator[bytes]:
    """Yield the contents of all members of a gzip file.

    CRC-32 and length of each member are verified. Zeros after the last member are padding, as
    for gzip itself; anything else there is an error.
    """
    refill = partial(file.read, _INPUT)
    data = refill()
    while data:
        member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
        yield from _inflate(member, data, refill)
        data = member.unused_data or refill()
        while data.startswith(b"\0"):
            data = data.lstrip(b"\0") or refill()


@contextmanager
def gzip_into(write: Callable[[bytes], object]) -> Iterator[Callable[[memoryview], None]]:
    """Give what takes the pieces of a stream, and write them as a gzip file.

    Its bytes depend on the pieces and on how they are cut alone.

    isal (ISA-L up to 2.32 at least) hashes the address of its state where it should hash the first
    bytes of a stream: one file in thousands comes out a byte longer or shorter. So the first few
    bytes are made a block of their own, which goes through other code. At most 16 bytes do, and
    four are needed to leave the faulty state: the first piece has at least four, or there is none.
    """
    deflate = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 31)  # 31: gzip frame
    begun = False

    def put(piece: memoryview) -> None:
        nonlocal begun
        if not begun:
            begun = True
            write(deflate.compress(piece[:_FIRST_BLOCK]))
            write(deflate.flush(isal_zlib.Z_SYNC_FLUSH))
            piece = piece[_FIRST_BLOCK:]
        write(deflate.compress(piece))

    yield put
    write(deflate.flush())


def zlib_inflate(file: BinaryIO) -> Iterator[bytes]:
    """Yield the contents of a zlib stream, or of gzip, from the file's position on; checked."""
    data = file.read(_INPUT)
    kind = igzip_lib.DECOMP_GZIP if data.startswith(b"\x1f\x8b") else igzip_lib.DECOMP_ZLIB
    return _inflate(igzip_lib.IgzipDecompressor(kind), data, partial(file.read, _INPUT))


def unzip(file: BinaryIO, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the contents of one entry of a zip archive and verify its CRC-32 and length.

    ``zipfile`` reads the archive's directory; the entry itself is inflated here because
    ``zipfile`` knows zlib only, a third as fast.
    """
    if entry.flag_bits & 1:
        raise InputError(f"entry {entry.filename!r} is encrypted")
    file.seek(entry.header_offset)
    signature, name_size, extra_size = _ZIP_LOCAL_HEADER.unpack(file.read(30))
    if signature != b"PK\3\4":
        raise InputError(f"entry {entry.filename!r} is not where the zip directory says")
    file.seek(name_size + extra_size, 1)

    remaining = entry.compress_size

    def refill() -> bytes:
        nonlocal remaining
        data = file.read(min(remaining, _INPUT))
        remaining -= len(data)
        return data

    if entry.compress_type == zipfile.ZIP_DEFLATED:
        deflate = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE)
        pieces = _inflate(deflate, b"", refill)
    elif entry.compress_type == zipfile.ZIP_STORED:
        pieces = iter(refill, b"")
    else:
        raise InputError(
            f"entry {entry.filename!r} has zip compression {entry.compress_type}; "
            "write it with numpy.savez or numpy.savez_compressed"
        )

    size, crc = 0, 0
    for piece in pieces:
        size += len(piece)
        if size > entry.file_size:
            break  # it may be endless
        crc = isal_zlib.crc32(piece, crc)
        yield piece
    if size != entry.file_size or crc != entry.CRC:
        raise InputError(f"corrupt: entry {entry.filename!r} fails its CRC-32 or length check")


def _inflate(
    decompressor: igzip_lib.IgzipDecompressor, data: bytes, refill: Callable[[], bytes]
) -> Iterator[bytes]:
    """Yield what `decompressor` makes of `data` and of all that `refill` brings, to its end."""
    while not decompressor.eof:
        if decompressor.needs_input and not data:
            data = refill()
            if not data:
                raise InputError("truncated: ends in the middle of its compressed data")
        try:
            piece = decompressor.decompress(data, _OUTPUT)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub has no class
            raise InputError(f"corrupt compressed data ({error})") from error
        data = b""
        if piece:
            yield piece
