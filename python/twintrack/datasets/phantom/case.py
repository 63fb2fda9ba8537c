"""One synthetic case: image, annotations, vessels and the score of an imagined network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.datasets.panorama import ANATOMY_LABELS
from twintrack.datasets.phantom.ct import (
    Canvas,
    Torso,
    develop,
    paint_organs,
    paint_pancreas,
    paint_tumour,
    paint_vessels,
)
from twintrack.datasets.phantom.geometry import Box, Float, Grid, smooth_field
from twintrack.datasets.phantom.patient import BODY_CENTRE, Patient, draw_patient, tumour_distance
from twintrack.datasets.phantom.spec import PhantomSpec
from twintrack.errors import InputError

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
        raise InputError(f"index must be at least 0, got {index}")

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
