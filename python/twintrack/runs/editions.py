"""Editions: a number for every kind of figure that runs store, by which a changed formula is told.

Results in a store count as finished only as long as their editions are those given here. Whoever
changes what a figure is, be it a formula or a rule for special cases, raises the number of its kind
and records the new answers (``tests/runs/test_editions.py``, which fails until that is done): then
all cases are done again, and no figure of the old formula passes for one of the new. A version of
the package would not do: it changes where no formula does, and stays where one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

EDITIONS = {
    "tdsc": 1,
    "calibration": 1,  # the calibration errors, Brier score and its parts, and their tally
    "crps": 1,
    "volumes": 1,
    "vascular_invasion": 1,
    "raters": 1,  # the Brier score beyond their noise, and that of one more rater
    "contested": 1,  # disagreement of raters, and the error where they disagree
    "staple": 1,
    "score_tally": 2,  # of twintrack fit; 1 did not count the voxels with exactly k votes
    "calibrated": 2,  # volumes of twintrack apply; 1 rounded otherwise, by 2^-23 at most
}

_FIGURES = ("tdsc", "calibration", "crps", "volumes", "vascular_invasion", "raters", "contested")

# Entries of a store's options that say by which formulas, not what was asked for. Evaluations of
# earlier versions name the version of TwinTrack instead.
_ENTRIES = ("editions", "edition", "twintrack")


class _Stored(Protocol):
    kind: str
    options: dict[str, Any]


S = TypeVar("S", bound=_Stored)


def editions_of_figures(staple: bool) -> dict[str, int]:
    """Return the editions that an evaluation depends on, by kind of figure."""
    kinds = (*_FIGURES, "staple") if staple else _FIGURES
    return {kind: EDITIONS[kind] for kind in kinds}


def edition(kind: str) -> dict[str, int]:
    """Return the entry of a store's options for work of one kind.

    The first edition has none, as in stores of before there were editions: those stay valid.
    """
    return {} if EDITIONS[kind] == 1 else {"edition": EDITIONS[kind]}


def _without(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked for, whatever the editions."""
    return {name: value for name, value in options.items() if name not in _ENTRIES}


def differing_options(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the options that differ, editions apart."""
    first, second = _without(one), _without(other)
    return [name for name in {**first, **second} if first.get(name) != second.get(name)]


def newest(stores: Iterable[S]) -> list[S]:
    """Leave out stores of which there is another that differs in nothing but later editions."""
    kept: list[S] = []
    for store in stores:
        same = [other for other in kept if _asked(other) == _asked(store)]
        if any(_age(other) > _age(store) for other in same):
            continue
        kept = [other for other in kept if other not in same or _age(other) == _age(store)]
        kept.append(store)
    return kept


def _asked(store: _Stored) -> tuple[str, dict[str, Any]]:
    return store.kind, _without(store.options)


def _age(store: _Stored) -> int:
    """Return a number that grows with the editions, none of which ever falls."""
    figures = store.options.get("editions")
    numbers = [store.options.get("edition")]
    if isinstance(figures, Mapping):
        numbers += figures.values()
    return sum(number for number in numbers if isinstance(number, int))
