"""What is common to data sets that are prepared: what was made, and what is wrong with files."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from twintrack.errors import InputError
from twintrack.files import as_record
from twintrack.nnunet.images import check_finite, check_place
from twintrack.runs.engine import Settings, run_cases
from twintrack.runs.inputs import with_files_read
from twintrack.runs.job import Job, Loaded, Product
from twintrack.runs.records import Entry
from twintrack.runs.store import Store
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
    used: bool = False


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
    left
        How many cases other parts of the run have yet to do.
    """

    outputs: tuple[Path, ...]
    cases: tuple[str, ...]
    faults: list[Fault] = field(default_factory=list)
    kept: int = 0
    left: int = 0


@dataclass(frozen=True)
class PublishedCase:
    """An image, and what experts have drawn: files by their role."""

    name: str
    files: dict[str, Path]


class PrepareJob(Job[Loaded]):
    """Looks at the files of a case, and makes something of them if they can be used."""

    @property
    @abstractmethod
    def store(self) -> Path:
        """Folder of the store."""

    def files(self, case: PublishedCase) -> dict[str, Path]:
        """Return the files, and those that are read with them."""
        return with_files_read(case.files)

    def memory(self, case: PublishedCase) -> int:
        """As of all jobs; nothing of a case with a file that cannot be read, which is a fault."""
        with contextlib.suppress(OSError, ValueError):
            return super().memory(case)
        return 0

    def written(self, case: PublishedCase, entry: Entry) -> bool:  # noqa: ARG002
        """Whether a case need not be looked at again: a file may be readable the next time."""
        return all(fault.kind != "unreadable" for fault in _faults(entry))


def found(faults: Iterable[Fault], voxels: int = 0) -> Product:
    """Return what is stored of a case."""
    return Product(voxels, {"faults": [asdict(fault) for fault in faults]})


def prepare_cases(
    job: PrepareJob[Any],
    cases: Sequence[PublishedCase],
    part: Sequence[PublishedCase] | None,
    settings: Settings | None,
) -> Prepared:
    """Do the work on a part of the cases, or on all; return what is now known of all."""
    store = Store(job.store, job.kind, job.options)
    with store.writing(case.name for case in cases):
        todo = cases if part is None else part
        outcomes, _ = run_cases(todo, job, store, settings or Settings(), "Preparing")
    failures = {outcome.case: outcome.failure for outcome in outcomes if outcome.failure}
    used, faults, left = [], list[Fault](), 0
    for case in cases:
        failure, entry = failures.get(case.name), store.find(case.name)
        if failure is not None:
            file = job.files(case).get(failure.file, Path())
            of_case = [Fault(case.name, file.name, "unreadable", failure.message)]
        elif entry is None:
            left += 1
            continue
        else:
            of_case = _faults(entry)
        faults += of_case
        if all(fault.used for fault in of_case):
            used.append(case.name)
    kept = sum(outcome.state == "stored" and outcome.case in used for outcome in outcomes)
    return Prepared((), tuple(used), faults, kept, left)


def _faults(entry: Entry) -> list[Fault]:
    faults: list[Fault] = as_record(entry.result.get("faults"), list[Fault])
    return faults


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
