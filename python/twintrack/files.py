"""Records that are checked when read, and files that are replaced only when whole."""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import io
import json
import os
import re
import reprlib
import secrets
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import msgspec

from twintrack.errors import InputError

T = TypeVar("T")

# Volumes that say where their voxels lie, preferred first, and those of them that are written.
PLACED_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd")
WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".mha")
SUFFIXES = (*PLACED_SUFFIXES, ".npz", ".npy")

_LARGEST_JSON = 64 << 20  # bytes; nothing that is read as a whole comes near


def split_suffix(name: str) -> tuple[str, str]:
    """Split a file name into stem and volume suffix, ``""`` when it is not a volume's name.

    ``Path.suffix`` sees only the ``.gz`` of ``.nii.gz``, and cuts names such as ``case_1.2.nii``.
    """
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def natural_order(name: str) -> list[Any]:
    """Sort key that puts ``case2`` before ``case10``: text and numbers by turns."""
    # Digits without leading zeros by length, then as text: as numbers, but of any length.
    return [
        (len(part.lstrip("0")), part.lstrip("0")) if odd % 2 else part
        for odd, part in enumerate(re.split(r"(\d+)", name))
    ]


def is_file(path: Path) -> bool:
    """Whether there is such a file; also False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def check_file_place(path: Path) -> None:
    """Find out before the work that a file can be written; creates nothing.

    Raises
    ------
    OSError
        It is a folder or a device, or its folder does not exist or cannot be written; says what to
        do.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "is no regular file; name another", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "its folder does not exist; create it first", str(path)
        )
    _try_writing(path.parent, path)


def check_folder_place(path: Path) -> None:
    """Find out before the work that a folder, made if need be, can be written; creates nothing.

    Raises
    ------
    OSError
        It, or what it would be made in, is a file or cannot be written; says what to do.
    """
    # A link to nothing is there, too: no folder can be made in its place.
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR,
            "is a file; name a folder" if there == path else f"{there} is a file, not a folder",
            str(path),
        )
    _try_writing(there, path)


def _try_writing(folder: Path, path: Path) -> None:
    # Rights alone do not tell: file systems are read-only, or do not trust the superuser.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot be written ({error.strerror}): make {folder} writable or name another place",
            str(path),
        ) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is parsed into a ValueError or OSError that names it.

    The catch is broad on purpose: nibabel, zipfile and isal report bad bytes with classes that
    derive from ``Exception`` alone, and parsers meet corrupt input with IndexError, struct.error
    and the like.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        if error.errno is None:
            raise OSError(f"{path}: {error}") from error
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except MemoryError:
        raise
    except Exception as error:
        raise InputError.of(error, file=path) from error


def read_record(path: Path, kind: type[T], largest: int = _LARGEST_JSON) -> T:
    """Read a JSON file whose content is a record; see `as_record`.

    Raises
    ------
    OSError
        It cannot be opened.
    InputError
        It is larger than `largest` bytes, no JSON (NaN and infinities are none), or not such a
        record; names file and field.
    """
    if (size := path.stat().st_size) > largest:
        raise InputError(f"{size:,} bytes is too large for such a file", file=path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a JSON file ({error})", file=path) from error
    record: T = as_record(content, kind, path)
    return record


def as_record(content: Any, kind: Any, file: Path | None = None, place: str = "") -> Any:
    """Return what JSON gave as a record: a `msgspec.Struct`, or another type that msgspec checks.

    Fields that the type does not have are passed over. ``Meta(description="be …")`` says what a
    field must be, for messages.

    Parameters
    ----------
    content
        Of numbers, texts, lists and dictionaries.
    kind
        Type of the record.
    file, place
        What messages call the file, and the field in it.

    Raises
    ------
    InputError
        Names the field, its value if that is short, and what it must be.
    """
    try:
        return msgspec.convert(content, kind)
    except ValueError as error:
        raise InputError(_fault(content, kind, place, str(error)), file=file) from error


def _fault(content: Any, kind: Any, place: str, known: str) -> str:
    """Say which field is not as `kind` has it, and what it must do; else what is `known`."""
    struct = next((t for t in (kind, *get_args(kind)) if hasattr(t, "__struct_fields__")), None)
    described = [meta.description for meta in getattr(kind, "__metadata__", ())]
    if not described and struct is not None and isinstance(content, dict):
        for field in msgspec.structs.fields(struct):
            if field.required or field.encode_name in content:
                value = content.get(field.encode_name)
                try:
                    msgspec.convert(value, field.type)
                except ValueError as error:
                    inner = f"{place}.{field.encode_name}".lstrip(".")
                    return _fault(value, field.type, inner, str(error))
    is_object = struct is not None or kind is dict
    if not described and (not is_object or isinstance(content, dict)):
        return f"{place or 'it'}: {known}"
    rule = described[0] if described else "be an object"
    if content is None or isinstance(content, (list, dict)):
        return f"{place or 'it'} must {rule}"
    return f"{place or 'it'} is {reprlib.repr(content)}; it must {rule}"


def read_table(path: Path) -> tuple[list[str], dict[int, dict[str, str]]]:
    """Read a CSV file whose first row names the columns; empty rows are passed over.

    Returns
    -------
    columns, rows
        Line number to column to text, without blanks around it.

    Raises
    ------
    OSError
        It cannot be opened.
    InputError
        It is no such file, or a row has more or fewer cells than there are columns; names the row.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline=""), strict=True)
        cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text ({error}); save it as 'CSV UTF-8'", file=path) from error
    except csv.Error as error:
        raise InputError(f"row {reader.line_num}: {error}", file=path) from error
    (_, columns), *rows = [item for item in cells if any(item[1])] or [(0, [])]
    if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
        raise InputError("separated by semicolons or tabs; save it with commas", file=path)
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(f"column {column!r} appears twice", file=path)
    for number, row in rows:
        if len(row) != len(columns):
            raise InputError(
                f"row {number} has {len(row)} cells, its header has {len(columns)}", file=path
            )
    return columns, {number: dict(zip(columns, row, strict=True)) for number, row in rows}


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write a file of text; it appears whole or not at all. Raises as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _no_number(constant: str) -> NoReturn:
    raise InputError(f"{constant} is no number of JSON")


@contextmanager
def replacing(path: Path, size: int | None = None) -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` when the block ends well.

    Readers see the old file or the whole new one. The temporary file keeps the suffix (some
    writers choose the format by it) and starts with a dot, so that folder scans skip it. It is
    removed whatever ends the block; what a process that was killed has left is removed by the next
    one that writes to the folder.

    Parameters
    ----------
    path
        File to create or replace.
    size
        The most bytes the file may need; named when the disk is full.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    OSError
        Writing failed; the message names `path`, `size` and the free space.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "not written, its folder does not exist; create it first", str(path)
        )
    _remove_abandoned(path.parent)
    owner = f"{_machine()}-{os.getpid():x}"
    temporary = path.with_name(f".{owner}-{secrets.token_hex(3)}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        needed = "" if size is None else f"; up to {size:,} bytes are needed"
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            error.errno or errno.EIO,
            f"not written ({error.strerror or error}){needed}, {free:,} bytes are free there",
            str(path),
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-([0-9a-f]+)-[0-9a-f]{6}\..+")
_cleared: set[tuple[int, Path]] = set()  # folders that this process has looked through


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of processes of this machine that do not live any more."""
    folder = folder.absolute()
    if (os.getpid(), folder) in _cleared:
        return
    _cleared.add((os.getpid(), folder))
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            found = _TEMPORARY.fullmatch(entry.name)
            if found and found[1] == _machine() and not _lives(int(found[2], 16)):
                Path(entry.path).unlink(missing_ok=True)


@functools.cache
def _machine() -> str:
    """Return 8 digits for the machine, or the container, in which process numbers mean the same."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        name += str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(name.encode()):08x}"


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # a signal would end it there
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
