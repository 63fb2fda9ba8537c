"""Synthetic multi-rater CT cohorts: any size, seeded, no medical data needed.

A case is an abdominal CT in portal venous phase with a pancreas, one hypodense tumour and the five
vessels of the CURVAS–PDACVI benchmark, segmented by N raters who disagree in a controlled way,
together with the score of an imagined network whose miscalibration is controlled too. `PhantomSpec`
lists the controls.

The anatomy is analytic: vessels are tubes, organs ellipsoids, the tumour an ellipsoid with a smooth
random surface from which the vessels are carved. What depends on the tumour (raters, score) is
evaluated in a box around it, so that a case costs little more than painting its image once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.datasets._phantom_ct import (
    ANATOMY_LABELS,
    VESSEL_LABELS,
    Canvas,
    Torso,
    develop,
    paint_organs,
    paint_pancreas,
    paint_tumour,
    paint_vessels,
)
from twintrack.datasets._phantom_geometry import Box, Float, Grid, smooth_field
from twintrack.datasets._phantom_patient import BODY_CENTRE, Patient, draw_patient, tumour_distance
from twintrack.datasets._phantom_spec import PhantomSpec

__all__ = [
    "ANATOMY_LABELS",
    "VESSEL_LABELS",
    "PhantomCase",
    "PhantomSpec",
    "phantom_case",
    "score_stream",
    "write_cohort",
    "write_panorama",
]

# A displacement of a surface is clipped here (in standard deviations), which bounds the box that
# has to be looked at.
_CLIP = 4.0

# Networks saturate: nnU-Net's softmax rarely leaves [1e-5, 1 − 1e-5] inside its patch.
_LOGIT_LIMIT = 10.0

# A logistic distribution of this scale has standard deviation 1.
_LOGISTIC_SCALE = float(np.sqrt(3.0) / np.pi)

# A field of view too small for the body still shows this box (low and high corner, mm) when it
# fits: all five vessels.
_CORE = ((-26.0, -44.0, -30.0), (24.0, 16.0, 38.0))


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """One synthetic case. Arrays are in Fortran order (x fastest), as NIfTI files are.

    Attributes
    ----------
    name
        ``PHANTOM_`` and the index in five digits.
    image
        CT in HU, int16, shape (X, Y, Z).
    raters
        Tumour masks of 0 and 1, uint8, shape (N, X, Y, Z).
    vessels
        uint8, shape (X, Y, Z), numbered by `VESSEL_LABELS`; None when the spec asks for none.
    anatomy
        uint8, shape (X, Y, Z), numbered by `ANATOMY_LABELS`. Its PDAC is the true tumour about
        which the raters disagree; it never overlaps a vessel. Veins and arteries are the five
        labelled vessels, the splenic vessels and the hepatic artery.
    score
        Tumour probability in [0, 1] of the imagined network, shape (X, Y, Z), exactly 0 outside
        `roi`.
    roi
        Region of interest: slices along x, y, z.
    spacing
        Voxel size in mm along x, y, z.
    affine
        Voxel index to scanner millimetres (x right, y front, z up, as NIfTI), shape (4, 4),
        float64.
    """

    name: str
    image: NDArray[np.int16]
    raters: NDArray[np.uint8]
    vessels: NDArray[np.uint8] | None
    anatomy: NDArray[np.uint8]
    score: NDArray[np.floating[Any]]
    roi: tuple[slice, slice, slice]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]

    def mean_human_response(self) -> NDArray[np.float64]:
        """Fraction of raters who mark each voxel, shape (X, Y, Z)."""
        votes = self.raters.sum(axis=0, dtype=np.uint16)
        return np.asarray(votes / len(self.raters))

    def roi_mask(self) -> NDArray[np.uint8]:
        """Make a mask of 0 and 1 of the region of interest, shape (X, Y, Z)."""
        mask = np.zeros(self.image.shape, np.uint8, order="F")
        mask[self.roi] = 1
        return mask


def phantom_case(spec: PhantomSpec, index: int) -> PhantomCase:
    """Generate case `index` of the cohort that `spec` describes.

    Parameters
    ----------
    spec
        What to generate.
    index
        Number of the case, at least 0.

    Returns
    -------
    PhantomCase
        The same bits for the same spec and index, whichever cases were generated before and on any
        number of threads (with the same NumPy on the same kind of processor).

    Raises
    ------
    TypeError, ValueError
        `index` is not a whole number of at least 0.

    Examples
    --------
    >>> case = phantom_case(PhantomSpec(shape=(64, 64, 48), raters=3), 0)
    >>> case.raters.shape
    (3, 64, 64, 48)
    """
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
        raise TypeError(f"index must be a whole number, got {index!r}")
    if index < 0:
        raise ValueError(f"index must be at least 0, got {index}")

    def stream(ingredient: int, part: int = 0) -> np.random.Generator:
        return np.random.default_rng((spec.seed, int(index), ingredient, part))

    patient = draw_patient(stream(0), spec.tumour_radius, spec.variation)
    grid, affine = _place(spec, patient, stream(1))
    shape = (spec.shape[2], spec.shape[1], spec.shape[0])

    canvas = Canvas(grid, shape, least_radius=0.5 * max(spec.voxel_size))
    paint_organs(canvas, patient, stream(2))
    paint_pancreas(canvas, patient, stream(3))
    roi = _region_of_interest(spec, patient, grid)
    tumour = tumour_distance(roi, patient, stream(4))
    paint_tumour(canvas, roi, tumour)
    for box, wall in paint_vessels(canvas, patient, margin=max(patient.tumour_radii)):
        _carve(tumour, roi, wall, box)
    canvas.anatomy[roi.where][tumour < 0] = ANATOMY_LABELS["PDAC"]
    develop(canvas.hu, Torso(grid, patient), spec.voxel_size, spec.noise, stream(5))

    raters = np.zeros((spec.raters, *shape), np.uint8)
    box, near = _crop(roi, tumour, _reach(spec))
    for k, bias in enumerate(spec.rater_biases):
        if k not in spec.empty_raters and not box.empty:
            surface = _displaced(near, spec.disagreement, spec.smoothness, box, stream(6, k))
            raters[k][box.where] = surface < bias
    score = np.zeros(shape, spec.score_dtype)
    if not roi.empty:
        score[roi.where] = _score(spec, tumour, roi, stream(7))
    z, y, x = roi.where
    return PhantomCase(
        name=f"PHANTOM_{index:05d}",
        image=canvas.hu.T,
        raters=raters.transpose(0, 3, 2, 1),
        vessels=canvas.vessels.T if spec.vessels else None,
        anatomy=canvas.anatomy.T,
        score=score.T,
        roi=(x, y, z),
        spacing=spec.voxel_size,
        affine=affine,
    )


def _place(
    spec: PhantomSpec, patient: Patient, rng: np.random.Generator
) -> tuple[Grid, NDArray[np.float64]]:
    """Where the scanner looks: voxel centres in the patient's frame, and the affine."""
    signs = rng.integers(0, 2, 3) * 2 - 1
    if spec.orientation != "random":
        signs = np.array([1 if letter in "RAS" else -1 for letter in spec.orientation])
    jitter = 5.0 * spec.variation * np.clip(rng.standard_normal(3), -2, 2)
    table = np.round(60.0 * spec.variation * np.clip(rng.standard_normal(3), -2, 2), 1)
    angles = np.deg2rad(spec.oblique * rng.uniform(-1, 1, 3))
    step = signs * spec.voxel_size
    reach = 1.5 * max(patient.tumour_radii)
    axes, corner = [], np.zeros(3)
    for k, count in enumerate(spec.shape):
        half = 0.5 * count * spec.voxel_size[k]
        middle = patient.tumour_centre[k]
        low, high = min(_CORE[0][k], middle - reach), max(_CORE[1][k], middle + reach)
        if high - low <= 2 * half:
            middle = float(np.clip(BODY_CENTRE[k] + jitter[k], high - half, low + half))
        corner[k] = middle - step[k] * (count - 1) / 2
        axes.append((corner[k] + step[k] * np.arange(count)).astype(np.float32))
    rotation = _rotation(*angles)
    affine = np.eye(4)
    affine[:3, :3] = rotation * step
    affine[:3, 3] = rotation @ corner + table
    return Grid(*axes), affine


def _rotation(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Rotation about the z, then the y, then the x axis, by angles in radians."""
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    return np.asarray(np.array(about_x) @ about_y @ about_z, np.float64)


def _reach(spec: PhantomSpec) -> float:
    """Farthest in mm from the true surface at which a rater may still mark a voxel."""
    return _CLIP * spec.disagreement + max(0.0, *spec.rater_biases)


def _region_of_interest(spec: PhantomSpec, patient: Patient, grid: Grid) -> Box:
    """Box the pancreas with its margin, and all that a rater may mark."""
    low, high = patient.pancreas_bounds()
    centre = np.array(patient.tumour_centre)
    reach = max(patient.tumour_radii) + 4 * patient.bulge + _reach(spec)
    return grid.box(
        np.minimum(low - spec.roi_margin, centre - reach),
        np.maximum(high + spec.roi_margin, centre + reach),
    )


def _carve(tumour: Float, roi: Box, wall: Float, box: Box) -> None:
    """Take a vessel out of the tumour, in place: the distance to both is max(tumour, −wall)."""
    ours, theirs = [], []
    for a, b in zip(roi.where, box.where, strict=True):
        low, high = max(a.start, b.start), min(a.stop, b.stop)
        if low >= high:
            return
        ours.append(slice(low - a.start, high - a.start))
        theirs.append(slice(low - b.start, high - b.start))
    part = tumour[tuple(ours)]
    np.maximum(part, -wall[tuple(theirs)], out=part)


def _crop(roi: Box, distance: Float, reach: float) -> tuple[Box, Float]:
    """Cut a region to the smallest box that holds distance <= reach."""
    near = distance <= reach
    parts = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        hits = np.flatnonzero(near.any(axis=others))
        parts.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 0))
    z, y, x = parts
    where_z, where_y, where_x = (
        slice(whole.start + part.start, whole.start + part.stop)
        for whole, part in zip(roi.where, parts, strict=True)
    )
    box = Box((where_z, where_y, where_x), roi.x[:, :, x], roi.y[:, y], roi.z[z])
    return box, distance[z, y, x]


def _displaced(
    distance: Float, amount: float, length: float, box: Box, rng: np.random.Generator
) -> Float:
    """Distance to the surface after a smooth random displacement by `amount` mm (1 sd)."""
    if amount == 0:
        return distance
    field = smooth_field(rng, box, length)
    np.clip(field, -_CLIP, _CLIP, out=field)
    field *= np.float32(amount)
    field += distance
    return field


def _score(
    spec: PhantomSpec, tumour: Float, roi: Box, rng: np.random.Generator
) -> NDArray[np.floating[Any]]:
    """Logistic of the distance to the network's surface, saturating as networks do.

    Raters mark a voxel at distance d from the true surface with probability Φ((b − d) / σ), b their
    mean bias and σ² the variance of their displacements; at distance d from the network's surface,
    its own displacement adds to σ². The logistic with that standard deviation is what sharpness 1
    stands for. Half a voxel is the least to which a surface can be known.
    """
    certainty = smooth_field(rng, roi, spec.smoothness)
    distance = _displaced(tumour, spec.score_noise, spec.smoothness, roi, rng)
    variance = spec.disagreement**2 + float(np.var(spec.rater_biases)) + spec.score_noise**2
    spread = max(float(np.sqrt(variance)), 0.5 * min(spec.voxel_size))
    logit = (np.float32(spec.score_bias + np.mean(spec.rater_biases)) - distance) * np.float32(
        spec.score_sharpness / (_LOGISTIC_SCALE * spread * _LOGIT_LIMIT)
    )
    np.tanh(logit, out=logit)
    # Saturated logits still differ from place to place.
    logit *= _LOGIT_LIMIT + np.float32(0.25) * certainty * np.abs(logit)
    logit = logit.astype(np.result_type(spec.score_dtype, np.float32), copy=False)
    score: NDArray[np.floating[Any]] = 1 / (1 + np.exp(-logit))
    return score


# --------------------------------------------------------------------------------------------------
# On disk


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
        raise ValueError(f"cases must be at least 1 or name at least one case, got {cases!r}")
    if len(set(indices)) < len(indices):
        raise ValueError("cases must name each case once")
    return indices


def _stored_dtype(spec: PhantomSpec, score_format: str, score_dtype: str | None) -> str:
    choices = {
        "nifti": ("float32", "float64", "uint16", "uint8"),
        "npz": ("float32", "float16", "float64"),
    }
    if score_format not in choices:
        raise ValueError(f"score_format must be 'nifti' or 'npz', got {score_format!r}")
    known = choices[score_format]
    if score_dtype is None:
        return spec.score_dtype if spec.score_dtype in known else known[0]
    if score_dtype not in known:
        raise ValueError(
            f"score_dtype must be one of {', '.join(known)} for {score_format}, got {score_dtype!r}"
        )
    return score_dtype


# --------------------------------------------------------------------------------------------------
# Streams longer than memory


def score_stream(
    voxels: int,
    raters: int = 5,
    seed: int = 0,
    distribution: Literal["background", "uniform", "fp16"] = "background",
    *,
    chunk: int = 1 << 22,
    period: int = 1 << 22,
) -> Iterator[tuple[NDArray[np.floating[Any]], NDArray[np.uint8]]]:
    """Yield any number of voxels without images, for runs of 10⁹ voxels and more.

    Voxel j is element j mod `period` of one seeded block, whatever the chunk size. Chunks are views
    of that block: the stream costs nothing per voxel, its memory is (bytes per score + raters) ·
    (period + chunk), and what it adds up to follows from one period in exact integers.

    Each rater marks a voxel of score s independently with probability s², so that the calibrated
    score is s² (an over-confident network).

    Parameters
    ----------
    voxels
        How many, at least 0.
    raters
        Number N of raters, at least 1.
    seed
        Seed of the block, at least 0.
    distribution
        ``"background"``: float32, 98% exactly 0 in long runs, as whole CTs are; the rest U-shaped.
        ``"uniform"``: float32, uniform in [0, 1). ``"fp16"``: float16, the logistic of normal
        logits (mean −4, standard deviation 4): many ties.
    chunk, period
        Voxels per chunk (the last may be shorter) and per block, at least 1.

    Yields
    ------
    score
        Read-only, shape (n,).
    raters
        Read-only, 0 and 1, uint8, shape (N, n).

    Raises
    ------
    ValueError
        A number is below its bound or the distribution is unknown; raised by the call itself.
    """
    for name, value, least in (
        ("voxels", voxels, 0),
        ("raters", raters, 1),
        ("seed", seed, 0),
        ("chunk", chunk, 1),
        ("period", period, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if distribution not in ("background", "uniform", "fp16"):
        raise ValueError(
            f"distribution must be 'background', 'uniform' or 'fp16', got {distribution!r}"
        )
    return _score_stream(voxels, raters, seed, distribution, min(chunk, max(voxels, 1)), period)


def _score_stream(
    voxels: int, raters: int, seed: int, distribution: str, chunk: int, period: int
) -> Iterator[tuple[NDArray[np.floating[Any]], NDArray[np.uint8]]]:
    rng = np.random.default_rng(seed)
    score = _stream_scores(rng, period, distribution)
    probability = np.square(score, dtype=np.float32)
    marks = np.empty((raters, period), np.uint8)
    for row in marks:
        np.less(rng.random(period, dtype=np.float32), probability, out=row.view(np.bool_))
    # The block goes on past its end by a chunk, so that every chunk is one view.
    wrap = np.arange(chunk) % period
    score = np.concatenate([score, score[wrap]])
    marks = np.concatenate([marks, marks[:, wrap]], axis=1)
    score.flags.writeable = marks.flags.writeable = False
    for start in range(0, voxels, chunk):
        first = start % period
        last = first + min(chunk, voxels - start)
        yield score[first:last], marks[:, first:last]


def _stream_scores(
    rng: np.random.Generator, period: int, distribution: str
) -> NDArray[np.floating[Any]]:
    if distribution == "uniform":
        return rng.random(period, dtype=np.float32)
    logits = rng.standard_normal(period, dtype=np.float32) * 4
    if distribution == "fp16":
        logits = (logits - 4).astype(np.float16).astype(np.float32)
    score = 1 / (1 + np.exp(-logits))
    if distribution == "fp16":
        return score.astype(np.float16)
    # The tumour's neighbourhood comes in runs, as rows of a volume cross it.
    run = min(4096, period)
    foreground = rng.random(-(-period // run)) < 0.02
    foreground[rng.integers(foreground.size)] = True
    score *= np.repeat(foreground, run)[:period]
    return np.asarray(score, np.float32)
