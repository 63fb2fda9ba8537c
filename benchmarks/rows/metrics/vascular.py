"""Vascular invasion: contact angles of five vessels, and the distances made from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from measure import read_seconds
from numpy.typing import NDArray
from suite.inputs import ct_case

from rows.metrics import official
from rows.row import CaseRow, NotRunError, Setting, Sizes
from twintrack.metrics.vascular import VESSELS, contact_degrees, invasion_distances

PADDING = 20  # pixels around tumour and vessel in a slice that are looked at
KERNELS = tuple(
    np.array(kernel) for kernel in ([[1, 1]], [[1], [1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]])
)


class Case(NamedTuple):
    """Score, raters and vessels; where the official evaluator is, if it is to run."""

    score: NDArray[np.float32]
    raters: list[NDArray[np.uint8]]
    vessels: NDArray[np.uint8]
    official: str | None
    with_scipy: bool


class Answer(NamedTuple):
    """Degrees (vessel, plane, rater or threshold), and distances by vessel."""

    degrees: NDArray[np.float64]
    distances: Mapping[str, float]


class VascularInvasion(CaseRow):
    """Five raters and six thresholds, three planes, as the benchmark defines it.

    SciPy takes minutes for a whole CT, so it has one of a quarter as many voxels along every axis.
    """

    goals: ClassVar[Mapping[str, str]] = {official.NAME: "≥ 1000×, same degrees"}
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        for setting in super().settings(sizes):
            smaller = tuple(max(min(extent, 32), extent // 4) for extent in sizes.shape)
            yield {**setting, "shape": smaller, "with_scipy": True}
            yield {**setting, "with_scipy": False}

    def prepare(self, setting: Setting) -> Case:
        case = ct_case(setting["shape"])
        return Case(
            case.score, case.raters, case.vessels, setting["official"], setting["with_scipy"]
        )

    def ours(self) -> Mapping[str, Callable[[Case], Answer]]:
        return {"vascular invasion": invasion_with_twintrack}

    def peers(self) -> Mapping[str, Callable[[Case], Answer]]:
        return {"SciPy ndimage": invasion_with_scipy, official.NAME: invasion_as_official}

    def peer_bytes(self, setting: Setting) -> int:
        return 32 * math.prod(setting["shape"])

    def traffic(self, ours: str, inputs: Case) -> int:  # noqa: ARG002
        # Scores and raters are needed only near the vessels.
        return inputs.vessels.nbytes

    def limit(self, ours: str, inputs: Case) -> float:  # noqa: ARG002
        return read_seconds([inputs.vessels.T])

    def difference(self, inputs: Case, ours: Answer, theirs: Answer) -> Mapping[str, float]:  # noqa: ARG002
        return {
            "degrees": float(np.max(np.abs(ours.degrees - theirs.degrees))),
            "distances": max(
                abs(distance - theirs.distances[name]) for name, distance in ours.distances.items()
            ),
        }


def invasion_with_twintrack(case: Case) -> Answer:
    """Both protocols share the degrees; the distances are the official ones."""
    found = contact_degrees(case.score, case.raters, case.vessels)
    degrees = np.concatenate([found.raters, found.thresholds], axis=-1)
    return Answer(degrees, invasion_distances(found).distance)


def invasion_as_official(case: Case) -> Answer:
    """The evaluator's own."""
    seen, distances = official.invasion(case.official, case.score, case.raters, case.vessels)
    degrees = np.array([np.transpose(seen[label]) for label in VESSELS.values()])  # masks last
    return Answer(degrees, distances)


def invasion_with_scipy(case: Case) -> Answer:
    """The benchmark's definitions, written down in SciPy: mask by mask, slice by slice."""
    if not case.with_scipy:
        raise NotRunError("takes minutes; see the smaller CT")
    masks = [mask != 0 for mask in case.raters]
    masks += [case.score > threshold for threshold in np.linspace(0.1, 0.8, 6)[:, np.newaxis]]
    occupied = [_occupied(mask) for mask in masks]
    degrees = np.zeros((len(VESSELS), 3, len(masks)))
    for row, label in enumerate(VESSELS.values()):
        vessel = case.vessels == label
        with_vessel = _occupied(vessel)
        for column, mask in enumerate(masks):
            for axis in range(3):
                slices = np.flatnonzero(occupied[column][axis] & with_vessel[axis])
                pairs = ((np.take(mask, k, axis), np.take(vessel, k, axis)) for k in slices)
                angles = (_angle(*pair) for pair in pairs)
                degrees[row, axis, column] = max(angles, default=0.0)
    raters = len(case.raters)
    distances = {
        name: float(np.mean([_distance(plane[:raters], plane[raters:]) for plane in degrees[row]]))
        for row, name in enumerate(VESSELS)
    }
    return Answer(degrees, distances)


def _occupied(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Whether each slice normal to each axis has a marked voxel."""
    last = mask.any(axis=2)
    return [last.any(axis=1), last.any(axis=0), mask.any(axis=(0, 1))]


def _angle(tumour: NDArray[np.bool_], vessel: NDArray[np.bool_]) -> float:
    from scipy.ndimage import binary_dilation, binary_erosion, convolve

    both = tumour | vessel
    # The padding leaves out nothing that a step of dilation or a kernel could see.
    near = tuple(
        slice(max(at[0] - PADDING, 0), at[-1] + PADDING + 1)
        for at in (np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0)))
    )
    lesion = binary_dilation(tumour[near])
    edge = vessel[near] & ~binary_erosion(vessel[near])
    rest, free = (lesion & ~edge).astype(np.uint8), edge & ~lesion
    contacts = np.count_nonzero(lesion & edge)
    for kernel in KERNELS:
        contacts += np.count_nonzero(free & (convolve(rest, kernel, mode="constant") > 0))
    pixels = np.count_nonzero(edge)
    return contacts / pixels * 360 if pixels else 0.0


def _distance(reference: NDArray[np.float64], prediction: NDArray[np.float64]) -> float:
    from scipy.stats import norm, wasserstein_distance

    grid = np.linspace(0, 360, 1000)
    u, v = (norm.pdf(grid, each.mean(), each.std() + 1e-6) for each in (reference, prediction))
    unseen = np.allclose(u, 0), np.allclose(v, 0)
    if all(unseen):
        return 0.0
    if any(unseen):
        other = v if unseen[0] else u
        # The prediction's mean is not divided by its density there, the raters' is.
        mean = np.sum(grid * other) / (1.0 if unseen[0] else other.sum())
        spread = np.sqrt(np.sum(other * (grid - mean) ** 2) / other.sum())
        return float(abs(mean)) if np.isclose(spread, 0) else 360.0
    u, v = (np.maximum(density, 0) for density in (u, v))
    return float(wasserstein_distance(grid, grid, u / u.sum(), v / v.sum()))
