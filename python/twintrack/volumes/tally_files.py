"""Files of tallies: npz archives of integer sums that say their format and its version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.files import naming, replacing
from twintrack.volumes.numpy_files import read_arrays


def write_tally(path: Path, kind: str, version: int = 1, **arrays: Any) -> None:
    """Write the arrays of a tally of a kind, such as "case tally", whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        head: dict[str, Any] = {"format": _format(kind), "format_version": version}
        np.savez_compressed(file, **head, **arrays)


def read_tally(
    path: Path, kind: str, names: Sequence[str], largest: int, newest: int = 1
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a tally of a kind, `largest` bytes at most, of versions up to `newest`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is none of that kind, is damaged, or comes from a newer version; names the file.
    """
    found = read_arrays(path, largest)
    with naming(path):
        if str(found.get("format")) != _format(kind):
            raise InputError(f"it is not a {kind}")
        missing = [name for name in ("format_version", *names) if name not in found]
        if missing:
            raise InputError(f"it is a damaged {kind}: {', '.join(missing)} missing")
        version = int(found["format_version"])
        if version > newest:
            raise InputError(
                f"it has format version {version}, this TwinTrack reads up to {newest}: "
                "update TwinTrack"
            )
    return found


def _format(kind: str) -> str:
    return f"twintrack-{kind.replace(' ', '-')}"
