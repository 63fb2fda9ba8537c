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

KIND is "score-tally", "evaluation" or "calibrated"; KEY is the beginning of the SHA-256 of the
options. options.json holds ``format`` ("twintrack-store"), ``format_version``, ``kind`` and
``options``; cohort.json ``cases``; fitted_on.json ``fitted_on``, as in the calibrator file. A
record CASE.json holds ``format_version``, ``case``, ``inputs`` (role, see `twintrack.runs.inputs`,
to `FileStamp`), ``voxels``, ``result`` and ``outputs`` (the role "tally" or "volume" to
`FileStamp`). ``result`` is ``voxels_in_region``, ``ensemble`` (what is known of how the score was
made) and, where a score is a crop, ``marked_outside`` (voxels that raters mark outside of it, over
all raters) for score tallies, and for evaluations ``figures`` (name to number, null where not
defined, absent where the case does not have it); and for all kinds, where there are any, ``notes``,
what to tell of the case. CASE.npz holds plain arrays: those of `ScoreTally.save`, or the integer
sums of a `CaseTally` by name (``votes``, ``score_bins``, ``confidence_bins``, ``squares``,
``rater_scores``). All text is UTF-8.

Why a run can be killed at any moment, and two runs can share a folder: a file is written in a
folder of its own and renamed into its place when whole; CASE.json comes last and names the content
of the others; what does not fit together counts as not done. Nothing is ever changed in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twintrack.calibration.fitted_on import FittedCase
from twintrack.errors import InputError
from twintrack.runs.editions import newest
from twintrack.runs.stamps import FileStamp, read_stamp

try:
    import fcntl
except ImportError:  # Windows: staging folders of killed runs stay until they are deleted by hand
    fcntl = None  # type: ignore[assignment]

FORMAT = "twintrack-store"
FORMAT_VERSION = 1
_LARGEST_RECORD = 64 << 20  # bytes; a case takes about a thousand, a cohort as many per 50 cases


class StoreError(OSError):
    """The store cannot be written: no case can be finished, so the run stops."""


@dataclass(frozen=True)
class Failure:
    """Why a case could not be finished.

    Attributes
    ----------
    case
        Its name.
    step
        "read", "compute" or "write".
    file
        Role of the file that the message is about ("score", "rater_2", …), or "".
    message
        What is wrong and what to do.
    """

    case: str
    step: str
    file: str
    message: str


@dataclass(frozen=True)
class Entry:
    """A finished case.

    Attributes
    ----------
    case
        Its name.
    inputs
        Role to stamp of the files it was made from.
    voxels
        Voxels of the case.
    result
        Figures, by name; None for those that are not defined.
    outputs
        Role to stamp of the files that were made: "tally", or the volume.
    """

    case: str
    inputs: Mapping[str, FileStamp]
    voxels: int
    result: Mapping[str, Any]
    outputs: Mapping[str, FileStamp] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size of the input files."""
        return sum(stamp.size for stamp in self.inputs.values())

    def made_from(self, files: Mapping[str, Path]) -> bool:
        """Whether `files` (by role) are what the case was made from."""
        return set(files) == set(self.inputs) and all(
            self.inputs[role].matches(path) for role, path in files.items()
        )


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
        self.options = dict(options)
        self.folder = root / f"{kind}-{_key(kind, options)}"
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
        path = self.folder / "cases" / f"{case}.json"
        content = _read_record(path)
        if content is None:
            return None
        _check_version(path, content)
        try:
            inputs = {role: FileStamp.from_json(at) for role, at in content["inputs"].items()}
            outputs = {role: FileStamp.from_json(at) for role, at in content["outputs"].items()}
            return Entry(case, inputs, int(content["voxels"]), dict(content["result"]), outputs)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            return None

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
        names = (_read_record(path) or {}).get("cases")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError("missing or damaged; repeat the run that made the store", file=path)
        return names

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
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return FittedCase.list_from_json((_read_record(path) or {})["fitted_on"])
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
        found = []
        for path in sorted((self.folder / "failures").glob("[!.]*.json")):
            content = _read_record(path) or {}
            with contextlib.suppress(KeyError, TypeError):
                fields = (str(content[name]) for name in ("step", "file", "message"))
                found.append(Failure(path.stem, *fields))
        return found

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
        with _store_errors(self.folder):
            (self.folder / "cases").mkdir(parents=True, exist_ok=True)
            (self.folder / "failures").mkdir(exist_ok=True)
            self._remove_abandoned()
        with self.joining():
            with _store_errors(self.folder):
                self._put_json(self.folder / "options.json", self._description())
                names = {"format_version": FORMAT_VERSION, "cases": sorted(cohort)}
                self._put_json(self.folder / "cohort.json", names)
                if fitted_on is not None:
                    known = [case.to_json() for case in sorted(fitted_on, key=_by_text)]
                    content = {"format_version": FORMAT_VERSION, "fitted_on": known}
                    self._put_json(self.folder / "fitted_on.json", content)
            yield self

    @contextlib.contextmanager
    def joining(self) -> Iterator[Store]:
        """Take part in a run that another process has begun with `writing`."""
        with _store_errors(self.folder):
            staging, lock = _make_staging(self.folder)
        self._staging = staging
        try:
            yield self
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            self._staging = None
            if lock is not None:
                os.close(lock)

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
        with _store_errors(self.folder):
            inside = {at: to for at, to in files.items() if to.is_relative_to(self.folder)}
            for staged, place in inside.items():
                staged.replace(place)
            content = {
                "format_version": FORMAT_VERSION,
                "case": entry.case,
                "inputs": {role: stamp.to_json() for role, stamp in entry.inputs.items()},
                "voxels": entry.voxels,
                "result": entry.result,
                "outputs": {role: stamp.to_json() for role, stamp in entry.outputs.items()},
            }
            self._put_json(self.folder / "cases" / f"{entry.case}.json", content)
            for staged, place in files.items():
                if staged not in inside:
                    staged.replace(place)
            (self.folder / "failures" / f"{entry.case}.json").unlink(missing_ok=True)

    def save_failure(self, failure: Failure) -> None:
        """Record why a case could not be finished.

        What was once made of it goes, for it was made from other files, and would count as
        finished. Only the record of a volume stays with the volume, as it tells whose that is.
        """
        with _store_errors(self.folder):
            self._put_json(
                self.folder / "failures" / f"{failure.case}.json",
                {
                    "format_version": FORMAT_VERSION,
                    "case": failure.case,
                    "step": failure.step,
                    "file": failure.file,
                    "message": failure.message,
                },
            )
            entry = self.find(failure.case)
            if entry is None or "volume" not in entry.outputs:
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
        with _store_errors(self.folder):
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
        self.save(Entry(case, entry.inputs, entry.voxels, entry.result, outputs), files)

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "options": self.options,
        }

    def _put_json(self, path: Path, content: Any) -> None:
        staged = self.staged(path.name)
        staged.write_text(dump_json(content), encoding="utf-8")
        staged.replace(path)

    def _remove_abandoned(self) -> None:
        """Remove the staging folders of runs that were killed: those that nobody holds locked."""
        if fcntl is None:
            return
        for folder in self.folder.glob("staging-*"):
            with contextlib.suppress(OSError):  # held by a living run, or just removed by another
                lock = os.open(folder / "lock", os.O_RDWR)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)


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
        content = _read_record(path)
        if content is None or content.get("format") != FORMAT:
            continue
        _check_version(path, content)
        found, options = content.get("kind"), content.get("options")
        if not isinstance(found, str) or not isinstance(options, dict):
            raise InputError("damaged: it has no kind or no options", file=path)
        if kind in (None, found):
            try:
                store = Store(root, found, options)
            except ValueError as error:  # NaN, which JSON does not have
                raise InputError(f"damaged: {error}", file=path) from error
            store.folder = path.parent
            stores.append(store)
    if not stores:
        wanted = "finished work" if kind is None else f"finished work of kind {kind}"
        raise InputError(f"holds no {wanted}; name the folder that the run wrote", file=root)
    return newest(stores)


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


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        small = path.stat().st_size <= _LARGEST_RECORD
        content = json.loads(path.read_bytes()) if small else None
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _check_version(path: Path, content: Mapping[str, Any]) -> None:
    version = content.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"format_version is {version}, this TwinTrack reads up to {FORMAT_VERSION}: "
            "update TwinTrack",
            file=path,
        )


def _make_staging(folder: Path) -> tuple[Path, int | None]:
    """Make a staging folder, with a lock that the system drops however the process ends."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix="staging-", dir=folder))
        if fcntl is None:
            return staging, None
        lock = os.open(staging / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # another run has taken the folder for an abandoned one
        except OSError:
            return staging, lock  # a file system without locks: nobody can take it
        else:
            if (staging / "lock").exists():
                return staging, lock
        os.close(lock)


@contextlib.contextmanager
def _store_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        try:
            free = f"; {shutil.disk_usage(folder).free:,} bytes are free there"
        except OSError:
            free = ""
        raise StoreError(
            error.errno,
            f"cannot be written ({error.strerror or error}{free}). Finished cases are kept: make "
            "room and run the same command again",
            str(folder),
        ) from error
