"""Dice of a prediction against the STAPLE consensus of the raters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.checks import as_numbers
from twintrack.arrays.host import rater_arrays, to_numpy
from twintrack.errors import InputError
from twintrack.metrics.figures import Protocol, check_protocol

# Iteration stops when no sensitivity or specificity has moved by more.
_TOLERANCE = 1e-7
_SMOOTHING = 1e-6


def staple_consensus(raters: ArrayLike | Sequence[ArrayLike]) -> NDArray[np.bool_]:
    """Return the voxels that are tumour with a probability above 0.5 according to STAPLE.

    Expectation maximisation of Warfield, Zou and Wells (IEEE Trans. Med. Imaging 23(7), 2004) over
    the whole volume, started from the mean vote, with the mean vote's mean as prior, until no
    sensitivity or specificity moves by more than 1e-7: what SimpleITK's ``STAPLEImageFilter`` does
    by default, iteration by iteration.

    Voxels with the same votes always have the same probability, so sums over voxels are computed as
    sums over the vote patterns that occur, times their counts: the same iteration up to rounding
    (probabilities differ from SimpleITK's by about 1e-13), at a cost that does not depend on the
    number of voxels. A crop to the raters' bounding box, the usual shortcut, is not equivalent:
    prior and specificities depend on how much background there is.

    Where all raters agree on every voxel, their common mask is returned (SimpleITK has NaN for a
    volume without any mark or without any background).

    Parameters
    ----------
    raters : (N, *shape) array or sequence of N arrays (*shape), 0 and 1 in any dtype

    Returns
    -------
    (*shape) bool
    """
    votes = _count_votes(rater_arrays(raters))
    walked = np.full(votes.marked.shape, votes.consensus[0])
    walked[votes.marked] = votes.consensus[votes.pattern]
    consensus: NDArray[np.bool_] = walked.transpose(np.argsort(votes.axes))
    return consensus


def staple_dice(
    prediction: ArrayLike,
    raters: ArrayLike | Sequence[ArrayLike],
    protocol: Protocol = "official",
) -> float:
    """Return the Dice coefficient of a prediction and `staple_consensus`.

    2 |A ∩ G| / (|A| + |G| + 1e-6). If both are empty the official value is 0 and the corrected one
    1, as in TDSC.

    Parameters
    ----------
    prediction : (*shape) scores in [0, 1] of a float dtype, or a mask of 0 and 1 of any other
        A score is tumour if it is greater than 0.5.
    raters : (N, *shape) array or sequence of N arrays (*shape), 0 and 1 in any dtype

    Raises
    ------
    ValueError
        If shapes do not fit, or for a value that is not allowed, with its voxel.
    """
    check_protocol(protocol)
    votes = _count_votes(rater_arrays(raters))
    predicted = _predicted(prediction, votes)
    at_marked = predicted[votes.marked]
    total = int(np.count_nonzero(predicted))
    common = np.bincount(votes.pattern, weights=at_marked, minlength=votes.count.size)
    common[0] += total - int(np.count_nonzero(at_marked))
    overlap = float(common[votes.consensus].sum())
    sizes = total + int(votes.count[votes.consensus].sum())
    if sizes == 0 and protocol == "corrected":
        return 1.0
    return 2 * overlap / (sizes + _SMOOTHING)


@dataclass(frozen=True)
class _Votes:
    """Votes of a case by pattern; pattern 0 is that of a voxel nobody marked."""

    axes: tuple[int, ...]  # caller's axes in the order of those of `marked`
    marked: NDArray[np.bool_]  # voxels that at least one rater marked
    pattern: NDArray[np.intp]  # of each marked voxel
    count: NDArray[np.int64]  # voxels of each pattern
    consensus: NDArray[np.bool_]  # STAPLE's decision for each pattern


def _count_votes(raters: list[NDArray[Any]]) -> _Votes:
    shape = raters[0].shape
    for i, rater in enumerate(raters):
        if rater.shape != shape:
            raise InputError(f"raters[{i}] has shape {rater.shape} but raters[0] has shape {shape}")
    # In memory order, in which boolean indexing is fast.
    axes = tuple(int(axis) for axis in np.argsort([-abs(step) for step in raters[0].strides]))
    raters = [rater.transpose(axes) for rater in raters]
    marked = np.zeros(raters[0].shape, bool)
    for rater in raters:
        marked |= rater != 0
    votes = np.empty((len(raters), np.count_nonzero(marked)), bool)
    for i, rater in enumerate(raters):
        label = rater[marked]
        wrong = np.flatnonzero((label != 0) & (label != 1))
        if wrong.size:
            voxel = np.argwhere(marked)[wrong[0]][np.argsort(axes)].tolist()
            raise InputError(f"raters[{i}]{voxel} is {label[wrong[0]]}; labels must be 0 or 1")
        votes[i] = label != 0
    patterns, pattern, count = np.unique(votes, axis=1, return_inverse=True, return_counts=True)
    nobody = np.zeros((len(raters), 1), bool)
    patterns = np.concatenate([nobody, patterns], axis=1)
    count = np.concatenate([[marked.size - pattern.size], count])
    occurs = count > 0  # pattern 0 need not
    consensus = np.zeros(count.size, bool)
    consensus[occurs] = _staple(patterns[:, occurs], count[occurs]) > 0.5
    return _Votes(axes, marked, pattern.reshape(-1) + 1, count, consensus)


def _staple(patterns: NDArray[np.bool_], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability of tumour for each of P patterns that occur.

    `patterns` is (N, P), `count` (P,) voxels. NaN where tumour or background has died out.
    """
    if np.all(patterns == patterns[0]):
        unanimous: NDArray[np.float64] = patterns[0].astype(np.float64)
        return unanimous
    probability: NDArray[np.float64] = patterns.mean(axis=0)
    prior = float(count @ probability) / float(count.sum())
    before = None
    while True:
        with np.errstate(invalid="ignore", divide="ignore"):
            tumour, background = count * probability, count * (1 - probability)
            # Parts over the sum of the parts, so that a rate of 1 is exactly 1.
            hit, miss = patterns @ tumour, ~patterns @ tumour
            spared, accused = ~patterns @ background, patterns @ background
            sensitivity, specificity = hit / (hit + miss), spared / (spared + accused)
            p, q = sensitivity[:, None], specificity[:, None]
            is_tumour = prior * np.where(patterns, p, 1 - p).prod(axis=0)
            is_background = (1 - prior) * np.where(patterns, 1 - q, q).prod(axis=0)
            probability = is_tumour / (is_tumour + is_background)
        rates = np.concatenate([sensitivity, specificity])
        # This ends, for the likelihood grows with each step and is bounded. NaN is an end too.
        if before is not None and not (np.abs(rates - before) > _TOLERANCE).any():
            return probability
        before = rates


def _predicted(prediction: ArrayLike, votes: _Votes) -> NDArray[np.bool_]:
    """Return the predicted mask, with its axes in the order of `votes.marked`."""
    given = to_numpy(prediction, "prediction")
    shape = tuple(votes.marked.shape[i] for i in np.argsort(votes.axes))
    if given.shape != shape:
        raise InputError(f"prediction has shape {given.shape} but raters[0] has shape {shape}")
    given = as_numbers(given)
    values = given.transpose(votes.axes)
    # NaN fails both comparisons.
    if values.size > 0 and not (values.min() >= 0 and values.max() <= 1):
        voxel = np.argwhere(~((given >= 0) & (given <= 1)))[0]
        rule = "scores must be in [0, 1]" if given.dtype.kind == "f" else "labels must be 0 or 1"
        raise InputError(f"prediction{voxel.tolist()} is {given[tuple(voxel)]}; {rule}")
    predicted: NDArray[np.bool_] = values > 0.5
    return predicted
