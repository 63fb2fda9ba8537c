"""Why a case could not be finished, in words that do not depend on where its files are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from twintrack.runs.store import Failure

__all__ = ["explain"]

# How the compiled core begins a message: the argument, and the voxel if it is about one.
_ARGUMENT = re.compile(r"(score|vessels|region|raters\[(\d+)\])(?:\[([\d, ]+)\])? ")


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
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        message = "not enough memory; run fewer cases at a time (-npp 1) or on a larger machine"
    else:
        message = str(error) or type(error).__name__
    if not isinstance(error, (ValueError, OSError, MemoryError, ImportError)):
        message = f"{type(error).__name__}: {message}"
    message = _naming_file(message.removeprefix(f"case {case!r}: "), files)

    found = {message.find(str(path)): role for role, path in files.items() if str(path) in message}
    blamed = found[min(found)] if found else ""
    # Longer paths first: one may begin like another.
    for path in sorted(set(files.values()), key=lambda path: -len(str(path))):
        message = message.replace(str(path), path.name)
    return Failure(case, step, blamed, " ".join(message.split()))


def _naming_file(message: str, files: Mapping[str, Path]) -> str:
    """Put the file where the core names its argument: ``raters[1][3, 4, 5] is 2``."""
    match = _ARGUMENT.match(message)
    if match is None:
        return message
    argument, number, voxel = match.groups()
    role = f"rater_{int(number) + 1}" if number else {"region": "roi"}.get(argument, argument)
    if role not in files:
        return message
    place = f"voxel ({voxel}) " if voxel else ""
    return f"{files[role]}: {place}{message[match.end() :]}"
