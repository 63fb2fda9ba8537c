"""Prediction of a cohort of images: each case written when it is whole, and none twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from twintrack.calibration.calibrator import Calibrator
from twintrack.cohort.score_records import MASKS, RECORD, REGIONS
from twintrack.errors import InputError
from twintrack.files import split_suffix
from twintrack.nnunet.case_prediction import CasePrediction
from twintrack.nnunet.image_cases import ImageCase
from twintrack.nnunet.images import read_image
from twintrack.nnunet.models import DeviceMemoryError
from twintrack.nnunet.pipeline import Pipeline
from twintrack.nnunet.prediction_record import check_same, deciding, describe, write_json
from twintrack.runs.engine import Outcome, Settings, plan_cases, run_cases
from twintrack.runs.inputs import with_files_read
from twintrack.runs.job import Job, Product
from twintrack.runs.records import Entry
from twintrack.runs.store import Store
from twintrack.runs.volume_table import recorded, write_volumes
from twintrack.volumes import write_volume
from twintrack.volumes.writing import check_format


@contextmanager
def _advising() -> Iterator[None]:
    """Keep what a full device needs, which is not what helps where the host has no memory."""
    try:
        yield
    except DeviceMemoryError as error:
        raise InputError(str(error)) from error


@dataclass(frozen=True)
class PredictJob(Job[CasePrediction]):
    """Predicts a case and writes its score, mask and, if wanted, region.

    While the members run on a case, the next one is read, its region found and its data
    preprocessed, and the one before is exported and written.

    Attributes
    ----------
    pipeline
        Sent to other processes without its networks, which each loads once and keeps.
    folder
        Gets ``CASE.nii.gz``, the score; ``masks/CASE.nii.gz``; ``rois/CASE.nii.gz`` if wanted;
        ``prediction.json``, which says how the scores are made; and ``store``, which says what each
        case was made from. And ``volumes.csv`` (`twintrack.runs.volume_table`) where the calibrator
        has a band.
    ending
        ".nii.gz", ".nii" or ".mha".
    dtype
        How scores are stored: see `twintrack.volumes.write_volume`.
    rois
        Whether to write the region of interest as a mask.
    tell
        Told the stage of a case, such as "A: member 2 of 3"; from several threads, and in this
        process alone.
    """

    pipeline: Pipeline
    folder: Path
    ending: str = ".nii.gz"
    dtype: str = "float32"
    rois: bool = False
    tell: Callable[[str], object] | None = None

    kind = "predicted"
    step_by_step = True

    def __post_init__(self) -> None:
        check_format(self.ending, self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "tell": None}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Content of ``prediction.json``."""
        return describe(self.pipeline, self.dtype)

    @property
    def options(self) -> Mapping[str, Any]:
        """What decides a score besides the images."""
        return deciding(self.settings)

    @property
    def store(self) -> Store:
        """What is finished."""
        return Store(self.folder / "store", self.kind, self.options)

    def places(self, case: str) -> dict[str, Path]:
        """Return where the files of a case go, by their role; the score last."""
        name = f"{case}{self.ending}"
        roi = {"roi": self.folder / REGIONS / name} if self.rois else {}
        return {**roi, "mask": self.folder / MASKS / name, "score": self.folder / name}

    def files(self, case: ImageCase) -> dict[str, Path]:
        """Return the images, by channel, and whatever other files hold their voxels."""
        return with_files_read({f"image_{k}": file for k, file in enumerate(case.images)})

    def read(self, case: ImageCase) -> CasePrediction:
        """Read the images, find the region and preprocess what lies in it."""
        with _advising():
            return CasePrediction(
                self.pipeline,
                lambda: read_image(case.images),
                lambda stage: self.tell and self.tell(f"{case.name}: {stage}"),
            )

    def compute(self, loaded: CasePrediction) -> Product:
        """Let the members predict."""
        with _advising():
            loaded.run_members()
        # Notes and volume come while the case is exported, which is before the record is written.
        return Product(loaded.voxels, loaded.result)

    def write(
        self, case: ImageCase, loaded: CasePrediction, store: Store
    ) -> dict[str, tuple[str, Path]]:
        """Export, and write into the staging folder."""
        prediction = loaded.export()
        score, mask = prediction.score, prediction.mask
        written = {}
        for role, place in self.places(case.name).items():
            written[role] = f"{role}_{place.name}", place
            staged = store.staged(written[role][0])
            if role == "score":
                write_volume(staged, score.array, score, dtype=self.dtype)
            else:
                array = mask.array if role == "mask" else prediction.roi_mask()
                write_volume(staged, array, score)
        return written

    def written(self, case: ImageCase, entry: Entry) -> bool:
        """Whether the files are there and as they were written."""
        return entry.is_at(self.places(case.name))

    def others(self, cases: Collection[ImageCase]) -> list[Path]:
        """Return the scores that are there and are none of these cases' files, sorted.

        Of any format that ``twintrack fit`` takes.
        """
        own = {f"{case.name}{self.ending}" for case in cases}
        return sorted(
            file
            for file in self.folder.glob("[!.]*")
            if file.name not in own and split_suffix(file.name)[1]
        )

    def clear(self, case: ImageCase) -> None:
        """Delete what is there of a case: it may come from another ensemble."""
        for place in replace(self, rois=True).places(case.name).values():
            place.unlink(missing_ok=True)


def predict_cohort(
    cases: Sequence[ImageCase],
    job: PredictJob,
    *,
    keep: bool = False,
    cohort: Sequence[ImageCase] | None = None,
    settings: Settings | None = None,
) -> list[Outcome]:
    """Predict cases and write their files; a case that fails does not stop the others.

    Parameters
    ----------
    cases
        Of `find_images`.
    job
        The ensemble, and where and how its files are written.
    keep
        Leave out cases all of whose files are there and whose images have not changed since
        (nnU-Net's ``--continue_prediction``). What is there of the others is deleted before the
        first is predicted, so that a folder never holds scores that its ``prediction.json`` does
        not describe.
    cohort
        All cases, where `cases` are a part of them.
    settings
        How to go about it.

    Returns
    -------
    outcomes
        In the order of `cases`.

    Raises
    ------
    InputError
        As `check_folder`.
    StoreError
        The folder cannot be written.
    """
    settings, store = settings or Settings(), job.store
    keep = check_folder(cases, job, keep=keep)
    for case, plan in zip(cases, plan_cases(cases, job, store, force=not keep), strict=True):
        if plan.state == "stored":
            continue
        entry, files = store.find(case.name) if keep else None, job.files(case)
        for role in [] if entry is None else entry.changed(files)[:1]:
            changed = files.get(role, case.images[0])
            settings.progress.warn(
                f"{changed}: has changed since it was predicted; predicted again"
            )
        job.clear(case)
    for place in job.places("").values():
        place.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / RECORD, job.settings)
    with store.writing(case.name for case in cohort or cases):
        how = replace(settings, force=not keep)
        outcomes, _ = run_cases(cases, job, store, how, "Predicting")
    calibrator = job.pipeline.calibrator
    if isinstance(calibrator, Calibrator) and calibrator.band_ is not None:
        found = recorded([store], lambda _, case: {"score": job.places(case)["score"]})
        write_volumes(job.folder, found, calibrator)
    return outcomes


def check_folder(cases: Sequence[ImageCase], job: PredictJob, *, keep: bool) -> bool:
    """Find out before the work what of a folder would be lost, or pass for what it is not.

    Returns
    -------
    keep
        Whether anything can be kept: without a record nobody knows how what is there was made.

    Raises
    ------
    InputError
        An image would be overwritten by a result. Or scores that would stay, of any case if `keep`
        or else of others, were made by another ensemble (its weights included) or calibrator, or
        nobody knows how.
    """
    images = {file.resolve() for case in cases for file in case.images}
    for case in cases:
        for file in replace(job, rois=True).places(case.name).values():
            if file.resolve() in images:
                raise InputError(
                    "is an image; choose another folder for the predictions", file=file
                )
    # Looked for before the record, which another process with a part of the cases writes first.
    strangers = job.others(cases)
    record = job.folder / RECORD
    if not record.is_file():
        if strangers:
            raise InputError(
                f"holds {strangers[0].name}, of another case, but no {RECORD} that "
                "says how it was made; beside this ensemble's it would pass for one of its scores: "
                "use another folder, or delete what is in this one",
                file=job.folder,
            )
        return False
    # Only scores that stay can be mixed with new ones.
    if job.others(() if keep else cases):
        check_same(record, job.settings, job.pipeline.folders)
    return keep
