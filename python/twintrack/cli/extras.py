"""What a command needs besides the core install, looked for before the work."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twintrack.cohort import Case
    from twintrack.runs.job import Job

EXTRAS = {
    "report": ("matplotlib", "jinja2"),
    "mha": ("SimpleITK",),
    "dask": ("distributed",),
    "nnunet": ("nnunetv2", "torch"),
}

_BY_SIMPLEITK = (".mha", ".mhd")


def require(extra: str, what: str) -> None:
    """Import the packages of an extra.

    Raises
    ------
    ImportError
        One cannot be imported; says what needs it and how to install it.
    """
    for package in EXTRAS[extra]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            broken = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
            raise ImportError(
                f"{what} needs {package}: pip install 'twintrack[{extra}]'{broken}"
            ) from error


def require_for(names: Iterable[Path | str]) -> None:
    """Import what reads or writes files of such names. Raises as `require`."""
    name = next((name for name in names if str(name).lower().endswith(_BY_SIMPLEITK)), None)
    if name is not None:
        require("mha", str(name))


def require_for_cases(cases: Iterable[Case], job: Job[Any]) -> None:
    """Import what reads the files that a job reads of the cases. Raises as `require`."""
    for case in cases:
        known = (case.score, *case.annotations.values(), case.vessels, case.roi)
        if any(str(path).lower().endswith(_BY_SIMPLEITK) for path in known):
            require_for(job.files(case).values())
