"""Streams of scores and annotations that are longer than memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError


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
            raise InputError(f"{name} must be at least {least}, got {value}")
    if distribution not in ("background", "uniform", "fp16"):
        raise InputError(
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
