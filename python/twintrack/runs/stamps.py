"""What a file held when it was used: the key by which finished work is recognised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isal import isal_zlib

from twintrack.errors import InputError

_PIECE = 1 << 20


@dataclass(frozen=True)
class FileStamp:
    """Size, time of change and digest of a file.

    The digest is the CRC-32 and the Adler-32 of all its bytes, as stored (compressed or not): 64
    bits at memory speed, ten times faster than any cryptographic hash of the standard library,
    which would cost more than the voxels do. It tells apart files that changed by accident or by
    work, which is what resuming needs; it is no defence against someone who forges inputs, who
    could as well edit the results.

    Attributes
    ----------
    name
        Name of the file without its folder, so that a store can be moved.
    size
        In bytes.
    mtime_ns
        Time of the last change. A file of equal size and time is taken to be unchanged without
        reading it, as git and make do; one of another time is read and compared by its digest.
        None: compare by the digest always.
    digest
        16 hexadecimal digits.
    """

    name: str
    size: int
    mtime_ns: int | None
    digest: str

    def matches(self, path: Path) -> bool:
        """Whether `path` holds the same bytes as the stamped file."""
        try:
            found = path.stat()
            if found.st_size != self.size:
                return False
            return found.st_mtime_ns == self.mtime_ns or _digest(path) == self.digest
        except OSError:
            return False


def read_stamp(path: Path) -> FileStamp:
    """Stamp a file; reads all of it, so that what reads it next finds it in the page cache.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is being written to.
    """
    before = path.stat()
    digest = _digest(path)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InputError("changed while it was read; try again when it is complete", file=path)
    return FileStamp(path.name, before.st_size, before.st_mtime_ns, digest)


def _digest(path: Path) -> str:
    crc, adler = 0, 1
    buffer = memoryview(bytearray(_PIECE))
    with path.open("rb", buffering=0) as file:
        while filled := file.readinto(buffer):
            crc = isal_zlib.crc32(buffer[:filled], crc)
            adler = isal_zlib.adler32(buffer[:filled], adler)
    return f"{crc:08x}{adler:08x}"
