"""Which cases are of one patient: nodules, lesions or visits are not independent of each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from twintrack.cohort.case import Case
from twintrack.cohort.names import composed
from twintrack.errors import InputError

_PATIENT = "{patient}"


class PatientPattern:
    """A pattern that finds the patient in the name of a case, such as ``"{patient}_nodule-*"``.

    Parameters
    ----------
    text
        As patterns of files are written: ``{patient}`` once, ``{k}`` for a number, ``{k:02d}`` for
        one with leading zeros, ``*`` for any text. All of the name has to fit.

    Raises
    ------
    InputError
        ``{patient}`` is not in it once, or anything else is in braces.
    """

    def __init__(self, text: str) -> None:
        self.text = text = composed(text)
        if text.count(_PATIENT) != 1:
            raise InputError(
                f"it needs {_PATIENT} once, where the name of a case has its patient: "
                f"{_PATIENT}_nodule-*",
                argument="group",
                value=text,
            )
        self._before, self._after = map(self._compile, text.split(_PATIENT))

    def _compile(self, part: str) -> re.Pattern[str]:
        expression, literal = "", False
        for piece in filter(None, re.split(r"(\{[^}]*\}|\*)", part)):
            number = re.fullmatch(r"\{k(?::0(\d)d)?\}", piece)
            if number:
                # All of a number: no digit is left to what is not written beside it.
                begins = "" if literal else r"(?<!\d)"
                expression += rf"{begins}\d{{{number[1] or 1},}}"
            elif piece.startswith("{"):
                raise InputError(
                    f"{piece} is not one of {_PATIENT}, {{k}} and {{k:02d}}",
                    argument="group",
                    value=self.text,
                )
            else:
                expression += "(?:.*)" if piece == "*" else re.escape(piece)
            literal = piece[0] not in "{*"
        return re.compile(expression, re.DOTALL)

    def readings(self, case: str) -> list[str]:
        """Return all that may be the patient in a case's name, the shortest first."""
        ends = [end for end in range(1, len(case) + 1) if self._after.fullmatch(case, end)]
        starts = [at for at in range(len(case)) if self._before.fullmatch(case, 0, at)]
        found = {case[start:end] for start in starts for end in ends if start < end}
        return sorted(found, key=lambda patient: (len(patient), patient))


def patients_of(
    names: Iterable[str], pattern: str, known: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """Return the patient of each case, by the case's name.

    Parameters
    ----------
    names
        Of cases.
    pattern
        As `PatientPattern` has it.
    known
        Case to its patient, where that is known already.

    Raises
    ------
    InputError
        The pattern is none; names do not fit it, or fit it in more than one way, or to another
        patient than is known: names them.
    """
    made = PatientPattern(pattern)
    found = {name: made.readings(composed(name)) for name in names}
    strange = [name for name, patients in found.items() if not patients]
    if strange:
        raise InputError(
            f"{len(strange)} of {len(found)} cases do not fit it ({_first(strange)}); write it so "
            "that all names do, or name the patients in a manifest (column patient)",
            argument="group",
            value=pattern,
        )
    for name, patients in found.items():
        if len(patients) > 1:
            raise InputError(
                f"it finds {' and '.join(map(repr, patients[:3]))} in the name; write more of what "
                "the names have in common, or {k}, which stands for a number alone, or name the "
                "patients in a manifest (column patient)",
                argument="group",
                value=pattern,
                case=name,
            )
        stated = (known or {}).get(name)
        if stated not in (None, *patients):
            raise InputError(
                f"it finds {patients[0]!r}, but the case is known to be of {stated!r}; leave it "
                "out, or correct it",
                argument="group",
                value=pattern,
                case=name,
            )
    return {name: patients[0] for name, patients in found.items()}


def with_patients(cases: Sequence[Case], pattern: str | None) -> list[Case]:
    """Return cases with the patients that a pattern finds in their names; None changes nothing.

    Raises
    ------
    InputError
        As `patients_of`.
    """
    if pattern is None:
        return list(cases)
    found = patients_of([case.name for case in cases], pattern)
    return [replace(case, patient=found[case.name]) for case in cases]


def _first(texts: Sequence[str]) -> str:
    return ", ".join([*texts[:3], *["…"] * (len(texts) > 3)])
