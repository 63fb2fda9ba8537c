"""The files that make up a case."""

from __future__ import annotations

import errno
import glob
import shlex
from collections.abc import Collection, Mapping, Sequence
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
        One annotation per rater, in the same order in every case.
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
    raters: tuple[Path, ...]
    vessels: Path | None = None
    roi: Path | None = None
    patient: str | None = None


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


def check_same_raters(
    raters: Mapping[str, Collection[str]],
    wanted: Sequence[str],
    everyone: Sequence[str],
    places: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> None:
    """Raise if a case lacks a rater.

    Parameters
    ----------
    raters
        Case to the raters that it has.
    wanted
        Those that every case has to have.
    everyone
        All raters, in the order in which ``--use-raters`` counts them.
    places, file
        Case to where in a file it lacks one.
    """
    lacking = [case for case, present in raters.items() if not set(wanted) <= set(present)]
    if not lacking:
        return
    case = lacking[0]
    absent = [rater for rater in wanted if rater not in raters[case]]
    shared = set(wanted).intersection(*raters.values())
    numbers = [str(k) for k, rater in enumerate(everyone, 1) if rater in shared]
    ways = [f"use those that every case has with --use-raters {','.join(numbers)}"] * bool(shared)
    names = " ".join(f"--without {shlex.quote(glob.escape(name))}" for name in lacking[:3])
    ways.append(f"leave out {'this case' if len(lacking) == 1 else 'such cases'} with {names}")
    more = f" (and {len(lacking) - 3} more)" if len(lacking) > 3 else ""
    raise InputError(
        f"{(places or {}).get(case, '')}it does not have {', '.join(absent)} of the raters "
        f"{', '.join(wanted)}; there are no statistics with missing raters yet, so all cases need "
        "the same",
        case=case,
        file=file,
        advice=", or ".join(ways) + more,
    )


def not_found(places: list[str], advice: str = "") -> FileNotFoundError:
    """Return the error that lists the first few of the files that are missing."""
    shown = "\n  ".join(places[:10] + ["…"] * (len(places) > 10) + [advice] * bool(advice))
    return FileNotFoundError(errno.ENOENT, f"{len(places)} missing:\n  {shown}")
