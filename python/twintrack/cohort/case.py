"""The files that make up a case."""

from __future__ import annotations

import errno
import glob
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from twintrack.cohort.names import composed, look_alike
from twintrack.errors import InputError


@dataclass(frozen=True)
class Case:
    """The files of one case.

    Attributes
    ----------
    name
        Unique in its cohort and fit to name a file.
    score
        Tumour probability.
    raters
        One annotation per rater, in the same order in every case; None for a rater that this case
        does not have.
    vessels
        Label map of the vessels, or None.
    roi
        Mask of the voxels that count under the rule "roi", or None.
    patient
        Whose case it is, where a patient has several: they are not independent. None: the case is
        a patient of its own, called as the case is.
    """

    name: str
    score: Path
    raters: tuple[Path | None, ...]
    vessels: Path | None = None
    roi: Path | None = None
    patient: str | None = None

    @property
    def annotations(self) -> dict[int, Path]:
        """The annotations that there are, by the number of the rater from 0."""
        return {k: path for k, path in enumerate(self.raters) if path is not None}


def check_name(name: str, file: Path | str, place: str = "") -> str:
    """Return the name at a place of a file, `composed`, if an output file can be called so."""
    name = composed(name)
    unusable = not name.isprintable() or set(name) & set("/\\") or name != name.strip()
    if not name or name.startswith(".") or unusable:
        raise InputError(f"{place}case name {name!r} cannot be used as a file name", file=file)
    return name


def choose_cases(
    names: Sequence[str],
    only: Collection[str],
    without: Collection[str],
    file: Path | None = None,
) -> list[str]:
    """Return the names that match a pattern of `only`, if there is any, and none of `without`.

    A pattern, such as ``"LUNG_*"``, that matches no name is an error, which names `file`.
    """

    def matching(patterns: Collection[str]) -> set[str]:
        found: set[str] = set()
        for pattern in map(composed, patterns):
            matches = [name for name in names if fnmatchcase(composed(name), pattern)]
            if not matches:
                hint = look_alike(pattern, names) or None
                raise InputError(f"no case matches {pattern!r}", file=file, advice=hint)
            found.update(matches)
        return found

    kept = (matching(only) if only else set(names)) - matching(without)
    return [name for name in names if name in kept]


def choose_raters(everyone: Sequence[str], numbers: Sequence[int] | None) -> list[str]:
    """Return those of all raters that have these numbers, from 1, in order; None is all of them.

    Raises
    ------
    InputError
        There is no such rater, or one is named twice.
    """
    if numbers is None:
        return list(everyone)
    for number in numbers:
        if not 1 <= number <= len(everyone) or list(numbers).count(number) > 1:
            known = ", ".join(f"{k} ({rater})" for k, rater in enumerate(everyone, 1))
            raise InputError(
                f"raters are counted from 1, and each is named once; there are {known or 'none'}",
                argument="use_raters",
                value=number,
            )
    return [everyone[number - 1] for number in sorted(numbers)]


def missing_raters(cases: Sequence[Case]) -> dict[int, list[str]]:
    """Return number of a rater from 0 to the cases that do not have him; others are absent."""
    numbers = range(max((len(case.raters) for case in cases), default=0))
    lacking = {k: [case.name for case in cases if k not in case.annotations] for k in numbers}
    return {k: names for k, names in lacking.items() if names}


def left_out(case: str) -> str:
    """Return the option that leaves out a case, as a shell and a pattern take its name."""
    return f"--without {shlex.quote(glob.escape(case))}"


def not_found(places: list[str], advice: str = "") -> FileNotFoundError:
    """Return the error that lists the first few of the files that are missing."""
    shown = "\n  ".join(places[:10] + ["…"] * (len(places) > 10) + [advice] * bool(advice))
    return FileNotFoundError(errno.ENOENT, f"{len(places)} missing:\n  {shown}")
