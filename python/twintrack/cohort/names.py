"""Names of cases and files: spellings of Unicode that are one name, and names that look alike."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from twintrack.errors import InputError

# The names in a folder, each composed and as it is spelled there, sorted.
Names = Callable[[Path], list[tuple[str, str]]]

# Cyrillic and Greek letters, each over the Latin one that it looks like.
_LETTERS = str.maketrans("авсԁеһніјкморԛѕтухαικνορτυ", "abcdehhijkmopqstyxaikvoptu")


def composed(name: str) -> str:
    """Return the spelling by which names are compared, NFC: an ü that is u and a mark is an ü."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def escaped(name: str) -> str:
    r"""Return a name in quotes, with what is not plain ASCII as ``\u00fc``."""
    return "'" + re.sub(r"[^ -~]", lambda found: f"\\u{ord(found[0]):04x}", name) + "'"


def clash(names: Iterable[str], folder: Path) -> InputError:
    """Return the error about names in a folder that are one in several spellings."""
    return InputError(
        f"it has {' and '.join(map(escaped, sorted(names)))}, which are one name in two spellings "
        "of Unicode (NFC and NFD); rename or remove one of them",
        file=folder,
    )


def names_in(folder: Path) -> list[tuple[str, str]]:
    """Return the `Names` in a folder; none if it is no folder."""
    if not folder.is_dir():
        return []
    return sorted((composed(entry.name), entry.name) for entry in folder.iterdir())


def starting_with(names: list[tuple[str, str]], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield those of sorted names that start so, without looking at the rest."""
    for index in range(bisect_left(names, (prefix,)), len(names)):
        if not names[index][0].startswith(prefix):
            return
        yield names[index]


def as_on_disk(path: Path, names: Names = names_in) -> Path:
    """Return a path as its folders spell it, as far as they have it.

    Raises
    ------
    InputError
        Several names in one folder are spellings of the one that is meant.
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    folder = as_on_disk(path.parent, names)
    wanted = composed(path.name)
    try:
        found = [own for name, own in starting_with(names(folder), wanted) if name == wanted]
    except OSError:  # what cannot be listed is told when it is opened
        found = []
    if len(found) > 1:
        raise clash(found, folder)
    return folder / (found[0] if found else path.name)


def skeleton(name: str) -> str:
    """Return what names have in common that look alike, or nearly so.

    Blanks, invisible signs, upper case, kinds of dashes, and of letters that look Latin, go.
    """
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
        signs = ((sign, unicodedata.category(sign)) for sign in name)
        name = "".join("-" if kind == "Pd" else sign for sign, kind in signs if kind != "Cf")
    return "".join(name.casefold().translate(_LETTERS).split())


def look_alike(wanted: str, names: Iterable[str]) -> str:
    """Return a sentence on the name that looks like the one that is wanted; "" if there is none."""
    alike = skeleton(wanted)
    for name in names:
        if skeleton(name) == alike and composed(name) != composed(wanted):
            return f"there is {escaped(name)}, which looks like {escaped(wanted)} but is not it"
    return ""


def look_alike_of(path: Path, names: Names = names_in) -> str:
    """Return `look_alike` for the first part of a path that is not there."""
    for folder, part in zip(reversed(path.parents), path.parts[-len(path.parents) :], strict=True):
        if not os.path.lexists(folder / part):
            with contextlib.suppress(OSError):  # a folder that cannot be listed
                return look_alike(part, (own for _, own in names(folder)))
            break
    return ""
