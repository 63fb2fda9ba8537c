"""Seeded scores and rater masks of any size, in the distributions that benchmarks are run on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DISTRIBUTIONS = {
    "uniform": "float32, uniform in [0, 1)",
    "background": "float32, 97% near 0 in runs of 4096 voxels, as a whole CT is",
    "fp16": "float16 logistic of normal logits: few different values, many ties",
}
RATERS = 5

_CHUNK = 1 << 22  # voxels made at a time, a whole number of runs
_RUN = 4096  # voxels, about a row of slices that the tumour's neighbourhood spans


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
        if distribution == "fp16":
            part[:] = _logistic((logits * 4 - 4).astype(np.float16).astype(np.float32))
            continue
        # Of the runs 3% are the tumour's neighbourhood, a third lies outside the crop, where the
        # score is exactly 0, and the rest is what a network says of clear background.
        kind = np.repeat(rng.random(-(-part.size // _RUN)), _RUN)[: part.size]
        part[:] = _logistic(np.where(kind < 0.03, logits * 4, logits * 2 - 12))
        part[kind > 2 / 3] = 0
    return result


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


def _logistic(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) / (np.float32(1) + np.exp(-logits))
