"""Score tallies of one store or of several, as of hospitals that exchange tallies and no voxels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from twintrack.calibration.score_tally import ScoreTally
from twintrack.cohort.case import choose_cases
from twintrack.cohort.score_records import join_ensembles
from twintrack.errors import InputError
from twintrack.runs.records import Entry
from twintrack.runs.store import Store, open_stores
from twintrack.runs.stored_tallies import Known, StoredTallies
from twintrack.runs.tally_pack import PackedTally

KIND = "score-tally"

# Options that say how files of a site are read, and not what was counted: these may differ.
_OF_FILES = ("label", "ignore_label", "use_raters", "ignore_header")


@dataclass(frozen=True)
class Place:
    """A store of tallies.

    Attributes
    ----------
    folder
        Of the store.
    name
        What its cases and patients are told apart by: ``NAME/CASE``. None leaves their names as
        they are.
    """

    folder: Path
    name: str | None = None

    def called(self, name: str) -> str:
        """Return what a case or patient of the store is called among those of several stores."""
        return name if self.name is None else f"{self.name}/{name}"

    def __str__(self) -> str:
        return str(self.folder) if self.name is None else f"{self.name} ({self.folder})"


class PooledTallies(StoredTallies):
    """The tallies of several stores, as `StoredTallies` of one: in the order of the cases' names.

    Parameters
    ----------
    parts
        Each store with its tallies; no name of a case in two of them.
    """

    def __init__(self, parts: Sequence[tuple[Place, StoredTallies]]) -> None:
        self._parts = [part for _, part in parts]
        self._places: dict[str, tuple[int, str]] = {}
        known: dict[str, Known] = {}
        for number, (place, part) in enumerate(parts):
            for case, said in part.known().items():
                self._places[place.called(case)] = number, case
                patient = None if said.patient is None else place.called(said.patient)
                known[place.called(case)] = Known(said.fitted, patient)
        self._known = known
        self._pack = None  # each store has its own
        self._loads = {}
        self.cases = sorted(known)

    def entry(self, case: str) -> Entry:
        """Return the record of a case; raises as `Store.tallied`."""
        number, own = self._places[case]
        return self._parts[number].entry(own)

    def _packed(self, case: str) -> PackedTally | None:
        number, own = self._places[case]
        return self._parts[number]._packed(own)

    def _from_file(self, case: str) -> ScoreTally:
        number, own = self._places[case]
        return self._parts[number]._from_file(own)


class Pool(NamedTuple):
    """What `pool_tallies` finds.

    Attributes
    ----------
    options
        How the tallies were made, with what is known of the scores as "ensemble".
    tallies
        Cases and tallies, read when they are gone through.
    notes
        In what the stores differ that may differ.
    """

    options: Mapping[str, Any]
    tallies: StoredTallies
    notes: Sequence[str]


def pool_tallies(
    places: Sequence[Place],
    *,
    region: str | None = None,
    only: Collection[str] = (),
    without: Collection[str] = (),
    group: str | None = None,
) -> Pool:
    """Find the tallies that runs have stored, in one place or in several.

    Parameters
    ----------
    places
        The stores.
    region, only, without, group
        As in `twintrack.runs.fit.read_tallies`. Cases of a store with a name are called
        ``NAME/CASE`` here; `group` is of the names that they have in their stores.

    Raises
    ------
    FileNotFoundError, ValueError
        As `twintrack.runs.fit.read_tallies`. And of several stores: two have cases of one name, or
        of one score; the voxels that count, the tumour or the score grid differ, or scores were
        made in different ways. Names both.
    """
    stores = [_open(place, region) for place in places]
    finished = [store.complete()[0] for store in stores]
    everyone = sorted(
        place.called(case) for place, cases in zip(places, finished, strict=True) for case in cases
    )
    file = places[0].folder if len(places) == 1 else None
    chosen = set(choose_cases(everyone, only, without, file))
    holders: dict[str, Place] = {}
    parts: list[tuple[Place, StoredTallies]] = []
    options: list[tuple[Place, Mapping[str, Any]]] = []
    made: list[tuple[str, Mapping[str, Any]]] = []
    for place, store, cases in zip(places, stores, finished, strict=True):
        own = [case for case in cases if place.called(case) in chosen]
        for case in own:
            _check_name(case, place, holders.setdefault(place.called(case), place))
        entries = [entry for case in own if (entry := store.find(case)) is not None]
        made += ((place.called(case), said) for case, said in ensembles(entries))
        tallies = StoredTallies(store, own, entries)
        tallies.pack()
        if group is not None:
            tallies = tallies.with_patients(group)
        parts.append((place, tallies))
        options.append((place, store.options))
    notes = _check_options(options)
    _check_scores(parts)
    alone = parts[0][1] if len(parts) == 1 and places[0].name is None else PooledTallies(parts)
    return Pool({**options[0][1], "ensemble": join_ensembles(made)}, alone, notes)


def ensembles(entries: Iterable[Entry]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what records say of how scores were made, by case; those of earlier versions do not."""
    return ((entry.case, entry.result.get("ensemble", {})) for entry in entries)


def _open(place: Place, region: str | None) -> Store:
    sets = open_stores(place.folder, KIND)
    stores = [one for one in sets if region in (None, one.options.get("region"))]
    if len(stores) != 1:
        regions = sorted({str(one.options.get("region")) for one in sets})
        raise InputError(
            f"holds {len(stores) or 'no'} sets of tallies"
            + (f" for --region {region}" if region else "")
            + f"; there are tallies of {', '.join(regions)}"
            + ("; name one of their folders" if len(stores) > 1 else ""),
            file=place.folder,
        )
    return stores[0]


def _check_name(case: str, place: Place, other: Place) -> None:
    if place is not other:
        raise InputError(
            f"it is in {other} and in {place}; if these are two cases, tell the stores apart by "
            f"names: --tallies A={other.folder} --tallies B={place.folder}",
            case=case,
        )


def _check_options(options: Sequence[tuple[Place, Mapping[str, Any]]]) -> list[str]:
    """Raise unless the stores counted the same; return in what else they differ."""
    notes = []
    (first, here), *others = options
    for place, there in others:
        for name in {**here, **there}:
            if here.get(name) == there.get(name):
                continue
            differs = f"{name} is {_shown(here.get(name))} in {first}, {_shown(there.get(name))}"
            if name not in _OF_FILES:
                raise InputError(
                    f"{differs} here; tallies of one map must have counted the same: fit again "
                    "from the files where they differ",
                    file=place.folder,
                )
            notes.append(
                f"{differs} in {place}: right if it is how their files are written, wrong if the "
                "raters marked different things"
            )
    return notes


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "not set" if value is None else str(value)


def _check_scores(parts: Sequence[tuple[Place, StoredTallies]]) -> None:
    """Raise if a case is in two stores under different names: it would count twice."""
    seen: dict[str, tuple[Place, str]] = {}
    for place, part in parts:
        here = {}
        for case, fitted in part.fitted_cases().items():
            if fitted.score in seen:
                other, name = seen[fitted.score]
                raise InputError(
                    f"it is of the very score of case {name!r} in {other}, and would count twice; "
                    f"leave one of them out: --without {place.called(case)}",
                    case=case,
                    file=place.folder,
                )
            if fitted.score is not None:
                here[fitted.score] = place, case
        seen |= here
