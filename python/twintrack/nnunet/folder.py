"""Prediction of a folder of images, case by case, each written when it is whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twintrack.files import natural_order, replacing, split_suffix
from twintrack.nnunet.pipeline import Pipeline, Prediction
from twintrack.predictions import RECORD, REGIONS
from twintrack.version import __version__
from twintrack.volumes import write_volume

__all__ = ["Done", "Outputs", "find_images", "predict_folder"]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mha")


@dataclass(frozen=True)
class Outputs:
    """Where the files of a case go.

    Parameters
    ----------
    folder
        Gets ``CASE.nii.gz``, the score; ``masks/CASE.nii.gz``; ``rois/CASE.nii.gz`` if wanted; and
        ``prediction.json``, which says how the scores were made.
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
        if self.ending not in IMAGE_SUFFIXES:
            raise ValueError(f"ending is {self.ending!r}; it is one of {', '.join(IMAGE_SUFFIXES)}")
        if self.ending == ".mha" and self.dtype != "float32":
            raise ValueError(f"MetaImage has no scale factor: {self.dtype} needs .nii.gz or .nii")

    def score(self, case: str) -> Path:
        """Return the file of the score."""
        return self.folder / f"{case}{self.ending}"

    def mask(self, case: str) -> Path:
        """Return the file of the mask."""
        return self.folder / "masks" / f"{case}{self.ending}"

    def roi(self, case: str) -> Path:
        """Return the file of the region of interest."""
        return self.folder / REGIONS / f"{case}{self.ending}"

    def finished(self, case: str) -> bool:
        """Return whether all files of a case are there; each appears only when it is whole."""
        files = [self.score(case), self.mask(case), *([self.roi(case)] if self.rois else [])]
        return all(file.is_file() for file in files)

    def prepare(self) -> None:
        """Make the folders."""
        for folder in ("masks", *([REGIONS] if self.rois else [])):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)

    def clear(self, case: str) -> None:
        """Delete what is there of a case: it may come from another ensemble."""
        for file in (self.score(case), self.mask(case), self.roi(case)):
            file.unlink(missing_ok=True)

    def write(self, case: str, prediction: Prediction) -> None:
        """Write the files of a case, the score last."""
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

    Nested folders in CURVAS layout (``CASE/image.nii.gz``), nnU-Net's names
    (``CASE_0000.nii.gz``, one file a channel) and, for one channel, any names (``CASE.mha``) are
    understood. A single file is a folder of one case.

    Raises
    ------
    FileNotFoundError
        No such file or folder, or no image in it.
    ValueError
        A case lacks a channel or has one too many, or two files would be the same case.
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
            for suffix in IMAGE_SUFFIXES
            if (file := folder / f"image{suffix}").is_file()
        ]
    else:
        raise FileNotFoundError(2, "no such file or folder", str(source))
    cases: dict[str, dict[int, Path]] = {}
    for file in found:
        stem, suffix = split_suffix(file.name)
        if suffix not in IMAGE_SUFFIXES:
            continue
        nested = file.parent != source and source.is_dir()
        case, channel = file.parent.name if nested else stem, 0
        head, _, number = stem.rpartition("_")
        if not nested and head and len(number) == 4 and number.isdigit():
            case, channel = head, int(number)
        other = cases.setdefault(case, {}).setdefault(channel, file)
        if other != file:
            raise ValueError(f"{file}: is the same case as {other}; keep one of them")
    if not cases:
        raise FileNotFoundError(
            2, f"no images ({', '.join(IMAGE_SUFFIXES)}) in this folder", str(source)
        )
    for case, files in cases.items():
        if sorted(files) != list(range(channels)):
            names = ", ".join(files[number].name for number in sorted(files))
            raise ValueError(
                f"{source}: case {case!r} has {names}, but the networks were trained with "
                f"{channels} channel{'s' * (channels > 1)}, numbered from _0000 on"
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
        Leave out cases all of whose files are there (nnU-Net's ``--continue_prediction``). What is
        there of the other cases is deleted before the first is predicted, so that a folder never
        holds scores that its ``prediction.json`` does not describe.
    report
        Called when a case is done.

    Raises
    ------
    ValueError
        An image would be overwritten by a result. Or `keep`, and the files that are there were made
        by another ensemble or calibrator.
    """
    settings = describe(pipeline, outputs)
    record = outputs.folder / RECORD
    _check_apart(cases, outputs)
    # Without a record nobody knows how the files that are there were made.
    keep = keep and record.is_file()
    if keep:
        _check_same(record, settings)
    kept = {case for case in cases if keep and outputs.finished(case)}
    for case in cases:
        if case not in kept:
            outputs.clear(case)
    outputs.prepare()
    with replacing(record) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    done: list[Done] = []

    def tell(one: Done) -> None:
        done.append(one)
        report(one)

    todo: dict[str, Sequence[Path]] = {}
    for case, files in cases.items():
        if case in kept:
            tell(Done(case, tuple(files), kept=True))
        else:
            todo[case] = files

    def finish(case: str, prediction: Prediction) -> Done:
        start = time.perf_counter()
        outputs.write(case, prediction)
        stages = {**prediction.seconds, "write": time.perf_counter() - start}
        return Done(
            case,
            tuple(todo[case]),
            voxels=prediction.score.array.size,
            notes=prediction.notes,
            stages=stages,
        )

    last = time.perf_counter()
    for case, result in pipeline.predict_many(todo.items(), finish):
        now = time.perf_counter()
        if isinstance(result, Exception):
            tell(Done(case, tuple(todo[case]), error=result, seconds=now - last))
        else:
            tell(
                Done(
                    case,
                    result.files,
                    voxels=result.voxels,
                    seconds=now - last,
                    notes=result.notes,
                    stages=result.stages,
                )
            )
        last = now
    return done


def describe(pipeline: Pipeline, outputs: Outputs) -> dict[str, Any]:
    """Return how the scores are made, in plain values."""
    calibrator = pipeline.calibrator
    return {
        "twintrack": __version__,
        **pipeline.describe(),
        "calibrator": None if calibrator is None else _knots(calibrator),
        "dtype": outputs.dtype,
    }


def roi_mask(prediction: Prediction) -> Any:
    """Return the region of interest as a mask of 0 and 1, uint8, of the image's shape."""
    mask = np.zeros(prediction.score.array.shape, np.uint8, order="F")
    mask[prediction.roi.box] = 1 if prediction.roi.inside is None else prediction.roi.inside
    return mask


def _knots(calibrator: Any) -> dict[str, list[float]]:
    knots = getattr(calibrator, "map_", calibrator)
    return {"x": np.asarray(knots.x).tolist(), "y": np.asarray(knots.y).tolist()}


def _check_apart(cases: Mapping[str, Sequence[Path]], outputs: Outputs) -> None:
    images = {file.resolve() for files in cases.values() for file in files}
    for case in cases:
        for file in (outputs.score(case), outputs.mask(case), outputs.roi(case)):
            if file.resolve() in images:
                raise ValueError(f"{file}: is an image; choose another folder for the predictions")


def _check_same(record: Path, settings: Mapping[str, Any]) -> None:
    try:
        before = dict(json.loads(record.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{record}: not a record of twintrack predict ({error}); delete it, and all is "
            "predicted again"
        ) from error
    for key, value in settings.items():
        if key != "twintrack" and before.get(key) != value:
            shown = "" if key == "calibrator" else f" {key} = {before.get(key)!r}, not {value!r}"
            raise ValueError(
                f"{record}: the predictions that are there were made with"
                f"{shown or ' another map'}; "
                "continuing would mix them: use another folder, or predict all again"
            )
