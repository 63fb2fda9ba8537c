"""What is said of data sets that are prepared, whichever they are: what was made, what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from twintrack.errors import InputError
from twintrack.nnunet.images import check_finite, check_place
from twintrack.volumes import Volume, read_volume


@dataclass(frozen=True)
class Fault:
    """Something wrong with a file.

    Attributes
    ----------
    case, file
        Which.
    kind
        "missing", "unreadable", "shape", "header", "empty", "labels" or "dtype".
    message
        What is wrong.
    used
        Whether the case is used all the same.
    """

    case: str
    file: str
    kind: str
    message: str
    used: bool


@dataclass(frozen=True)
class Prepared:
    """What was made.

    Attributes
    ----------
    outputs
        Folders or files written.
    cases
        Names of the cases used.
    faults
        What was found wrong, in the order of the cases.
    kept
        How many of the cases an earlier run had made of the same files.
    """

    outputs: tuple[Path, ...]
    cases: tuple[str, ...]
    faults: list[Fault] = field(default_factory=list)
    kept: int = 0


def read_predictable(file: Path) -> Volume:
    """Read an image that can be predicted."""
    image = read_volume(file)
    check_place(image)
    check_finite(image.array, str(file))
    return image


def message_of(error: Exception) -> str:
    """Return a message without the file that it is about, which has a column of its own."""
    if isinstance(error, InputError):
        return error.replaced(advice=None).message
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def file_of(error: Exception, otherwise: Path) -> str:
    """Return the file that an error is about."""
    file = error.filename if isinstance(error, OSError) else getattr(error, "file", None)
    return str(file or otherwise)
