"""Cohorts of synthetic cases in files, as CURVAS–PDACVI and as PANORAMA publish theirs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from twintrack.datasets.phantom.case import phantom_case
from twintrack.datasets.phantom.spec import PhantomSpec
from twintrack.errors import InputError


def write_cohort(
    folder: str | os.PathLike[str],
    spec: PhantomSpec,
    cases: int | Iterable[int],
    *,
    score_format: Literal["nifti", "npz"] = "nifti",
    score_dtype: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort: images and annotations as CURVAS–PDACVI has them, predictions, a manifest.

    ::

        FOLDER/cases/PHANTOM_00000/image.nii.gz
                                   annotation_1.nii.gz … annotation_N.nii.gz
                                   vessels.nii.gz      if spec.vessels
                                   anatomy.nii.gz      labels as in PANORAMA
                                   roi.nii.gz          where the score was predicted
        FOLDER/predictions/PHANTOM_00000.nii.gz        the score
        FOLDER/manifest.csv                            case, score, rater_1 …, vessels, roi

    One case is in memory at a time. Files are replaced one by one when whole, the manifest last.

    Parameters
    ----------
    folder
        Created if it does not exist.
    spec
        What to generate.
    cases
        How many cases, from index 0, or the indices themselves.
    score_format
        ``"nifti"``, or ``"npz"`` for what ``nnUNetv2_predict --save_probabilities`` leaves:
        CASE.npz with ``probabilities`` (2, z, y, x), background and tumour, beside the segmentation
        CASE.nii.gz.
    score_dtype
        How scores are stored: as `twintrack.volumes.write_volume` takes it for NIfTI ("float32",
        "float64", "uint16", "uint8"), "float16", "float32" or "float64" for npz. None stores what
        the spec says; NIfTI knows no float16 and gets float32, which holds the same values.
    progress
        Called with (cases done, cases in all) after each case.

    Returns
    -------
    manifest
        Path of manifest.csv.

    Raises
    ------
    ValueError, TypeError
        No cases, or an unknown format or dtype.
    OSError
        Writing failed; the message names the file.
    """
    # The file formats are needed here alone.
    from twintrack.cohort import Case, write_manifest
    from twintrack.files import replacing
    from twintrack.volumes import write_volume

    indices = _indices(cases)
    stored = _stored_dtype(spec, score_format, score_dtype)
    folder = Path(folder)
    predictions = folder / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    written = []
    for done, index in enumerate(indices, start=1):
        case = phantom_case(spec, index)
        home = folder / "cases" / case.name
        home.mkdir(parents=True, exist_ok=True)
        raters = tuple(home / f"annotation_{k + 1}.nii.gz" for k in range(spec.raters))
        write_volume(home / "image.nii.gz", case.image, case.affine)
        for path, mask in zip(raters, case.raters, strict=True):
            write_volume(path, mask, case.affine)
        vessels = None if case.vessels is None else home / "vessels.nii.gz"
        if vessels is not None and case.vessels is not None:
            write_volume(vessels, case.vessels, case.affine)
        write_volume(home / "anatomy.nii.gz", case.anatomy, case.affine)
        write_volume(home / "roi.nii.gz", case.roi_mask(), case.affine)
        score = predictions / f"{case.name}.nii.gz"
        if score_format == "nifti":
            write_volume(score, case.score, case.affine, dtype=stored)
        else:
            write_volume(score, (case.score > 0.5).view(np.uint8), case.affine)
            score = predictions / f"{case.name}.npz"
            tumour = case.score.T.astype(stored)
            with replacing(score) as temporary:
                np.savez_compressed(temporary, probabilities=np.stack([1 - tumour, tumour]))
        written.append(
            Case(
                name=case.name, score=score, raters=raters, vessels=vessels, roi=home / "roi.nii.gz"
            )
        )
        if progress is not None:
            progress(done, len(indices))
    manifest = folder / "manifest.csv"
    write_manifest(manifest, written)
    return manifest


def write_panorama(
    folder: str | os.PathLike[str],
    spec: PhantomSpec,
    cases: int | Iterable[int],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write images and single-rater labels as PANORAMA publishes them, to train networks on.

    ``FOLDER/images/CASE_0000.nii.gz`` (HU) and ``FOLDER/labels/CASE.nii.gz`` (`ANATOMY_LABELS`).
    Parameters and errors as in `write_cohort`.
    """
    from twintrack.volumes import write_volume

    indices = _indices(cases)
    images, labels = Path(folder) / "images", Path(folder) / "labels"
    for home in (images, labels):
        home.mkdir(parents=True, exist_ok=True)
    for done, index in enumerate(indices, start=1):
        case = phantom_case(spec, index)
        write_volume(images / f"{case.name}_0000.nii.gz", case.image, case.affine)
        write_volume(labels / f"{case.name}.nii.gz", case.anatomy, case.affine)
        if progress is not None:
            progress(done, len(indices))


def _indices(cases: int | Iterable[int]) -> list[int]:
    indices = list(cases) if isinstance(cases, Iterable) else list(range(cases))
    if not indices:
        raise InputError(f"cases must be at least 1 or name at least one case, got {cases!r}")
    if len(set(indices)) < len(indices):
        raise InputError("cases must name each case once")
    return indices


def _stored_dtype(spec: PhantomSpec, score_format: str, score_dtype: str | None) -> str:
    choices = {
        "nifti": ("float32", "float64", "uint16", "uint8"),
        "npz": ("float32", "float16", "float64"),
    }
    if score_format not in choices:
        raise InputError(f"score_format must be 'nifti' or 'npz', got {score_format!r}")
    known = choices[score_format]
    if score_dtype is None:
        return spec.score_dtype if spec.score_dtype in known else known[0]
    if score_dtype not in known:
        raise InputError(
            f"score_dtype must be one of {', '.join(known)} for {score_format}, got {score_dtype!r}"
        )
    return score_dtype
