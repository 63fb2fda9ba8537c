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
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

from msgspec import Meta, Struct

from twintrack.files import as_record

Kind = Literal["same_case", "same_score", "same_name", "other_score"]
"""How a case is among those that a map was fitted on.

"same_case": name and score are the same; "same_score": the score is, under another name, as of a
renamed copy; "same_name": the name is, and one of the scores is not known; "other_score": the name
is, with another score, as of another prediction for the same patient, or by chance.
"""

Overlap = Mapping[Kind, tuple[str, ...]]
"""Names of the cases of each kind, sorted; kinds without a case are absent."""

NOTES: Mapping[Kind, str] = {
    "same_case": "the map was fitted on this case, so its figures are too good",
    "same_score": "the map was fitted on this score under another name, so its figures are too "
    "good",
    "same_name": "the map was fitted on a case of this name, whose score is not known, so its "
    "figures are probably too good",
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
    """

    case: str
    score: str | None

    @classmethod
    def named(cls, name: str, score: str | None = None) -> FittedCase:
        """Return the case of this name."""
        text = unicodedata.normalize("NFC", name).encode("utf-8", "surrogatepass")
        return cls(hashlib.sha256(text).hexdigest()[:16], score)

    def to_json(self) -> dict[str, Any]:
        """Return the case as an object for JSON."""
        return self._asdict()

    @classmethod
    def list_from_json(cls, content: Any) -> tuple[FittedCase, ...] | None:
        """Return the cases of a list of what `to_json` made, None for None.

        Entries may have further fields. InputError if it is something else.
        """
        entries = as_record(content, FittedCases, place="fitted_on")
        return None if entries is None else tuple(cls(one.case, one.score) for one in entries)


class _Entry(Struct):
    case: str
    score: str | None = None


FittedCases: TypeAlias = Annotated[
    list[_Entry] | None,
    Meta(description="be null or a list of objects with case and score"),
]
"""What `FittedCase.list_from_json` takes."""


def find_overlap(
    fitted_on: Collection[FittedCase], scores: Mapping[str, str | None]
) -> dict[Kind, tuple[str, ...]]:
    """Return which cases a map was fitted on.

    Parameters
    ----------
    fitted_on
        Of the map.
    scores
        Name of a case to digest and size of its score's file, as in `FittedCase`; None if not
        known.
    """
    by_name: dict[str, set[str | None]] = {}
    for case, score in fitted_on:
        by_name.setdefault(case, set()).add(score)
    known = {score for _, score in fitted_on if score is not None}

    def kind_of(name: str, score: str | None) -> Kind | None:
        fitted = by_name.get(FittedCase.named(name).case)
        if score in known:
            return "same_case" if fitted is not None and score in fitted else "same_score"
        if fitted is None:
            return None
        return "same_name" if score is None or None in fitted else "other_score"

    kinds = {name: kind_of(name, score) for name, score in scores.items()}
    found: dict[Kind, tuple[str, ...]] = {}
    for kind in get_args(Kind):
        names = tuple(sorted(name for name, its_kind in kinds.items() if its_kind == kind))
        if names:
            found[kind] = names
    return found


OverlapRecord: TypeAlias = Annotated[
    dict[Kind, tuple[str, ...]] | None,
    Meta(description=f"be null or an object of lists of cases: {', '.join(get_args(Kind))}"),
]
"""`Overlap` as JSON has it; None if it is not known."""


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
