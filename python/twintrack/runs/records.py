"""What a store records of a case: that it is finished and from what, or why it could not be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twintrack.runs.stamps import FileStamp


@dataclass(frozen=True)
class Failure:
    """Why a case could not be finished.

    Attributes
    ----------
    case
        Its name.
    step
        "read", "compute" or "write".
    file
        Role of the file that the message is about ("score", "rater_2", …), or "".
    message
        What is wrong and what to do.
    """

    case: str
    step: str
    file: str
    message: str


@dataclass(frozen=True)
class Entry:
    """A finished case.

    Attributes
    ----------
    case
        Its name.
    inputs
        Role to stamp of the files it was made from.
    voxels
        Voxels of the case.
    result
        Figures, by name; None for those that are not defined.
    outputs
        Role to stamp of the files that were made: "tally", or volumes outside of the store.
    """

    case: str
    inputs: Mapping[str, FileStamp]
    voxels: int
    result: Mapping[str, Any]
    outputs: Mapping[str, FileStamp] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size of the input files."""
        return sum(stamp.size for stamp in self.inputs.values())

    @property
    def patient(self) -> str | None:
        """Whose case it is, as the cohort of the run said; None if it did not."""
        patient = self.result.get("patient")
        return patient if isinstance(patient, str) else None

    def of_patient(self, patient: str | None) -> Entry:
        """Return the record with what a cohort says of the patient."""
        result = {name: value for name, value in self.result.items() if name != "patient"}
        return replace(self, result=result if patient is None else {**result, "patient": patient})

    def changed(self, files: Mapping[str, Path]) -> list[str]:
        """Return the roles of files that are not what the case was made from.

        Also roles that only one of the two has.
        """
        differing = [role for role in files if role not in self.inputs]
        return differing + [
            role
            for role, stamp in self.inputs.items()
            if role not in files or not stamp.matches(files[role])
        ]

    def made_from(self, files: Mapping[str, Path]) -> bool:
        """Whether `files` (by role) are what the case was made from."""
        return not self.changed(files)

    def is_at(self, places: Mapping[str, Path]) -> bool:
        """Whether files that were made are at these places (by role) as they were written."""
        return all(
            role in self.outputs and self.outputs[role].matches(path)
            for role, path in places.items()
        )
