"""What a run does with one case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from twintrack.runs.memory import case_bytes
from twintrack.runs.records import Entry
from twintrack.runs.store import Store

Loaded = TypeVar("Loaded")


class AnyCase(Protocol):
    """What the engine knows of a case; all else is between the job and who makes the cases."""

    @property
    def name(self) -> str:
        """Unique in its cohort and fit to name a file."""


@dataclass(frozen=True)
class Product:
    """What came of a case.

    Attributes
    ----------
    voxels
        Voxels of the case.
    result
        Figures for the record: JSON, None where not defined.
    tally
        A tally that can be added up over the cases with ``+=``, or None.
    """

    voxels: int
    result: Mapping[str, Any]
    tally: Any = None


class Job(ABC, Generic[Loaded]):
    """One kind of work. The engine calls `read`, `compute` and `write` in turn, in several threads.

    Jobs are picklable, so that a cluster can send them to its machines.
    """

    kind: ClassVar[str]  # a part of the name of the store's folder
    step_by_step: ClassVar[bool] = False  # one case is read, one computed, one written at a time

    @property
    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """Everything that decides the result besides the files: JSON."""

    @abstractmethod
    def files(self, case: Any) -> dict[str, Path]:
        """Return role to file, for every file that decides the result."""

    def memory(self, case: Any) -> int:
        """Estimate the bytes that a case takes while it is worked on, from its headers."""
        return case_bytes(self.files(case))

    def patient(self, case: Any) -> str | None:  # noqa: ARG002
        """Return whose case it is, for records that keep it; it decides nothing of the result."""
        return None

    @abstractmethod
    def read(self, case: Any) -> Loaded:
        """Load what is needed of the files, or open them to be read while computing."""

    @abstractmethod
    def compute(self, loaded: Loaded) -> Product:
        """Do the work."""

    def write(self, case: Any, loaded: Loaded, store: Store) -> dict[str, tuple[str, Path]]:  # noqa: ARG002
        """Write outputs other than the tally: role to (name of the staged file, its place)."""
        return {}

    def written(self, case: Any, entry: Entry) -> bool:  # noqa: ARG002
        """Whether the outputs other than the tally are still where the run put them."""
        return True

    def save_tally(self, tally: Any, path: Path) -> None:
        """Write the tally of a `Product`."""
        tally.save(path)

    def load_tally(self, path: Path) -> Any:
        """Read the tally of a `Product`; for kinds that have one."""
        raise NotImplementedError(f"{self.kind} has no tally, yet there is {path}")
