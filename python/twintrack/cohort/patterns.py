"""Where a case's files are: patterns such as ``{case}_*.nii.gz``, and whose else a file may be."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twintrack.cohort.names import Names, clash, composed, starting_with
from twintrack.errors import InputError
from twintrack.files import natural_order

_ANY_CASE = "\0"  # no file is called so

_NUMBER = re.compile(r"[\W_]*\d+")

_ADVICE = (
    "Use a pattern that tells them apart, such as {k}, which stands for a number alone, or name "
    "the files in a manifest"
)


@dataclass(frozen=True)
class Found:
    """A file that a pattern finds for a case.

    Attributes
    ----------
    path
        The file.
    texts
        What each wildcard stands for.
    parts
        For each component of the pattern, what comes before and after the case's name; where the
        name is not part of it, the component and None.
    """

    path: Path
    texts: tuple[str, ...]
    parts: tuple[tuple[str, str | None], ...]


class Pattern:
    """A pattern of files in a folder.

    Parameters
    ----------
    text
        ``{case}`` is the case's name, ``{k}`` a number, ``{k:02d}`` one with leading zeros, ``*``
        any text. A pattern without ``{case}`` is meant inside the case's own folder.
    folder
        What the pattern is relative to.
    names
        Returns the names in a folder.
    """

    def __init__(self, text: str, folder: Path, names: Names) -> None:
        self.text = text = composed(text)
        self._components = (text if "{case}" in text else "{case}/" + text).split("/")
        self._folder = folder
        self._names = names
        self._readings: dict[tuple[tuple[str, str | None], ...], dict[str, tuple[str, ...]]] = {}

    def find(self, case: str) -> list[Found]:
        """Return the files of a case in natural order of what the wildcards stand for.

        Raises
        ------
        InputError
            Two files, or folders, that fit have one name in two spellings of Unicode.
        """
        found = [Found(self._folder, (), ())]
        for component in self._components:
            prefix, regex = _compile(component, case)
            found = [
                Found(
                    one.path / own,
                    one.texts + _texts(match),
                    (*one.parts, _around(match, len(case))),
                )
                for one in found
                for own, match in self._matches(one.path, prefix, regex)
            ]
        return sorted(found, key=lambda one: [natural_order(text) for text in one.texts])

    def _matches(
        self, folder: Path, prefix: str, regex: re.Pattern[str]
    ) -> Iterator[tuple[str, re.Match[str]]]:
        """Yield the names in a folder that match, as they are spelled there."""
        before = ("", "")
        for name, own in starting_with(self._names(folder), prefix):
            match = regex.fullmatch(name)
            if match and (prefix or not name.startswith(".")):
                if name == before[0]:
                    raise clash((before[1], own), folder)
                before = (name, own)
                yield own, match

    def readings(self, found: Found) -> dict[str, tuple[str, ...]]:
        """Return the longer names that a file fits as well: what they add, and the texts then.

        Of ``{case}_*.nii.gz`` the file P1_2_a.nii.gz of P1 is a's of P1_2: ``{"_2": ("a",)}``.
        """
        if found.parts not in self._readings:
            self._readings[found.parts] = dict(self._read(found.parts))
        return self._readings[found.parts]

    def _read(
        self, parts: tuple[tuple[str, str | None], ...]
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        rests = [rest for _, rest in parts if rest is not None]
        shortest = min(rests, key=len)
        for length in range(1, len(shortest) + 1):
            added = shortest[:length]
            if not all(rest.startswith(added) for rest in rests):
                return
            names = [
                part if rest is None else part + _ANY_CASE + rest[length:] for part, rest in parts
            ]
            matches = [
                _of_any_case(component).fullmatch(name)
                for component, name in zip(self._components, names, strict=True)
            ]
            if all(matches):
                yield added, tuple(text for match in matches if match for text in _texts(match))

    def whole_number(self, case: str, found: Found) -> str:
        """Return the name with the digits beside it that ``*`` has taken away from its number."""
        for component, (before, rest) in zip(self._components, found.parts, strict=True):
            if rest is None:
                continue
            ahead = re.search(r"\d*$", before)
            behind = re.match(r"\d*", rest)
            if ahead and "*{case}" in component and case[:1].isdigit():
                case = ahead[0] + case
            if behind and "{case}*" in component and case[-1:].isdigit():
                case += behind[0]
        return case


def check_other_cases(
    pattern: Pattern, found: Mapping[str, Sequence[Found]], wanted: Collection[str]
) -> None:
    """Raise if a file of a wanted case is one of another case, too, whose name is longer.

    Parameters
    ----------
    pattern
        What has found the files.
    found
        The files of all cases that are known.
    wanted
        Cases whose files are to be used.

    Raises
    ------
    ValueError
        Names both cases and the file.
    """
    owners: dict[Path, list[str]] = {}
    for case, files in found.items():
        for one in files:
            owners.setdefault(one.path, []).append(case)
    for case in wanted:
        for one in found[case]:
            for other in owners[one.path]:
                if other != case and len(other) >= len(case):
                    raise _ambiguous(pattern, case, one, f"case {other!r}")
            other = pattern.whole_number(case, one)
            if other != case:
                raise _ambiguous(pattern, case, one, f"a case {other!r}")


def check_suggested_raters(
    pattern: Pattern, found: Mapping[str, Sequence[Found]], wanted: Collection[str]
) -> None:
    """Raise if an annotation of a wanted case seems to be one of a case that nobody has named.

    Of ``{case}_*.nii.gz`` the files P1_a, P1_b, P1_2_a and P1_2_b are four raters of P1, or two of
    P1 and two of P1_2. The latter is what is suggested by a rater who is known without the piece
    between, by all known raters, or by a number that all of the case's files have there. It is not
    where the piece is itself a rater, as in consensus_a_b.

    Parameters
    ----------
    pattern, found, wanted
        As of `check_other_cases`.

    Raises
    ------
    ValueError
        Names both cases and the file.
    """
    known = {one.texts for files in found.values() for one in files}
    for case in wanted:
        readings = {one: pattern.readings(one) for one in found[case]}
        own = {one.texts for one in found[case] if known.isdisjoint(readings[one].values())}
        longer: dict[str, list[Found]] = {}
        for one, others in readings.items():
            for added in others:
                longer.setdefault(added, []).append(one)
        numbered: dict[str, list[Found]] = {}
        for added, files in longer.items():
            as_longer = {readings[one][added] for one in files}
            if known & as_longer and own <= as_longer:
                raise _ambiguous(pattern, case, files[0], f"a case {case + added!r}")
            # A name that ends within a number is hardly one.
            files = [one for one in files if not _splits_number(added, one)]
            as_longer = {readings[one][added] for one in files}
            number = _NUMBER.fullmatch(added)
            if known & as_longer and (number or not _ends_with_any(added, own)):
                raise _ambiguous(pattern, case, files[0], f"a case {case + added!r}")
            if number and any(map(any, as_longer)):  # else the number is the rater
                numbered[added] = files
        covered = {one for files in numbered.values() for one in files}
        if covered and len(covered) == len(found[case]):
            added, files = min(numbered.items(), key=lambda item: len(item[1]))
            if len(numbered) == 1 or len(files) > 1:
                way = pattern.text.replace("{case}", "{case}" + added)
                raise _ambiguous(
                    pattern,
                    case,
                    files[0],
                    f"a case {case + added!r}",
                    f"Write {way!r} if it is of {case!r}. " if len(numbered) == 1 else "",
                )


def check_suggested(
    pattern: Pattern,
    found: Mapping[str, Sequence[Found]],
    wanted: Collection[str],
    annotated: Callable[[str], bool],
) -> None:
    """Raise if a wanted case's mask seems to be one of a case that nobody has named.

    Parameters
    ----------
    pattern, found, wanted
        As of `check_other_cases`.
    annotated
        Whether there are annotations of a case of that name.

    Raises
    ------
    ValueError
        Names both cases and the file.
    """
    known = {one.texts for files in found.values() for one in files}
    for case in wanted:
        for one in found[case]:
            for added, texts in pattern.readings(one).items():
                numbered = _NUMBER.fullmatch(added) and texts in known
                if numbered or annotated(case + added):
                    raise _ambiguous(pattern, case, one, f"a case {case + added!r}")


def _ambiguous(pattern: Pattern, case: str, found: Found, other: str, way: str = "") -> ValueError:
    return InputError(
        f"{pattern.text!r} finds {found.path}, which fits {other} as well. {way}{_ADVICE}",
        case=case,
    )


def _splits_number(added: str, found: Found) -> bool:
    """Whether a longer name would end within a number."""
    rest = next(rest for _, rest in found.parts if rest is not None)
    return added[-1].isdigit() and rest[len(added) :][:1].isdigit()


def _ends_with_any(added: str, texts: Collection[tuple[str, ...]]) -> bool:
    """Whether the last word that a longer name adds is what a wildcard stands for."""
    words = {text for several in texts for text in several if text}
    return any(re.search(rf"(^|[\W_]){re.escape(word)}$", added) for word in words)


def _compile(component: str, case: str) -> tuple[str, re.Pattern[str]]:
    """Return what a matching name starts with, and the expression that it matches.

    Its group "rest" is what follows the case's name.
    """
    prefix, regex, wild, inside = "", "", False, False
    for part in re.split(r"(\{[^}]*\}|\*)", component):
        number = re.fullmatch(r"\{k(?::0(\d)d)?\}", part)
        if number or part == "*":
            wild = True
            regex += rf"(\d{{{number[1] or 1},}})" if number else "(.*)"
            continue
        if part.startswith("{") and part != "{case}":
            raise InputError(f"{component!r}: {part} is not one of {{case}}, {{k}} and {{k:02d}}")
        literal = case if part == "{case}" else part
        regex += re.escape(literal)
        prefix += "" if wild else literal
        if part == "{case}" and not inside:
            inside = True
            regex += "(?P<rest>"
    return prefix, re.compile(regex + ")" * inside)


@functools.cache
def _of_any_case(component: str) -> re.Pattern[str]:
    return _compile(component, _ANY_CASE)[1]


def _texts(match: re.Match[str]) -> tuple[str, ...]:
    rest = match.re.groupindex.get("rest")
    return tuple(text for group, text in enumerate(match.groups(), 1) if group != rest)


def _around(match: re.Match[str], length: int) -> tuple[str, str | None]:
    """Return what is before and after the case's name, which has so many letters."""
    if "rest" not in match.re.groupindex:
        return match.string, None
    return match.string[: match.start("rest") - length], match["rest"]
