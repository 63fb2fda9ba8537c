"""The files that make up a case."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from twintrack.errors import InputError
from twintrack.files import natural_order


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
    """

    name: str
    score: Path
    raters: tuple[Path, ...]
    vessels: Path | None = None
    roi: Path | None = None


def check_name(name: str, file: Path | str, place: str = "") -> str:
    """Return the `name` at a place of a file if an output file can be called so."""
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
        for pattern in patterns:
            matches = [name for name in names if fnmatchcase(name, pattern)]
            if not matches:
                raise InputError(f"no case matches {pattern!r}", file=file)
            found.update(matches)
        return found

    kept = (matching(only) if only else set(names)) - matching(without)
    return [name for name in names if name in kept]


def check_same_raters(raters: dict[str, tuple[str, ...]]) -> None:
    """Raise if not every case has every rater that some case has."""
    everyone = sorted(
        {rater for present in raters.values() for rater in present}, key=natural_order
    )
    for case, present in raters.items():
        absent = [rater for rater in everyone if rater not in present]
        if absent:
            raise InputError(
                f"it has {len(present)} raters ({', '.join(present)}), but other cases also have "
                f"{', '.join(absent)}; all cases need the same raters",
                case=case,
            )


def not_found(places: list[str], advice: str = "") -> FileNotFoundError:
    """Return the error that lists the first few of the files that are missing."""
    shown = "\n  ".join(places[:10] + ["…"] * (len(places) > 10) + [advice] * bool(advice))
    return FileNotFoundError(errno.ENOENT, f"{len(places)} missing:\n  {shown}")
