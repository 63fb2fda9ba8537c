"""Folders of files, made and compared."""

from __future__ import annotations

from pathlib import Path


def touch(folder: Path, *names: str) -> None:
    """Make empty files, of which only the names matter."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def content(folder: Path, pattern: str = "**/*") -> dict[str, bytes]:
    """The bytes of the files that match, by their path in the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
