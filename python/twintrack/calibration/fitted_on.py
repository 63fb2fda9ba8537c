"""The cases that a map was fitted on: figures on them are too good, and must say so.

A calibrator file is passed on, and names of patients do not belong in it: it holds digests of the
names. They tell whether a name that one has is among them, and so whoever can guess a name can
confirm it. A score is known by the bytes of its file: the same numbers compressed in another way
are another score.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from twintrack.files import as_record

Kind = Literal["same_case", "same_score", "same_name", "same_patient", "other_score"]
"""How a case is among those that a map was fitted on.

"same_case": name and score are the same; "same_score": the score is, under another name, as of a
renamed copy; "same_name": the name is, and one of the scores is not known; "same_patient": the
patient is, with another case or score; "other_score": the name is, with another score, as of
another prediction for the same patient, or by chance.
"""

Overlap = Mapping[Kind, tuple[str, ...]]
"""Names of the cases of each kind, sorted; kinds without a case are absent."""

NOTES: Mapping[Kind, str] = {
    "same_case": "the map was fitted on this case, so its figures are too good",
    "same_score": "the map was fitted on this score under another name, so its figures are too "
    "good",
    "same_name": "the map was fitted on a case of this name, whose score is not known, so its "
    "figures are probably too good",
    "same_patient": "the map was fitted on a case of this patient, so its figures are too good",
    "other_score": "the map was fitted on a case of this name with another score: if it is the "
    "same patient, its figures are too good",
}
"""What is noted of a case of each kind."""

_SHOWN = 3  # names in a sentence


class FittedCase(NamedTuple):
    """A case that a map was fitted on.

    Attributes
    ----------
    case
        Digest of its name: the first 16 hexadecimal digits of the SHA-256 of the UTF-8 text, in
        Unicode's composed form (NFC).
    score
        Digest and size of its score's file (`twintrack.runs.fitted_cases`), None if not known.
    patient
        Digest of the patient's name, made like that of the case; None for a case that is a patient
        of its own.
    """

    case: str
    score: str | None
    patient: str | None = None

    @classmethod
    def named(cls, name: str, score: str | None = None, patient: str | None = None) -> FittedCase:
        """Return the case of this name, and of the patient of that name."""
        return cls(_digest(name), score, None if patient is None else _digest(patient))

    def of(self, patient: str) -> FittedCase:
        """Return the case as one of the patient of this name."""
        return self._replace(patient=_digest(patient))

    @property
    def of_patient(self) -> str:
        """Digest of whose case it is: a case without a patient is a patient called as the case."""
        return self.patient or self.case

    def to_json(self) -> dict[str, Any]:
        """Return the case as an object for JSON; without a patient as before there were any."""
        content = self._asdict()
        return content if self.patient else {"case": self.case, "score": self.score}

    @classmethod
    def list_from_json(cls, content: Any) -> tuple[FittedCase, ...] | None:
        """Return the cases of a list of what `to_json` made, None for None.

        Entries may have further fields. InputError if it is something else.
        """
        from twintrack.calibration.records import FittedCases  # only where files are read

        entries = as_record(content, FittedCases, place="fitted_on")
        return (
            None
            if entries is None
            else tuple(cls(one.case, one.score, one.patient) for one in entries)
        )


def _digest(name: str) -> str:
    text = unicodedata.normalize("NFC", name).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:16]


def patients_among(cases: Collection[FittedCase]) -> int | None:
    """Return the number of patients whose cases these are; None if no case names one."""
    if all(case.patient is None for case in cases):
        return None
    return len({case.of_patient for case in cases})


def find_overlap(
    fitted_on: Collection[FittedCase],
    scores: Mapping[str, str | None],
    patients: Mapping[str, str | None] | None = None,
) -> dict[Kind, tuple[str, ...]]:
    """Return which cases a map was fitted on.

    Parameters
    ----------
    fitted_on
        Of the map.
    scores
        Name of a case to digest and size of its score's file, as in `FittedCase`; None if not
        known.
    patients
        Name of a case to its patient, where the cohort names one.
    """
    by_name: dict[str, list[FittedCase]] = {}
    for fitted in fitted_on:
        by_name.setdefault(fitted.case, []).append(fitted)
    known_scores = {fitted.score for fitted in fitted_on if fitted.score is not None}
    known_patients = {fitted.of_patient for fitted in fitted_on}

    def kind_of(name: str, score: str | None) -> Kind | None:
        case = FittedCase.named(name, score, (patients or {}).get(name))
        named = by_name.get(case.case, [])
        its_scores = {fitted.score for fitted in named}
        if score in known_scores:
            return "same_case" if score in its_scores else "same_score"
        if named and (score is None or None in its_scores):
            return "same_name"
        by_name_alone = named and not any(one.patient for one in (case, *named))
        if case.of_patient in known_patients and not by_name_alone:
            return "same_patient"
        return "other_score" if named else None

    kinds = {name: kind_of(name, score) for name, score in scores.items()}
    found: dict[Kind, tuple[str, ...]] = {}
    for kind in get_args(Kind):
        names = tuple(sorted(name for name, its_kind in kinds.items() if its_kind == kind))
        if names:
            found[kind] = names
    return found


def count(overlap: Overlap) -> int:
    """Return how many cases there are, of all kinds."""
    return sum(len(names) for names in overlap.values())


def told(overlap: Overlap, cases: int) -> str:
    """Return the warning that a map was fitted on some of the `cases` that it is measured on."""
    parts = []
    for kind, names in overlap.items():
        number = f"{len(names)} of these {cases} cases"
        what = {
            "same_case": f"on {number}",
            "same_score": f"on the scores of {number}, under other names",
            "same_name": f"on cases with the names of {number}, whose scores are not known",
            "same_patient": f"on cases of the patients of {number}",
            "other_score": f"on cases with the names of {number} and other scores, perhaps of the "
            "same patients",
        }[kind]
        parts.append(f"{what} ({_first(names)})")
    doubt = "" if set(overlap) - {"other_score"} else "If they are, f"
    return (
        f"the map was fitted {'; '.join(parts)}. {doubt or 'F'}igures on them are too good; "
        "evaluate on other cases"
    )


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN] + ["…"] * (len(names) > _SHOWN))
