"""Seeded inputs of any size: scores and rater masks in several distributions, and CTs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twintrack.datasets.phantom import PhantomSpec, phantom_case

if TYPE_CHECKING:
    from twintrack.cohort import Case

DISTRIBUTIONS = {
    "uniform": "float32, uniform in [0, 1)",
    "background": "float32, 97% near 0 in runs of 4096 voxels, as a whole CT is",
    "ensemble3": "float32, mean of three networks that are nearly sure: most scores lie near k / 3",
    "ensemble5": "float32, the same of five networks",
    "saturated3": "float32, mean of three networks in half precision, whose outputs are nearly all "
    "exactly 0 or 1: scores are 0, 1/3, 2/3, 1 and a few in between",
    "fp16": "float16 logistic of normal logits: few different values, many ties",
}
RATERS = 5


class Networks(NamedTuple):
    """What an ensemble is made of.

    A logit of a trained network is tens in clear tumour or background: `gain` says how sure they
    are. Half precision has no number between 1 - 2^-11 and 1, so there a logit above 8.3 is a score
    of 1, and one below -17.4 a score of 0.
    """

    members: int
    gain: float
    half: bool


NETWORKS = {
    "ensemble3": Networks(3, gain=8, half=False),
    "ensemble5": Networks(5, gain=8, half=False),
    "saturated3": Networks(3, gain=64, half=True),
}
_CHUNK = 1 << 22  # voxels made at a time, a whole number of runs
_RUN = 4096  # voxels, about a row of slices that the tumour's neighbourhood spans


SMALL = "TWINTRACK_BENCH_SMALL"
"""Environment variable; if it is set, benchmarks run on their first, smallest inputs only."""


def choices(*values: Any) -> list[Any]:
    """All values of a benchmark's parameter, or the first where it is only to be seen to run."""
    return list(values[:1] if os.environ.get(SMALL) else values)


class CT(NamedTuple):
    """A case: arrays (X, Y, Z), x fastest, as in a file."""

    name: str
    score: NDArray[np.float32]
    raters: list[NDArray[np.uint8]]
    vessels: NDArray[np.uint8]
    affine: NDArray[np.float64]


def scores(voxels: int, distribution: str, seed: int = 0) -> NDArray[Any]:
    """Scores in [0, 1], shape (voxels,)."""
    rng = np.random.default_rng(seed)
    result = np.empty(voxels, np.float16 if distribution == "fp16" else np.float32)
    for start in range(0, voxels, _CHUNK):
        part = result[start : start + _CHUNK]
        if distribution == "uniform":
            rng.random(out=part, dtype=np.float32)
            continue
        logits = rng.standard_normal(part.size, np.float32)
        networks = NETWORKS.get(distribution)
        if networks is not None:
            _ensemble_mean(part, 2 * logits - 1, networks, rng)
            continue
        if distribution == "fp16":
            part[:] = _logistic((logits * 4 - 4).astype(np.float16).astype(np.float32))
            continue
        # Of the runs 3% are the tumour's neighbourhood, a third lies outside the crop, where the
        # score is exactly 0, and the rest is what a network says of clear background.
        kind = np.repeat(rng.random(-(-part.size // _RUN)), _RUN)[: part.size]
        part[:] = _logistic(np.where(kind < 0.03, logits * 4, logits * 2 - 12))
        part[kind > 2 / 3] = 0
    return result


def _ensemble_mean(
    result: NDArray[np.float32],
    logits: NDArray[np.float32],
    networks: Networks,
    rng: np.random.Generator,
) -> None:
    """Write the mean of what `networks` say; all see the same logits, and each errs by its own."""
    result[:] = 0
    for _ in range(networks.members):
        own = rng.standard_normal(result.size, np.float32)
        output = _logistic(np.clip(np.float32(networks.gain) * (logits + own), -80, 80))
        result += output.astype(np.float16) if networks.half else output
    result /= np.float32(networks.members)


def knots(score: NDArray[Any], count: int = 250) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots (x, x²) of a map, where a fit would put them: at quantiles of the scores."""
    sample = score[:: max(score.size // 1_000_000, 1)].astype(np.float64)
    x = np.unique(np.quantile(sample, (np.arange(count) + 0.5) / count))
    # Where ties leave fewer quantiles than knots, the rest is spread over the range.
    missing = count - x.size
    x = np.unique(np.append(x, (np.arange(missing) + 0.5) / max(missing, 1)))
    return x, x**2


def rater_masks(
    score: NDArray[Any], raters: int = RATERS, seed: int = 1
) -> list[NDArray[np.uint8]]:
    """Masks of 0 and 1: each rater marks a voxel of score s with probability s².

    So the calibrated score is s², as for a network that is over-confident by that much.
    """
    rng = np.random.default_rng(seed)
    masks = [np.empty(score.size, np.uint8) for _ in range(raters)]
    for start in range(0, score.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        probability = np.square(score[part], dtype=np.float32)
        for mask in masks:
            mask[part] = rng.random(probability.size, np.float32) < probability
    return masks


def ct_case(shape: tuple[int, int, int], index: int = 0) -> CT:
    """An abdominal CT with five raters, five vessels and a score that is 0 outside of the ROI.

    Arrays are copies: zeros that nobody has written all lie in one page, and are read from a cache.
    """
    case = phantom_case(PhantomSpec(shape=shape, raters=RATERS), index)
    if case.vessels is None:
        raise AssertionError("the specification asks for vessels")
    raters = [mask.copy(order="K") for mask in case.raters]
    score: NDArray[np.float32] = case.score.astype(np.float32)
    return CT(case.name, score, raters, case.vessels.copy(order="K"), case.affine)


def ensemble_case(case: CT, members: int) -> CT:
    """Return the case with the mean of so many networks as its score; of one it is the case.

    Each errs in every voxel by its own, in logits. Where the score is 0, which is outside of the
    region of interest, it stays 0.
    """
    if members == 1:
        return case
    rng = np.random.default_rng(0)
    scored = case.score > 0
    known = np.clip(case.score[scored], np.float32(1e-6), np.float32(1 - 1e-6))
    mean = np.empty_like(known)
    sure = Networks(members, gain=4, half=False)
    _ensemble_mean(mean, np.log(known / (1 - known)), sure, rng)
    score = case.score.copy(order="K")
    score[scored] = mean
    return case._replace(score=score)


def scored_everywhere(case: CT) -> CT:
    """Return the case with a score in every voxel, as a network asked about all of it gives.

    Where the score is 0 it becomes log-uniform from 1e-6 to 1e-3. The low digits of a network's
    output are noise, which hardly compresses.
    """
    small = np.random.default_rng(0).random(case.score.size, np.float32)
    small = (np.float32(10) ** (3 * small - 6)).reshape(case.score.shape, order="F")
    return case._replace(score=np.where(case.score == 0, small, case.score))


def write_case(folder: Path, case: CT) -> Case:
    """Write as .nii.gz what `twintrack evaluate` reads of a case: score, raters and vessels."""
    # Arrays alone need no nibabel, which is not on every machine that has a device.
    from twintrack.cohort import Case
    from twintrack.volumes import write_volume

    home = folder / case.name
    home.mkdir()
    arrays: dict[str, NDArray[Any]] = {"score": case.score, "vessels": case.vessels}
    arrays |= {f"rater_{k}": mask for k, mask in enumerate(case.raters, start=1)}
    paths = {name: home / f"{name}.nii.gz" for name in arrays}
    for name, array in arrays.items():
        write_volume(paths[name], array, case.affine)
    raters = tuple(paths[name] for name in arrays if name.startswith("rater"))
    return Case(case.name, paths["score"], raters, paths["vessels"])


def _logistic(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) / (np.float32(1) + np.exp(-logits))
