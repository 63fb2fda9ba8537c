"""Folders in which a run writes files before they are renamed to their places."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: staging folders of killed runs stay until they are deleted by hand
    fcntl = None  # type: ignore[assignment]


class StoreError(OSError):
    """The store cannot be written: no case can be finished, so the run stops."""


@contextlib.contextmanager
def store_errors(folder: Path) -> Iterator[None]:
    """Turn every OSError into a StoreError that names `folder` and says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        try:
            free = f"; {shutil.disk_usage(folder).free:,} bytes are free there"
        except OSError:
            free = ""
        raise StoreError(
            error.errno,
            f"cannot be written ({error.strerror or error}{free}). Finished cases are kept: make "
            "room and run the same command again",
            str(folder),
        ) from error


@contextlib.contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Make a folder that is removed at the end, with a lock that goes however the process ends."""
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the staging folders of runs that were killed: those that nobody holds locked."""
    if fcntl is None:
        return
    for folder in parent.glob("staging-*"):
        with contextlib.suppress(OSError):  # held by a living run, or just removed by another
            lock = os.open(folder / "lock", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _make(parent: Path) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix="staging-", dir=parent))
        if fcntl is None:
            return folder, None
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # another run has taken the folder for an abandoned one
        except OSError:
            return folder, lock  # a file system without locks: nobody can take it
        else:
            if (folder / "lock").exists():
                return folder, lock
        os.close(lock)
