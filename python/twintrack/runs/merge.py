"""Joining what parts of a run have finished, on this machine or on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twintrack.errors import InputError
from twintrack.runs.editions import differing_options, newest
from twintrack.runs.records import Entry
from twintrack.runs.store import Store, check_finished, open_stores


def store_of(folder: Path) -> Path:
    """Return the store in a result folder, or `folder` itself if it is a store."""
    inside = folder / "store"
    return inside if inside.is_dir() else folder


def merge_stores(parts: Sequence[Path], target: Path, kind: str) -> Store:
    """Copy the finished cases of several stores into one, after making sure that none is missing.

    Parts that do not belong together leave the target as it was. Cases that failed in one part and
    are finished in another are finished.

    Parameters
    ----------
    parts
        Stores to join; one may be `target` itself.
    target
        Store that gets them all.
    kind
        Kind of work.

    Raises
    ------
    FileNotFoundError, ValueError
        A part is no store of this kind; parts were made with different options, or from different
        files for the same case; cases are missing, or a tally is damaged. Names the part.
    StoreError
        The target cannot be written.
    """
    opened = [(part, open_stores(part, kind)) for part in parts]
    for part, stores in opened:
        if len(stores) > 1:
            raise InputError(
                f"holds results of {len(stores)} sets of options "
                f"({', '.join(store.folder.name for store in stores)}); keep one",
                file=part,
            )
    (first, (model,)), *others = opened
    for part, (store,) in others:
        differing = differing_options(model.options, store.options)
        if not differing and store.options != model.options:
            older = part if newest([model, store]) == [model] else first
            raise InputError(
                "its figures are of an earlier edition, by formulas that have changed; "
                "repeat the run that made it",
                file=older,
            )
        if differing:
            name = differing[0]
            raise InputError(
                f"was made with another {name} than {first}; parts of one run share all options",
                file=part,
            )
    merged = Store(target, kind, model.options)
    cohort = {case for _, (store,) in opened for case in store.cohort()}
    holders = [(target, merged)] + [(part, found[0]) for part, found in opened]
    chosen: dict[str, tuple[Path, Store, Entry]] = {}
    for part, holder in holders:
        for case in sorted(cohort.intersection(holder.cases())):
            entry = holder.find(case)
            if entry is None:  # damaged: as if it were not there
                continue
            where, _, known = chosen.setdefault(case, (part, holder, entry))
            if not _same(entry, known):
                raise InputError(
                    f"case {case!r} was made from other files than in {where}; leave out "
                    "one of them",
                    file=part,
                )
    unfinished = cohort.difference(chosen)
    failures = [f for _, holder in holders for f in holder.failures() if f.case in unfinished]
    check_finished(target, cohort, chosen, failures)
    taken = [(case, holder) for case, (_, holder, _) in chosen.items() if holder is not merged]
    for case, holder in taken:
        holder.tallied(case)  # reads it: a damaged one is told while nothing has been written
    fitted_on = [cases for _, holder in holders if (cases := holder.fitted_on()) is not None]
    with merged.writing(cohort, set().union(*fitted_on) if fitted_on else None):
        for case, holder in taken:
            merged.copy_from(holder, case)
        for failure in failures:
            merged.save_failure(failure)
    return merged


def _same(one: Entry, other: Entry) -> bool:
    return {role: stamp.digest for role, stamp in one.inputs.items()} == {
        role: stamp.digest for role, stamp in other.inputs.items()
    }


def kind_of(store: Path) -> str:
    """Return the kind of work that a store holds.

    Raises
    ------
    FileNotFoundError, ValueError
        It is no store, or holds several kinds of work.
    """
    kinds = sorted({found.kind for found in open_stores(store)})
    if len(kinds) > 1:
        raise InputError(f"holds several kinds of work ({', '.join(kinds)}); keep one", file=store)
    return kinds[0]
