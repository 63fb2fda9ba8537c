"""Vascular invasion: how well the predicted contact of tumour and vessels matches the raters'.

The contact angle of a tumour mask and a vessel is measured in slices normal to each axis: by each
rater's mask, and by the score above each of six thresholds. Per vessel and axis the two sets of
degrees are compared as distributions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack import _core
from twintrack.arrays.backend import cuda_module
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.case import DeviceCase, OpenCase, open_case
from twintrack.arrays.numbers import whole_number
from twintrack.metrics.figures import Protocol, check_protocol

#: Vessels of the CURVAS-PDACVI benchmark and their labels.
VESSELS: Mapping[str, int] = MappingProxyType(
    {"PORTA": 1, "SMV": 2, "AORTA": 3, "CELIAC TRUNK": 4, "SMA": 5}
)
#: What the benchmark calls slices normal to array axes 0, 1 and 2.
AXES = ("cor", "sag", "ax")
#: A voxel is predicted tumour at a threshold if its score is greater.
THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.1, 0.8, 6).tolist())

# Points on which the official evaluator samples densities of degrees, what it adds to a standard
# deviation, and its distance for one density that no point sees.
_GRID = np.linspace(0, 360, 1000)
_WIDENING = 1e-6
_PENALTY = 360.0
_LARGEST_LABEL = (1 << 63) - 1


@dataclass(frozen=True, eq=False)
class ContactDegrees(ByValue):
    """Contact angles of a case in degrees, 0 and more; 360 can be exceeded.

    Attributes
    ----------
    labels
        Vessel names and their labels, in the order of the first axis of the arrays.
    raters
        (L, 3, N) float64: vessel, axis that slices are normal to, rater.
    thresholds
        (L, 3, 6) float64: the same for the score above each of `THRESHOLDS`.
    occurs
        (L,) bool: whether the label occurs in the vessel map.
    shape
        Of the volume.
    """

    labels: Mapping[str, int]
    raters: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    occurs: NDArray[np.bool_]
    shape: tuple[int, ...]


class VascularInvasion(NamedTuple):
    """Distance in degrees per vessel, and what a reader of these figures should know."""

    distance: dict[str, float]
    notes: tuple[str, ...]


def contact_degrees(
    score: ArrayLike,
    raters: ArrayLike | Sequence[ArrayLike],
    vessels: ArrayLike,
    labels: Mapping[str, int] = VESSELS,
) -> ContactDegrees:
    """Measure contact angles of all vessels, axes, raters and thresholds in one pass.

    In a slice, with T the tumour mask: lesion = T dilated by the cross; edge = vessel without its
    erosion by the cross; contacts = edge pixels in the lesion, plus, for each of four two-pixel
    kernels, edge pixels outside it that look on the rest of the lesion. Degrees are contacts / edge
    pixels × 360, and the largest over the slices is taken: the same doubles as the benchmark's
    evaluator gives. The kernels look towards higher indices only, so flipping an axis changes
    degrees, while permuting axes permutes them.

    Parameters
    ----------
    score : (X, Y, Z) float16, bfloat16, float32 or float64 in [0, 1]
    raters : (N, X, Y, Z) or sequence of N arrays (X, Y, Z), 0 and 1 in any dtype; 1 ≤ N ≤ 58
    vessels : (X, Y, Z) whole numbers in any dtype
    labels
        Name and label (1 or more) of the vessels to measure, at most 255; other values in `vessels`
        are ignored, and a label that does not occur has 0 degrees throughout.

    Raises
    ------
    ValueError
        If shapes do not fit, or for a value that is not allowed, with its voxel. Scores and raters
        are read, and checked, near the vessels only.

    Notes
    -----
    Memory beyond the inputs: 8 bytes per row of voxels, and per thread up to 190 bytes per pixel of
    the vessels' bounding box in a slice. The result does not depend on threads or memory order.
    Arrays in CUDA memory are measured there, with 16 bytes per row; the counts come back at once.
    """
    return degrees_of_case(open_case(score, raters, vessels=vessels), labels)


def degrees_of_case(case: OpenCase, labels: Mapping[str, int] = VESSELS) -> ContactDegrees:
    """Measure the angles of a case with vessels whose arrays are converted; `contact_degrees`."""
    names = {
        str(name): whole_number(label, f"labels[{name!r}]", 1, _LARGEST_LABEL)
        for name, label in labels.items()
    }
    wanted = list(names.values())
    assert case.vessels is not None  # noqa: S101 - the callers see to it
    if isinstance(case, DeviceCase):
        score, raters, _ = case.compiled()
        vessels = case.vessels.compiled()
        degrees, occurs = cuda_module().contact_angles(
            score, raters, vessels, wanted, THRESHOLDS, case.device, case.stream
        )
    else:
        degrees, occurs = _core.contact_angles(
            case.score, case.raters, case.vessels, wanted, THRESHOLDS
        )
    n = len(case.raters)
    return ContactDegrees(names, degrees[..., :n], degrees[..., n:], occurs, case.vessels.shape)


def vascular_invasion(
    score: ArrayLike,
    raters: ArrayLike | Sequence[ArrayLike],
    vessels: ArrayLike,
    protocol: Protocol = "official",
    labels: Mapping[str, int] = VESSELS,
) -> VascularInvasion:
    """Return the distance between predicted and reference contact for each vessel.

    `contact_degrees` followed by `invasion_distances`; see there.
    """
    return invasion_distances(contact_degrees(score, raters, vessels, labels), protocol)


def invasion_distances(
    degrees: ContactDegrees, protocol: Protocol = "official"
) -> VascularInvasion:
    """Compare the degrees of raters and thresholds: mean over the axes of a Wasserstein distance.

    Reference and prediction are the normal distributions with the mean and the (population)
    standard deviation of the raters' and the thresholds' degrees. The mean over the axes is what
    the benchmark's code computes (its paper says "most restrictive plane"); both protocols keep it.

    ``official``
        As the evaluator: densities with the deviation widened by 1e-6, sampled on
        ``linspace(0, 360, 1000)``, normalised, compared as discrete distributions. The peak of
        (nearly) equal degrees can fall between grid points, and degrees above 360 lie off the grid,
        so that a density vanishes. Both vanish: 0. One does: the mean of the other if that one is a
        single grid point, else 360. The prediction's mean is there a sum that is not divided by the
        total density, so that its single grid point counts as one only at 0.
    ``corrected``
        The same normal distributions without the grid: their exact Wasserstein distance. Degrees
        are capped at 360 first, as no angle is larger; counting pixels repeatedly makes them so.
        With quantile functions a + b z and c + d z of a standard normal z, the distance is
        E|a - c + (b - d) z|, the mean of a folded normal (Leone, Nelson and Nottingham,
        Technometrics 3(4), 1961). It is defined for any degrees, 0 only for equal means and
        deviations, and |a - c| for two sets without spread.

    Raises
    ------
    ValueError
        If `protocol` is neither.
    """
    check_protocol(protocol)
    distance: dict[str, float] = {}
    vanished: dict[tuple[str, float], list[str]] = {}
    for row, name in enumerate(degrees.labels):
        per_axis = []
        for axis, axis_name in enumerate(AXES):
            reference, prediction = degrees.raters[row, axis], degrees.thresholds[row, axis]
            if protocol == "official":
                found, unseen = _official_distance(reference, prediction)
                if unseen:
                    vanished.setdefault((unseen, found), []).append(f"{name} {axis_name}")
            else:
                found = _normal_distance(np.minimum(reference, 360), np.minimum(prediction, 360))
            per_axis.append(found)
        distance[name] = float(np.mean(per_axis))
    notes = _case_notes(degrees, protocol)
    for (unseen, found), where in vanished.items():
        notes.append(
            f"the density of {unseen} vanishes on the evaluator's grid of degrees, so the official "
            f"distance is {found:g}: {', '.join(where)}"
        )
    return VascularInvasion(distance, tuple(notes))


def _official_distance(
    reference: NDArray[np.float64], prediction: NDArray[np.float64]
) -> tuple[float, str]:
    """Return the evaluator's distance and whose densities vanish on its grid, if any."""
    u, v = _density(reference), _density(prediction)
    no_u, no_v = bool(np.allclose(u, 0)), bool(np.allclose(v, 0))
    if no_u and no_v:
        return 0.0, "both raters and prediction"
    if no_u:
        return _alone(v, float((_GRID * v).sum())), "the raters"
    if no_v:
        return _alone(u, float((_GRID * u).sum() / u.sum())), "the prediction"
    # The area between the cumulative distributions, which are constant between grid points.
    difference = np.cumsum(u / u.sum() - v / v.sum())
    return float(np.abs(difference[:-1]) @ np.diff(_GRID)), ""


def _density(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = degrees.std() + _WIDENING
    z = (_GRID - degrees.mean()) / deviation
    density: NDArray[np.float64] = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / deviation
    return density


def _alone(density: NDArray[np.float64], mean: float) -> float:
    """Return the distance of a density from one that vanishes."""
    deviation = np.sqrt((density * (_GRID - mean) ** 2).sum() / density.sum())
    return abs(mean) if np.isclose(deviation, 0) else _PENALTY


def _normal_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the Wasserstein-1 distance of normals with the means and deviations of `a` and `b`."""
    mean = float(a.mean() - b.mean())
    deviation = abs(float(a.std() - b.std()))
    if deviation == 0:
        return abs(mean)
    ratio = mean / (deviation * math.sqrt(2))
    return deviation * math.sqrt(2 / math.pi) * math.exp(-ratio * ratio) + mean * math.erf(ratio)


def _case_notes(degrees: ContactDegrees, protocol: str) -> list[str]:
    notes = []
    for axis, extent in enumerate(degrees.shape):
        if extent == 1:
            others = " and ".join(AXES[i] for i in range(3) if i != axis)
            notes.append(f"one voxel along axis {axis}: {others} slices are single rows of pixels")
    absent = [
        f"{name} ({label})"
        for (name, label), occurs in zip(degrees.labels.items(), degrees.occurs, strict=True)
        if not occurs
    ]
    if absent:
        notes.append(f"not in vessels, so the distance is 0: {', '.join(absent)}")
    if not degrees.occurs.any():
        return notes
    if not degrees.raters.any():
        notes.append("no rater's tumour touches a vessel: all reference degrees are 0")
    elif degrees.raters.shape[-1] > 1 and not np.ptp(degrees.raters, axis=-1).any():
        notes.append("the degrees of all raters are equal: the reference has no spread")
    if not degrees.thresholds.any():
        notes.append("the predicted tumour touches no vessel at any threshold: its degrees are 0")
    largest = np.concatenate([degrees.raters, degrees.thresholds], axis=-1).max(axis=-1)
    above = [
        f"{name} {AXES[axis]} {largest[row, axis]:.4g}"
        for row, name in enumerate(degrees.labels)
        for axis in range(3)
        if largest[row, axis] > 360
    ]
    if above:
        outcome = "capped at 360" if protocol == "corrected" else "off the evaluator's grid"
        notes.append(f"degrees above 360 are {outcome}: {', '.join(above)}")
    return notes
