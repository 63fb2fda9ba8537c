"""The store: what runs have finished, kept so that it survives whatever ends them.

Version 1 of the format. A store is a folder with a subfolder for every kind of work and set of
options::

    STORE/KIND-KEY/options.json        what decides the results besides the inputs
    STORE/KIND-KEY/cohort.json         names of all cases of the last run, finished or not
    STORE/KIND-KEY/fitted_on.json      what the map of an evaluation was fitted on, if it is known
    STORE/KIND-KEY/cases/CASE.json     a finished case
    STORE/KIND-KEY/cases/CASE.npz      its tally, for kinds that have one
    STORE/KIND-KEY/failures/CASE.json  why a case could not be finished
    STORE/KIND-KEY/staging-*/          files that a run is writing; no others are ever incomplete

KIND is "score-tally", "evaluation", "calibrated", "predicted", "prepared" or "examined"; KEY is the
beginning of the SHA-256 of the options. options.json holds ``format`` ("twintrack-store"),
``format_version``, ``kind`` and ``options``; cohort.json ``cases``; fitted_on.json ``fitted_on``,
as in the calibrator file. A record CASE.json holds ``format_version``, ``case``, ``inputs`` (role,
see `twintrack.runs.inputs`, to `FileStamp`), ``voxels``, ``result`` and ``outputs`` (the role
"tally", or that of a volume, to `FileStamp`). ``result`` is ``voxels_in_region``, ``ensemble``
(what is known of how the score was made) and, where a score is a crop, ``marked_outside`` (voxels
that raters mark outside of it, over all raters) for score tallies; for evaluations ``figures``
(name to number, null where not defined, absent where the case does not have it); for prepared data
sets ``faults``; for score tallies and evaluations ``patient``, where the cohort names one; and for
all kinds, where there are any, ``notes``, what to tell of the case.
CASE.npz holds plain arrays: those of `ScoreTally.save`, or the integer sums of a `CaseTally` by
name (``votes``, ``score_bins``, ``confidence_bins``, ``squares``, ``rater_scores``). All text is
UTF-8.

Why a run can be killed at any moment, and two runs can share a folder: a file is written in a
folder of its own and renamed into its place when whole; CASE.json comes last and names the content
of the others; what does not fit together counts as not done. Nothing is ever changed in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from twintrack.calibration.fitted_on import FittedCase
from twintrack.errors import InputError
from twintrack.files import as_record, read_record
from twintrack.runs.editions import newest
from twintrack.runs.records import Entry, Failure
from twintrack.runs.staging import remove_abandoned, staging_folder, store_errors
from twintrack.runs.stamps import FileStamp, read_stamp

T = TypeVar("T")

FORMAT = "twintrack-store"
FORMAT_VERSION = 1


class _Cohort(Struct):
    cases: list[str]


class _Description(Struct):
    format: str
    kind: str
    options: dict[str, Any]


class Store:
    """The finished cases of one kind of work with one set of options.

    Parameters
    ----------
    root
        Folder of the store; created if it does not exist.
    kind
        Kind of work.
    options
        All that decides the results besides the inputs; must be JSON. Work that was done with other
        options is in another subfolder and is not seen.
    """

    def __init__(self, root: Path, kind: str, options: Mapping[str, Any]) -> None:
        self.kind = kind
        self.options: dict[str, Any] = dict(options)
        self.folder: Path = root / f"{kind}-{_key(kind, options)}"
        self._staging: Path | None = None

    # --- reading ------------------------------------------------------------------------------

    def cases(self) -> list[str]:
        """Names of the cases that have a record, sorted."""
        return sorted(path.stem for path in (self.folder / "cases").glob("[!.]*.json"))

    def find(self, case: str) -> Entry | None:
        """Return the record of a case, None if there is none or it is damaged.

        Raises
        ------
        ValueError
            The record was written by a newer version.
        """
        return _find(self.folder / "cases" / f"{case}.json", Entry)

    def tally_path(self, case: str) -> Path:
        """Where the tally of a case is."""
        return self.folder / "cases" / f"{case}.npz"

    def tallied(self, case: str) -> Entry:
        """Return the record of a case, whose tally is in its place.

        Raises
        ------
        ValueError
            The record or the tally is missing or damaged, or they do not belong together.
        """
        entry, path = self.find(case), self.tally_path(case)
        if (
            entry is None
            or "tally" not in entry.outputs
            or not entry.outputs["tally"].matches(path)
        ):
            raise InputError(
                "damaged, or not the tally that its record names; repeat the run that "
                "made it (finished cases are not done again)",
                file=path,
            )
        return entry

    def cohort(self) -> list[str]:
        """Names of the cases of the last run, of all its parts if it was one of several; sorted.

        Raises
        ------
        ValueError
            The list is missing or damaged.
        """
        path = self.folder / "cohort.json"
        found = _find(path, _Cohort)
        if found is None:
            raise InputError("missing or damaged; repeat the run that made the store", file=path)
        return found.cases

    def fitted_on(self) -> tuple[FittedCase, ...] | None:
        """Return what the map of the runs was fitted on; None if that is not known.

        Raises
        ------
        ValueError
            The list is damaged.
        """
        path = self.folder / "fitted_on.json"
        if not path.exists():
            return None
        content = _find(path, dict) or {}
        with contextlib.suppress(KeyError, ValueError):
            return FittedCase.list_from_json(content["fitted_on"])
        raise InputError("damaged; repeat the run that made the store", file=path)

    def complete(self) -> tuple[list[str], list[Failure]]:
        """Return the finished cases of the cohort and those that failed.

        Raises
        ------
        ValueError
            There are cases that are neither: the run, or one of its parts, has not ended.
        """
        cohort = set(self.cohort())
        finished = [case for case in self.cases() if case in cohort]
        failed = [f for f in self.failures() if f.case in cohort.difference(finished)]
        check_finished(self.folder, cohort, finished, failed)
        return finished, failed

    def failures(self) -> list[Failure]:
        """Return the cases that failed when they were last tried, sorted."""
        paths = sorted((self.folder / "failures").glob("[!.]*.json"))
        return [failure for path in paths if (failure := _find(path, Failure)) is not None]

    # --- writing ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(
        self, cohort: Iterable[str], fitted_on: Iterable[FittedCase] | None = None
    ) -> Iterator[Store]:
        """Prepare the folders; what is unfinished at the end of the block is removed.

        Parameters
        ----------
        cohort
            Names of all the cases that the store is going to have, also those that other runs do.
        fitted_on
            What the map was fitted on. If it is not known, what an earlier run knew is kept: it had
            the same map, which is one of the options.

        Raises
        ------
        StoreError
            The folder cannot be written.
        """
        with store_errors(self.folder):
            (self.folder / "cases").mkdir(parents=True, exist_ok=True)
            (self.folder / "failures").mkdir(exist_ok=True)
            remove_abandoned(self.folder)
        with self.joining():
            with store_errors(self.folder):
                options = {"kind": self.kind, "options": self.options}
                self._put_json(self.folder / "options.json", options, format=FORMAT)
                self._put_json(self.folder / "cohort.json", {"cases": sorted(cohort)})
                if fitted_on is not None:
                    known = [case.to_json() for case in sorted(fitted_on, key=_by_text)]
                    self._put_json(self.folder / "fitted_on.json", {"fitted_on": known})
            yield self

    @contextlib.contextmanager
    def joining(self) -> Iterator[Store]:
        """Take part in a run that another process has begun with `writing`."""
        with contextlib.ExitStack() as stack:
            with store_errors(self.folder):
                self._staging = stack.enter_context(staging_folder(self.folder))
            try:
                yield self
            finally:
                self._staging = None

    def staged(self, name: str) -> Path:
        """Where to write a file before it is renamed to its place."""
        if self._staging is None:
            raise InputError("nothing can be staged outside of writing() and joining()")
        return self._staging / name

    def save(self, entry: Entry, files: Mapping[Path, Path]) -> None:
        """Record a finished case.

        Parameters
        ----------
        entry
            The record; its `outputs` are filled in from the staged files by the caller.
        files
            Staged file to its place. The tally is put there before the record is written, so that
            the record never promises what is not there; a volume outside of the store is put there
            afterwards, so that no volume is without its record.

        Raises
        ------
        StoreError
            The disk is full or the like; the case is then not recorded.
        """
        with store_errors(self.folder):
            inside = {at: to for at, to in files.items() if to.is_relative_to(self.folder)}
            for staged, place in inside.items():
                staged.replace(place)
            self._put_json(self.folder / "cases" / f"{entry.case}.json", asdict(entry))
            for staged, place in files.items():
                if staged not in inside:
                    staged.replace(place)
            (self.folder / "failures" / f"{entry.case}.json").unlink(missing_ok=True)

    def save_failure(self, failure: Failure) -> None:
        """Record why a case could not be finished.

        What was once made of it goes, for it was made from other files, and would count as
        finished. Only the record of a volume stays with the volume, as it tells whose that is.
        """
        with store_errors(self.folder):
            self._put_json(self.folder / "failures" / f"{failure.case}.json", asdict(failure))
            entry = self.find(failure.case)
            if entry is None or not set(entry.outputs) - {"tally"}:
                (self.folder / "cases" / f"{failure.case}.json").unlink(missing_ok=True)
                self.tally_path(failure.case).unlink(missing_ok=True)

    def stamp_staged(self, name: str, place: Path) -> FileStamp:
        """Stamp a staged file as it is going to be at its place.

        Files of the store itself are small and stamped without their time, so that records of equal
        work are equal.
        """
        stamp = read_stamp(self.staged(name))
        time = None if place.is_relative_to(self.folder) else stamp.mtime_ns
        return FileStamp(place.name, stamp.size, time, stamp.digest)

    def copy_from(self, other: Store, case: str) -> None:
        """Take over a finished case of another store of the same kind and options."""
        entry = other.find(case)
        if entry is None:
            raise InputError(f"the record of {case!r} is damaged; run it again", file=other.folder)
        files = {}
        outputs = dict(entry.outputs)
        with store_errors(self.folder):
            if "tally" in outputs:
                place = self.tally_path(case)
                shutil.copyfile(other.tally_path(case), self.staged(place.name))
                outputs["tally"] = self.stamp_staged(place.name, place)
                if outputs["tally"].digest != entry.outputs["tally"].digest:
                    raise InputError(
                        f"not the tally that its record names; run case {case!r} again",
                        file=other.tally_path(case),
                    )
                files[self.staged(place.name)] = place
        self.save(replace(entry, outputs=outputs), files)

    def _put_json(self, path: Path, content: Mapping[str, Any], **before: str) -> None:
        staged = self.staged(path.name)
        content = {**before, "format_version": FORMAT_VERSION, **content}
        staged.write_text(dump_json(content), encoding="utf-8")
        staged.replace(path)


def open_stores(root: Path, kind: str | None = None) -> list[Store]:
    """Return the stores in a folder, which may itself be the folder of one kind and its options.

    Of stores that differ in their editions alone the newest: the others are out of date.

    Raises
    ------
    FileNotFoundError
        No such folder.
    ValueError
        It holds no store (of this kind), or one of a newer version.
    """
    if not root.is_dir():
        raise FileNotFoundError(2, "no such folder; name one that a run has written", str(root))
    stores = []
    for path in sorted((*root.glob("options.json"), *root.glob("*/options.json"))):
        content = _find(path, dict)
        if content is None or content.get("format") != FORMAT:
            continue
        description = as_record(content, _Description, path)
        if kind in (None, description.kind):
            store = Store(root, description.kind, description.options)
            store.folder = path.parent
            stores.append(store)
    if not stores:
        wanted = "finished work" if kind is None else f"finished work of kind {kind}"
        raise InputError(f"holds no {wanted}; name the folder that the run wrote", file=root)
    return newest(stores)


def stores_there(root: Path, kind: str) -> list[Store]:
    """As `open_stores`; none where there is none, or what is there cannot be read."""
    try:
        return open_stores(root, kind)
    except (FileNotFoundError, ValueError):
        return []


def check_finished(
    folder: Path, cohort: Collection[str], finished: Iterable[str], failed: Iterable[Failure]
) -> None:
    """Raise ValueError if there are cases of a cohort that have neither finished nor failed."""
    missing = sorted(set(cohort).difference(finished, (failure.case for failure in failed)))
    if missing:
        raise InputError(
            f"the run was not finished; {len(missing)} of {len(cohort)} cases "
            f"are missing ({', '.join(missing[:3])}{', …' * (len(missing) > 3)}). Repeat it, "
            "with all its parts if there are several: finished cases are not done again",
            file=folder,
        )


def dump_json(content: Any) -> str:
    """Return JSON that is the same for the same content; not for NaN, which JSON has not."""
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _key(kind: str, options: Mapping[str, Any]) -> str:
    text = json.dumps([kind, options], sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _by_text(case: FittedCase) -> tuple[str, str]:
    return case.case, case.score or ""


def _find(path: Path, kind: type[T]) -> T | None:
    """Return a record, None if there is none or it is damaged; refuse one of a newer version."""
    try:
        content = read_record(path, dict)
    except (OSError, ValueError):
        return None
    version = content.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"format_version is {version}, this TwinTrack reads up to {FORMAT_VERSION}: "
            "update TwinTrack",
            file=path,
        )
    try:
        record: T = as_record({**content, "case": path.stem}, kind, path)
    except ValueError:
        return None
    return record
