"""Failures that name their file, and files that are replaced only when whole."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SUFFIXES = (".nii.gz", ".nii", ".npz", ".npy", ".mha", ".mhd")


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
    return [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r"(\d+)", name))]


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
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def replacing(path: Path, size: int | None = None) -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` when the block ends well.

    Readers see the old file or the whole new one. The temporary file keeps the suffix (some
    writers choose the format by it) and starts with a dot, so that folder scans skip it.

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
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
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
