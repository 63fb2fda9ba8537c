"""Files of which only the names matter."""

from __future__ import annotations

from pathlib import Path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
