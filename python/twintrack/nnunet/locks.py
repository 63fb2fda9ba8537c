"""Folders that only one process may work on at a time."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def locked(lock: Path, doing: str) -> Iterator[tuple[int, ...]]:
    """Keep other processes out while the block runs.

    The lock is the operating system's and ends with the process, however that ends; the file
    stays. Only where there are no such locks is the lock the file itself.

    Yields the descriptors that keep the lock in a process that is started with them (`pass_fds`):
    it may outlive this one, if that is killed.

    Parameters
    ----------
    lock
        File of the lock; its folder is made.
    doing
        What the holder does, for the error of the others: "trains this network".

    Raises
    ------
    BlockingIOError
        Another process has the lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            _lock(file.fileno())
        except BlockingIOError as error:
            raise BlockingIOError(
                errno.EWOULDBLOCK, f"another process {doing}; wait until it is done", str(lock)
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        else:
            yield (file.fileno(),)
            return
    with _exclusive_file(lock.with_name(lock.name + ".held"), doing):
        yield ()


def _lock(descriptor: int) -> None:
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _exclusive_file(lock: Path, doing: str) -> Iterator[None]:
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise BlockingIOError(
            errno.EWOULDBLOCK,
            f"another process {doing}; wait until it is done, or delete this file if there is none",
            str(lock),
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            lock.unlink()
