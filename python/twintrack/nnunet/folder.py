"""Prediction of a folder of images, case by case, each written when it is whole."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from twintrack.cohort.score_records import RECORD, REGIONS
from twintrack.errors import InputError
from twintrack.files import PLACED_SUFFIXES, WRITTEN_SUFFIXES, natural_order, split_suffix
from twintrack.nnunet.images import Image, read_image
from twintrack.nnunet.pipeline import Pipeline, Prediction
from twintrack.nnunet.prediction_record import (
    changed_image,
    check_same,
    describe,
    stamp_images,
    write_json,
)
from twintrack.volumes import write_volume


@dataclass(frozen=True)
class Outputs:
    """Where the files of a case go.

    Parameters
    ----------
    folder
        Gets ``CASE.nii.gz``, the score; ``masks/CASE.nii.gz``; ``rois/CASE.nii.gz`` if wanted;
        ``inputs/CASE.json``, which says what it was made from; and ``prediction.json``, which says
        how the scores were made.
    ending
        ".nii.gz", ".nii" or ".mha".
    dtype
        How scores are stored: see `twintrack.volumes.write_volume`.
    rois
        Whether to write the region of interest as a mask.
    """

    folder: Path
    ending: str = ".nii.gz"
    dtype: str = "float32"
    rois: bool = False

    def __post_init__(self) -> None:
        if self.ending not in WRITTEN_SUFFIXES:
            known = ", ".join(WRITTEN_SUFFIXES)
            raise InputError(f"it is one of {known}", argument="ending", value=self.ending)
        if self.ending == ".mha" and self.dtype != "float32":
            raise InputError(f"MetaImage has no scale factor: {self.dtype} needs .nii.gz or .nii")

    def score(self, case: str) -> Path:
        """Return the file of the score."""
        return self.folder / f"{case}{self.ending}"

    def mask(self, case: str) -> Path:
        """Return the file of the mask."""
        return self.folder / "masks" / f"{case}{self.ending}"

    def roi(self, case: str) -> Path:
        """Return the file of the region of interest."""
        return self.folder / REGIONS / f"{case}{self.ending}"

    def inputs(self, case: str) -> Path:
        """Return the record of the images."""
        return self.folder / "inputs" / f"{case}.json"

    def finished(self, case: str) -> bool:
        """Return whether all files of a case are there; each appears only when it is whole."""
        files = [self.score(case), self.mask(case), *([self.roi(case)] if self.rois else [])]
        return all(file.is_file() for file in files)

    def prepare(self) -> None:
        """Make the folders."""
        for folder in ("masks", "inputs", *([REGIONS] if self.rois else [])):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)

    def clear(self, case: str) -> None:
        """Delete what is there of a case: it may come from another ensemble."""
        for file in (self.score(case), self.mask(case), self.roi(case), self.inputs(case)):
            file.unlink(missing_ok=True)

    def others(self, cases: Collection[str]) -> list[Path]:
        """Return the scores that are there and are none of these cases' files, sorted.

        Of any format that ``twintrack fit`` takes.
        """
        own = {self.score(case).name for case in cases}
        return sorted(
            file
            for file in self.folder.glob("[!.]*")
            if file.name not in own and split_suffix(file.name)[1]
        )

    def write(self, case: str, prediction: Prediction, inputs: Mapping[str, Any]) -> None:
        """Write the files of a case, the score last."""
        write_json(self.inputs(case), inputs)
        if self.rois:
            write_volume(self.roi(case), roi_mask(prediction), prediction.score)
        write_volume(self.mask(case), prediction.mask.array, prediction.mask)
        write_volume(self.score(case), prediction.score.array, prediction.score, dtype=self.dtype)


@dataclass(frozen=True)
class Done:
    """What became of a case.

    Attributes
    ----------
    case
        Its name.
    files
        Its images.
    error
        Why it could not be predicted, or None.
    kept
        Whether its files were there already.
    voxels, seconds
        Size, and the time since the last case was done.
    notes
        Of its prediction.
    stages
        Seconds by stage.
    """

    case: str
    files: tuple[Path, ...]
    error: Exception | None = None
    kept: bool = False
    voxels: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    stages: Mapping[str, float] | None = None


def find_images(source: str | os.PathLike[str], channels: int = 1) -> dict[str, tuple[Path, ...]]:
    """Return the images of each case in a folder, in natural order of the names.

    Nested folders in CURVAS layout (``CASE/image.nii.gz``) and nnU-Net's names
    (``CASE_0000.nii.gz``, one file a channel) are understood. For one channel any other name is
    that of its case, also with another number at its end (``scan_0001.mha``). A single file is a
    folder of one case.

    Raises
    ------
    FileNotFoundError
        No such file or folder, or no image in it.
    ValueError
        A case lacks a channel or has one too many, or two files would be the same case, or, for one
        channel, ``CASE_0000`` and ``CASE_0001`` may be one case or two.
    """
    source = Path(source)
    if source.is_file():
        found = [source]
    elif source.is_dir():
        found = [f for f in source.iterdir() if not f.name.startswith(".") and f.is_file()]
        found += [
            file
            for folder in source.iterdir()
            if folder.is_dir()
            for suffix in PLACED_SUFFIXES
            if (file := folder / f"image{suffix}").is_file()
        ]
    else:
        raise FileNotFoundError(2, "no such file or folder", str(source))
    cases: dict[str, dict[int, Path]] = {}
    for file in found:
        stem, suffix = split_suffix(file.name)
        if suffix not in PLACED_SUFFIXES:
            continue
        nested = file.parent != source and source.is_dir()
        case, channel = file.parent.name if nested else stem, 0
        head, _, number = stem.rpartition("_")
        numbered = not nested and head and len(number) == 4 and number.isdecimal()
        if numbered and (channels > 1 or int(number) == 0):
            case, channel = head, int(number)
        other = cases.setdefault(case, {}).setdefault(channel, file)
        if other != file:
            raise InputError(f"is the same case as {other}; keep one of them", file=file)
    if not cases:
        raise FileNotFoundError(
            2, f"no images ({', '.join(PLACED_SUFFIXES)}) in this folder", str(source)
        )
    for case, files in cases.items():
        second = cases.get(f"{case}_0001")
        if channels == 1 and second and split_suffix(files[0].name)[0] == f"{case}_0000":
            raise InputError(
                f"{files[0].name} and {second[0].name} are two channels of a case or two "
                "cases; the networks were trained with 1 channel: take away what is no first "
                "channel, or give the cases names without _0000",
                file=source,
            )
        if sorted(files) != list(range(channels)):
            names = ", ".join(files[number].name for number in sorted(files))
            raise InputError(
                f"case {case!r} has {names}, but the networks were trained with "
                f"{channels} channel{'s' * (channels > 1)}, numbered from _0000 on",
                file=source,
            )
    return {
        case: tuple(cases[case][channel] for channel in range(channels))
        for case in sorted(cases, key=natural_order)
    }


def predict_folder(
    pipeline: Pipeline,
    cases: Mapping[str, Sequence[Path]],
    outputs: Outputs,
    *,
    keep: bool = False,
    report: Callable[[Done], None] = lambda _: None,
    tell: Callable[[str, str], None] = lambda *_: None,
) -> list[Done]:
    """Predict cases and write their files; a case that fails does not stop the others.

    Parameters
    ----------
    pipeline
        Loaded.
    cases
        Images of each case, of `find_images`.
    outputs
        Where the files go.
    keep
        Leave out cases all of whose files are there and whose images have not changed since
        (nnU-Net's ``--continue_prediction``). What is there of the others is deleted before the
        first is predicted, so that a folder never holds scores that its ``prediction.json`` does
        not describe.
    report
        Called when a case is done.
    tell
        Called with case and stage: see `Pipeline.predict_many`.

    Raises
    ------
    ValueError
        An image would be overwritten by a result. Or scores that would stay, of any case if `keep`
        or else of others, were made by another ensemble (its weights included) or calibrator, or
        nobody knows how.
    """
    settings = describe(pipeline, outputs.dtype)
    record = outputs.folder / RECORD
    _check_apart(cases, outputs)
    # Looked for before the record, which another process with a part of the cases writes first.
    strangers = outputs.others(cases)
    if strangers and not record.is_file():
        raise InputError(
            f"holds {strangers[0].name}, of another case, but no {RECORD} that "
            "says how it was made; beside this ensemble's it would pass for one of its scores: use "
            "another folder, or delete what is in this one",
            file=outputs.folder,
        )
    # Without a record nobody knows how the files that are there were made.
    keep = keep and record.is_file()
    # Only scores that stay can be mixed with new ones.
    if record.is_file() and outputs.others(() if keep else cases):
        check_same(record, settings, pipeline.folders)
    notes: dict[str, tuple[str, ...]] = {}
    kept = {case for case in cases if keep and outputs.finished(case)}
    unknown = [case for case in cases if case in kept and not outputs.inputs(case).is_file()]
    if unknown:
        notes[unknown[0]] = (
            f"{outputs.folder}: {len(unknown)} of the predictions were made by a version that did "
            "not record images and weights; they are kept, whether those have changed or not",
        )
    for case in kept.difference(unknown):
        changed = changed_image(outputs.inputs(case), cases[case])
        if changed is not None:
            kept.remove(case)
            notes[case] = (f"{changed}: has changed since it was predicted; predicted again",)
    for case in cases:
        if case not in kept:
            outputs.clear(case)
    outputs.prepare()
    write_json(record, settings)
    done: list[Done] = []

    def add(one: Done) -> None:
        done.append(one)
        report(one)

    todo: dict[str, Sequence[Path]] = {}
    for case, files in cases.items():
        if case in kept:
            add(Done(case, tuple(files), kept=True, notes=notes.get(case, ())))
        else:
            todo[case] = files

    inputs: dict[str, Mapping[str, Any]] = {}

    def read(case: str) -> Image:
        # An image that changes in between is, from its stamp, one that has changed.
        inputs[case] = stamp_images(todo[case])
        return read_image(todo[case])

    def finish(case: str, prediction: Prediction) -> Done:
        start = time.perf_counter()
        outputs.write(case, prediction, inputs.pop(case))
        stages = {**prediction.seconds, "write": time.perf_counter() - start}
        return Done(
            case,
            tuple(todo[case]),
            voxels=prediction.score.array.size,
            notes=notes.get(case, ()) + prediction.notes,
            stages=stages,
        )

    last = time.perf_counter()
    images = ((case, functools.partial(read, case)) for case in todo)
    for case, result in pipeline.predict_many(images, finish, tell):
        now = time.perf_counter()
        if isinstance(result, Exception):
            add(Done(case, tuple(todo[case]), error=result, seconds=now - last))
        else:
            add(replace(result, seconds=now - last))
        last = now
    return done


def roi_mask(prediction: Prediction) -> Any:
    """Return the region of interest as a mask of 0 and 1, uint8, of the image's shape."""
    mask = np.zeros(prediction.score.array.shape, np.uint8, order="F")
    mask[prediction.roi.box] = 1 if prediction.roi.inside is None else prediction.roi.inside
    return mask


def _check_apart(cases: Mapping[str, Sequence[Path]], outputs: Outputs) -> None:
    images = {file.resolve() for files in cases.values() for file in files}
    for case in cases:
        for file in (outputs.score(case), outputs.mask(case), outputs.roi(case)):
            if file.resolve() in images:
                raise InputError(
                    "is an image; choose another folder for the predictions", file=file
                )
