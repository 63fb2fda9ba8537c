"""Applying a calibrator to a cohort: score volumes in, calibrated volumes out.

Outside the region of interest that a case carries a score of exactly 0 stays 0, as in the
pipeline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.calibrator import Calibrator
from twintrack.cohort import Case
from twintrack.cohort.region import open_mask
from twintrack.cohort.score_records import (
    LIMITS,
    MASKS,
    RECORD,
    calibrate_score,
    check_score,
    is_calibrated_by,
    record_calibrated,
    region_of_case,
)
from twintrack.errors import InputError
from twintrack.files import split_suffix
from twintrack.runs.editions import differing_options, edition
from twintrack.runs.engine import Outcome, Settings, run_cases
from twintrack.runs.inputs import case_files
from twintrack.runs.job import Job, Product
from twintrack.runs.memory import case_bytes
from twintrack.runs.records import Entry
from twintrack.runs.store import Store, dump_json, stores_there
from twintrack.runs.streaming import SLAB_VOXELS, planes_of
from twintrack.runs.volume_table import PredictedVolume, recorded, write_volumes
from twintrack.volumes.grid import place_together
from twintrack.volumes.slabs import VolumeSlabs, open_score
from twintrack.volumes.writing import check_format, slab_writer

KIND = "calibrated"


def calibrator_content(calibrator: Calibrator) -> dict[str, Any]:
    """Return knots and provenance, by which a map is recognised.

    The cases that it was fitted on are left out: there may be thousands, and the same map is the
    same whether they are known or not.
    """
    fitted = calibrator.map_
    return {
        "knots": {"x": fitted.x.tolist(), "y": fitted.y.tolist()},
        **calibrator.provenance_,
    }


def calibrator_digest(calibrator: Calibrator) -> str:
    """Return a digest of knots and provenance."""
    return _digest(calibrator_content(calibrator))


def _digest(content: Any) -> str:
    return hashlib.sha256(dump_json(content).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Opened:
    """The score of a case, its region of interest, if any, and what is recorded of it."""

    score: VolumeSlabs
    region: VolumeSlabs | None
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ApplyJob(Job[Opened]):
    """Calibrates the score of a case and writes it to a folder.

    Attributes
    ----------
    calibrator
        A fitted calibrator.
    folder
        Gets ``CASE`` + `ending`.
    dtype, ending
        How volumes are stored: "float32", "uint8" or "uint16" (`write_volume`), as ".nii.gz",
        ".nii" or ".mha".
    tumour
        Classes to merge where the score is an ``.npz`` of class probabilities; see `read_volume`.
    threshold
        ``masks/CASE`` + `ending` is 1 where the calibrated score, before it is rounded to `dtype`,
        is above; without a threshold there are no masks.
    band
        Whether the limits of the calibrator's band go to ``low/CASE`` and ``high/CASE`` + `ending`,
        stored likewise.

    Raises
    ------
    ValueError
        `ending` and `dtype` do not go together, or there is no band.
    """

    calibrator: Calibrator
    folder: Path
    dtype: str = "float32"
    ending: str = ".nii.gz"
    tumour: tuple[int, ...] = (1,)
    threshold: float | None = None
    band: bool = False

    kind = KIND

    def __post_init__(self) -> None:
        check_format(self.ending, self.dtype)
        if self.band and self.calibrator.band_ is None:
            raise InputError(
                "the calibrator has no band: make it again with `twintrack fit --band FILE.csv` "
                "(in Python with keep_band), or leave out --band"
            )

    @property
    def options(self) -> dict[str, Any]:
        """What decides a calibrated volume, its mask and its limits, besides the score."""
        limits = [[fitted.x.tolist(), fitted.y.tolist()] for fitted in self.limits.values()]
        return {
            "calibrator": calibrator_digest(self.calibrator),
            "dtype": self.dtype,
            "ending": self.ending,
            "tumour": list(self.tumour),
            **({} if self.threshold is None else {"threshold": self.threshold}),
            **({"band": _digest(limits)} if limits else {}),
            **edition("calibrated"),
        }

    @property
    def limits(self) -> dict[str, CalibrationMap]:
        """The limits of the band that are applied, too, by role."""
        band = self.calibrator.band_ if self.band else None
        return {} if band is None else {"low": band.lower_map, "high": band.upper_map}

    def place(self, case: Case) -> Path:
        """Where the calibrated volume of a case goes."""
        return self.folder / f"{case.name}{self.ending}"

    def places(self, case: Case) -> dict[str, Path]:
        """Where all that is written of a case goes, by role."""
        place = self.place(case)
        mask = {} if self.threshold is None else {"mask": self.folder / MASKS / place.name}
        limits = {role: self.folder / role / place.name for role in LIMITS if self.band}
        return {"volume": place, **mask, **limits}

    def files(self, case: Case) -> dict[str, Path]:
        """Return the score, what gives it its geometry, and its region of interest."""
        region = region_of_case(case)
        return case_files(Case(case.name, case.score, (), roi=region), vessels=False, roi=True)

    def memory(self, case: Case) -> int:
        """Estimate the memory of a slab, or of the volumes where they are written in one piece."""
        if self.ending != ".mha":
            return case_bytes(self.files(case), SLAB_VOXELS)
        return case_bytes(self.files(case)) * (3 if self.band else 1)

    def read(self, case: Case) -> Opened:
        """Open the score, to be calibrated while it is written.

        The region lies on the grid of the score, up to crop, flip and order of axes. If it does
        not, only its shape has to fit: the score's header is what is written.
        """
        check_score(self.calibrator, case.score, self.tumour)
        score = open_score(case.score, self.tumour)
        if score.place.affine is None:
            raise InputError(
                "has no geometry to keep; put nnU-Net's segmentation beside the .npz, or calibrate "
                "the array in Python",
                file=case.score,
            )
        path = region_of_case(case)
        region = None if path is None else open_mask(path)
        if region is not None:
            places = [score.place, region.place]
            same = score.place.array.shape == region.place.array.shape
            try:
                _, found = place_together(places)
            except InputError:
                if not same:
                    raise
                _, found = place_together(places, ignore_header=True)
            region = region.placed(found, (0, 0, 0), score.place)
        return Opened(score, region)

    def compute(self, loaded: Opened) -> Product:
        """Return what there is to record: the score is calibrated while it is written."""
        # Its notes and volume come then, too, which is before the record is made.
        loaded.result["notes"] = loaded.score.notes
        return Product(loaded.score.place.array.size, loaded.result)

    def write(self, case: Case, loaded: Opened, store: Store) -> dict[str, tuple[str, Path]]:
        """Write what there is of the case into the staging folder, in one pass over its score."""
        written = {
            role: (f"{role}_{place.name}", place) for role, place in self.places(case).items()
        }
        place, predicted = loaded.score.place, PredictedVolume()
        with ExitStack() as stack:
            writers = {
                role: stack.enter_context(
                    slab_writer(store.staged(name), place, source=np.dtype(np.uint8))
                    if role == "mask"
                    else slab_writer(store.staged(name), place, self.dtype)
                )
                for role, (name, _) in written.items()
            }
            for made in self._made(loaded.score, loaded.region):
                predicted.add(made["volume"])
                for role, slab in made.items():
                    writers[role](slab)
        loaded.result.update(predicted.record(place.voxel_volume))
        return written

    def _made(
        self, score: VolumeSlabs, region: VolumeSlabs | None
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the slabs of what is written, by role."""
        first = 0
        planes = planes_of(score.place)
        try:
            masks: Iterator[NDArray[Any] | None]
            masks = repeat(None) if region is None else region.slabs(planes)
            limits = self.limits
            for slab, mask in zip(score.slabs(planes), masks, strict=False):
                made = {"volume": slab, **{role: slab.copy() for role in limits}}
                calibrate_score(self.calibrator, slab, mask)
                for role, fitted in limits.items():
                    calibrate_score(fitted, made[role], mask)
                    # Between its scores a band is a straight line, which may cross the map.
                    nearest = np.minimum if role == "low" else np.maximum
                    nearest(made[role], slab, out=made[role])
                if self.threshold is not None:
                    made["mask"] = (slab > self.threshold).view(np.uint8)
                yield made
                first += slab.shape[2]
            next(masks, None)  # reads on to the end of the file
        except InputError as error:
            raise error.moved((0, 0, first)) from error
        except OSError as error:  # of reading, which is no reason to end the run as writing is
            raise InputError(f"{error.strerror or error}", file=str(score.place)) from error

    def written(self, case: Case, entry: Entry) -> bool:
        """Whether the files are there and as they were written."""
        return entry.is_at(self.places(case))


def apply_cohort(
    cases: Sequence[Case],
    job: ApplyJob,
    *,
    existing: Literal["refuse", "keep", "overwrite"] = "refuse",
    settings: Settings | None = None,
) -> list[Outcome]:
    """Write the calibrated score of every case to a folder.

    Volumes that an earlier run has written with the same calibrator and options from the same
    scores are not written again. The records of the run are in the folder's ``store``; the volumes
    that the calibrated scores predict, with their intervals, in ``volumes.csv``.

    Parameters
    ----------
    cases
        Their scores are read, all else is ignored.
    job
        The calibrator, and where and how volumes are written.
    existing
        What to do about volumes that are there and are not the result of this very work: "refuse"
        to begin; "keep" those of this calibrator, however they are stored, and leave out the case
        where all of its files are there; or "overwrite" them, also those of another calibrator,
        threshold or band, all of which go before the first volume is written: a folder never holds
        volumes that its ``prediction.json`` does not describe.
    settings
        How to go about it.

    Returns
    -------
    outcomes
        In the order of `cases`; kept cases are not among them.

    Raises
    ------
    ValueError
        As `check_folder`.
    StoreError
        The folder cannot be written.
    """
    store = Store(job.folder / "store", job.kind, job.options)
    foreign, outdated = check_folder(cases, job, existing)
    if existing == "keep":
        kept = {
            case.name
            for case in foreign
            if all(place.exists() for place in job.places(case).values())
        }
        cases = [case for case in cases if case.name not in kept]
    for path in outdated:
        path.unlink(missing_ok=True)
    record_calibrated(job.folder, job.calibrator, job.threshold)
    for role, limit in job.limits.items():
        record_calibrated(job.folder / role, job.calibrator, limit=limit)
    if job.threshold is not None:
        (job.folder / MASKS).mkdir(exist_ok=True)
    with store.writing(case.name for case in cases):
        outcomes, _ = run_cases(cases, job, store, settings or Settings(), "Calibrating")
    digest = job.options["calibrator"]
    others = stores_there(job.folder / "store", KIND)
    same = [other for other in others if other.options.get("calibrator") == digest]

    def places(store: Store, case: str) -> dict[str, Path]:
        return {"volume": job.folder / f"{case}{store.options['ending']}"}

    write_volumes(job.folder, recorded([store, *same], places), job.calibrator)
    return outcomes


def check_folder(
    cases: Sequence[Case], job: ApplyJob, existing: Literal["refuse", "keep", "overwrite"]
) -> tuple[list[Case], list[Path]]:
    """Find out before the work what of a folder would be lost, or pass for what it is not.

    Returns
    -------
    foreign, outdated
        Cases of which a file is there and is not of this very work; files that have to go because
        they are not of this calibrator, threshold and band.

    Raises
    ------
    ValueError
        A volume would be written over the score it is made from, or beside it, or into a folder of
        predictions; volumes are there, as `existing` does not allow; or nobody knows what made
        volumes that would stay.
    """
    for case in cases:
        places = {place.resolve() for place in job.places(case).values()}
        for path in job.files(case).values():
            if path.resolve() in places:
                raise InputError(
                    "would be overwritten by its calibrated score; name another folder", file=path
                )
        if case.score.parent.resolve() == job.folder.resolve():
            raise InputError(
                "is the folder of the scores, which would count as calibrated too; "
                "name another folder",
                file=job.folder,
            )
    # Before the record, which another process with a part of the cases writes before its volumes.
    volumes = [
        (role, path)
        for role, folder in {
            "volume": job.folder,
            "mask": job.folder / MASKS,
            **{limit: job.folder / limit for limit in LIMITS},
        }.items()
        for path in sorted(folder.glob("[!.]*"))
        if split_suffix(path.name)[1]
    ]
    ours = is_calibrated_by(job.folder, job.calibrator, job.threshold)
    record = job.folder / RECORD
    if ours is False and existing != "overwrite":
        masks = is_calibrated_by(job.folder, job.calibrator)
        raise InputError(
            f"the {'masks' if masks else 'volumes'} that are there were "
            f"{'made with another threshold' if masks else 'calibrated by another map'}; name "
            "another folder, or replace them all with --force",
            file=record,
        )
    for role, limit in job.limits.items():
        there = any(role == known for known, _ in volumes)
        if there and is_calibrated_by(job.folder / role, job.calibrator, limit=limit) is False:
            if existing != "overwrite":
                raise InputError(
                    "the limits that are there are of another band; name another folder, or "
                    "replace all volumes with --force",
                    file=job.folder / role / RECORD,
                )
            ours = False
    found = stores_there(job.folder / "store", KIND)
    same = [store for store in found if not differing_options(store.options, job.options)]
    foreign = {
        place: case
        for case in cases
        for role, place in job.places(case).items()
        if place.exists() and not _made_by(same, role, place)
    }
    others = list({case.name: case for case in foreign.values()}.values())
    if foreign and not (existing == "overwrite" or (existing == "keep" and ours)):
        keep = "keep what is there with --continue_prediction, " if ours else ""
        raise InputError(
            "is there already"
            + (f", and so are {len(others) - 1} others" if len(others) > 1 else "")
            + f", and was not written with this calibrator and these options; {keep}replace it "
            "with --force, or name another folder",
            file=next(iter(foreign)),
        )
    if ours:
        return others, []
    outdated = set(foreign)
    asked = {place for case in cases for place in job.places(case).values()}
    for role, path in volumes:
        if path in asked or _made_by(same, role, path):
            continue
        if not _made_by(found, role, path):
            raise InputError(
                "nobody knows what made it, and beside calibrated volumes it would pass "
                "for one of them; name another folder, or delete it",
                file=path,
            )
        outdated.add(path)
    return others, sorted(outdated)


def _made_by(stores: Sequence[Store], role: str, path: Path) -> bool:
    """Whether a file is what one of the stores has recorded of the case that it is named after."""
    case = split_suffix(path.name)[0]
    entries = [entry for store in stores if (entry := store.find(case)) is not None]
    return any(entry.is_at({role: path}) for entry in entries)
