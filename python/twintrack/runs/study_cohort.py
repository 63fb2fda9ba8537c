"""StudyCohort: stored tallies by patient, of whom some are fitted to and others tested on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError
from twintrack.runs.pooled_tallies import KIND, Place, pool_tallies
from twintrack.runs.store import open_stores
from twintrack.runs.stored_tallies import StoredTallies

_LEAST_PATIENTS = 4  # two to fit to, two to test on


class Half(NamedTuple):
    """Patients that maps are fitted to, and those that they are tested on."""

    fitted: tuple[str, ...]
    tested: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StudyCohort:
    """The tallies of a store.

    Attributes
    ----------
    name
        What it is called in tables.
    tallies
        Those that maps are fitted to and measured on.
    region
        Which voxels they counted.
    others
        Tallies of the same cases by the other regions that the store has.
    notes
        What could not be used of the store.
    """

    name: str
    tallies: StoredTallies
    region: str
    others: Mapping[str, StoredTallies]
    notes: tuple[str, ...] = ()

    @cached_property
    def patients(self) -> dict[str, list[str]]:
        """Cases of each patient; a case without one is a patient of its own."""
        return self.tallies.groups()

    def total(self, patients: Iterable[str], region: str) -> ScoreTally:
        """Return the sum over the cases of some patients, of tallies of a region that is there."""
        tallies, groups = {**self.others, self.region: self.tallies}[region], self.patients
        wanted = [case for patient in patients for case in groups.get(patient, ())]
        there = set(tallies.cases)
        cases = [case for case in wanted if case in there]
        return tallies.of(cases).total() if cases else ScoreTally(1)


def open_cohort(
    place: Place,
    *,
    region: str | None = None,
    only: Collection[str] = (),
    without: Collection[str] = (),
    group: str | None = None,
) -> StudyCohort:
    """Open a store of tallies for a study.

    Parameters
    ----------
    place
        The store. Its name, or else that of its folder, is what it is called; names of cases and
        patients stay as they are, so that patients of two stores are known again.
    region
        Which tallies are measured; by default those of all voxels where there are any.
    only, without, group
        As in `twintrack.runs.fit.read_tallies`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `twintrack.runs.fit.read_tallies`.
    """
    there = sorted({str(one.options.get("region")) for one in open_stores(place.folder, KIND)})
    if region is None and "all" in there:
        region = "all"

    def read(region: str | None) -> tuple[str, StoredTallies]:
        found = pool_tallies(
            [Place(place.folder)], region=region, only=only, without=without, group=group
        )
        return str(found.options["region"]), found.tallies

    chosen, tallies = read(region)
    others, notes = {}, []
    for name in there:
        if name == chosen:
            continue
        try:
            _, others[name] = read(name)
        except InputError as error:
            notes.append(f"{place.folder}: tallies of the region {name} are left out: {error}")
            continue
        lacking = len(set(tallies.cases) - set(others[name].cases))
        if lacking:
            notes.append(f"{place.folder}: {lacking} cases have no tally of the region {name}")
    return StudyCohort(place.name or place.folder.name, tallies, chosen, others, tuple(notes))


def halves(cohorts: Sequence[StudyCohort], splits: int, seed: int) -> list[Half]:
    """Return so many divisions of all patients in two, the same for all cohorts.

    A patient of two cohorts is in the same half of both: no map is tested on whom it has seen.

    Raises
    ------
    InputError
        There are fewer than four patients in a cohort, or a half has none of them.
    """
    everyone = sorted({patient for cohort in cohorts for patient in cohort.patients})
    for cohort in cohorts:
        if len(cohort.patients) < _LEAST_PATIENTS:
            raise InputError(
                f"{cohort.name} has {len(cohort.patients)} patients; a study needs at least "
                f"{_LEAST_PATIENTS}: half of them are fitted to, half are tested on"
            )
    found = []
    for split in range(splits):
        order = np.random.default_rng([seed, split]).permutation(len(everyone))
        middle = (len(everyone) + 1) // 2
        half = Half(
            tuple(everyone[i] for i in order[:middle]), tuple(everyone[i] for i in order[middle:])
        )
        for cohort in cohorts:
            for patients in half:
                if not set(patients) & set(cohort.patients):
                    raise InputError(
                        f"{cohort.name} has too few patients: a random half of all has none of "
                        "them; choose another --seed, or study it alone"
                    )
        found.append(half)
    return found
