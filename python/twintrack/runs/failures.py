"""Why a case could not be finished, in words that do not depend on where its files are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twintrack.errors import InputError
from twintrack.runs.records import Failure


def explain(case: str, step: str, files: Mapping[str, Path], error: Exception) -> Failure:
    """Say what went wrong with a case.

    Parameters
    ----------
    case
        Its name.
    step
        "read", "compute" or "write".
    files
        Role to file. The message gets the file's name, without its folder, and the failure the
        role of the file that is to blame.
    error
        What was raised.
    """
    role = _role_to_blame(files, error)
    if isinstance(error, InputError):
        message = str(error.replaced(case=None, file=files.get(role, error.file)))
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        message = "not enough memory; run fewer cases at a time (-npp 1) or on a larger machine"
    else:
        message = str(error) or type(error).__name__
    if not isinstance(error, (ValueError, OSError, MemoryError, ImportError)):
        message = f"{type(error).__name__}: {message}"
    # Longer paths first: one may begin like another.
    for path in sorted(set(files.values()), key=lambda path: -len(str(path))):
        message = message.replace(str(path), path.name)
    return Failure(case, step, role, " ".join(message.split()))


def _role_to_blame(files: Mapping[str, Path], error: Exception) -> str:
    """Return the role of the file, or of the array that was read from it; "" if there is none."""
    roles: dict[str, str] = {}
    for role, path in files.items():
        roles.setdefault(str(path), role)
    if isinstance(error, OSError):
        return roles.get(str(error.filename), "")
    if not isinstance(error, InputError):
        return ""
    if error.file is not None:
        return roles.get(str(error.file), "")
    arguments = {f"raters[{k}]": f"rater_{k + 1}" for k in range(len(files))} | {"region": "roi"}
    role = arguments.get(error.argument or "", error.argument or "")
    return role if role in files else ""
