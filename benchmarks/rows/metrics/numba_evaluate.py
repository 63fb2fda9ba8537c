"""TDSC, ECE and CRPS in numba: one pass over the CT, and one over the annotated box for the ECE.

Rows in which nothing is scored and marked are found with vector instructions and only counted. The
rest is as the benchmark defines it, but for the CRPS, whose integral is taken exactly between the
points of its CDF, which the evaluator's quadrature does not reach. It keeps no sums that cohorts
could be pooled from, and nothing is checked.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from rows.loops import use_our_threads

THRESHOLDS = np.linspace(0.1, 0.8, 6)
LEVELS = THRESHOLDS.size + 1
EDGES = np.linspace(0, 1, 51).astype(np.float32)
"""Of the ECE's bins; a confidence of 1 has one of its own."""
_TINY = np.float32(1e-8)


def evaluate_with_loops(
    score: NDArray[np.float32], raters: list[NDArray[np.uint8]], margin: int
) -> dict[str, float]:
    """Figures of a CT (X, Y, Z), x fastest; `margin` in voxels around all annotations."""
    use_our_threads()
    image, masks = score.T, tuple(mask.T for mask in raters)
    # A float32 is above a threshold if it is above the largest float32 that is not.
    levels = THRESHOLDS.astype(np.float32)
    levels = np.where(levels > THRESHOLDS, np.nextafter(levels, np.float32(0)), levels)
    depth = len(image)
    counts = np.zeros((depth, LEVELS, len(raters) + 1), np.int64)
    volumes = np.zeros((depth, len(raters)), np.int64)
    totals = np.zeros(depth)
    boxes = np.tile([np.iinfo(np.int64).max] * 3 + [-1] * 3, (depth, 1))
    _pass_over_all(image, masks, levels, counts, volumes, totals, boxes)
    joint = counts.sum(axis=0)
    mhr = np.arange(len(raters) + 1) / len(raters)
    lower, upper = boxes[:, :3].min(axis=0), boxes[:, 3:].max(axis=0)
    # The evaluator's box: its upper end is one short, and a start below 0 counts from the end.
    box = np.array(
        [
            slice(int(first) - margin, int(last) + margin).indices(extent)[:2]
            for first, last, extent in zip(lower, upper, image.shape, strict=True)
        ]
    )
    return {
        "TDSC": _tdsc(joint, mhr),
        "ECE": _ece(image, masks, box),
        "CRPS": _crps(float(totals.sum()), volumes.sum(axis=0)),
    }


def _tdsc(joint: NDArray[np.int64], mhr: NDArray[np.float64]) -> float:
    dice = []
    for k, threshold in enumerate(THRESHOLDS):
        marked = mhr > threshold
        both = int(joint[k + 1 :, marked].sum())
        sizes = int(joint[k + 1 :].sum()) + int(joint[:, marked].sum())
        dice.append(2 * both / (sizes + 1e-6) if sizes else 1.0)
    return float(np.mean(dice))


def _ece(score: NDArray[np.float32], masks: Any, box: NDArray[np.int64]) -> float:
    extents = box[:, 1] - box[:, 0]
    if np.any(extents <= 0):
        return math.nan
    claimed = np.zeros((extents[0], EDGES.size))
    right = np.zeros((extents[0], len(masks), EDGES.size))
    _pass_over_box(score, masks, EDGES, box, claimed, right)
    gaps = np.abs(right.sum(axis=0) - claimed.sum(axis=0)).sum(axis=1)
    return float(np.mean(gaps) / extents.prod())


def _crps(predicted: float, volumes: NDArray[np.int64]) -> float:
    mean, deviation = float(np.mean(volumes)), float(np.std(volumes))
    if deviation == 0:
        return 0.0
    first, last = mean - 3 * deviation, mean + 3 * deviation
    reach = float(ndtri(0.99)) * deviation
    points = np.linspace(mean - reach, mean + reach, 100)
    ends = np.unique(np.clip([first, *points, predicted, last], first, last))
    left, right = (ends[:-1], ends[1:])
    # Close to their ends, as the CDF jumps where its points begin and end.
    inside = 1e-9 * (right - left)
    at = [left + inside, (left + right) / 2, right - inside]
    cdf = [np.interp(x, points, ndtr((points - mean) / deviation), 0.0, 1.0) for x in at]
    a, b, c = ((each - (at[1] > predicted)) ** 2 for each in cdf)
    return float(((right - left) * (a + 4 * b + c) / 6).sum())  # squares of lines: exact


@numba.njit(fastmath=True)
def _is_empty(score: Any, masks: Any, z: int, y: int, first: int, last: int) -> bool:
    row = score[z, y, first:last].view(np.uint32)
    found = np.uint32(0)
    for x in range(row.size):
        found |= row[x]
    if found:
        return False
    marked = np.uint8(0)
    for mask in masks:
        part = mask[z, y, first:last]
        for x in range(part.size):
            marked |= part[x]
    return marked == 0


@numba.njit(parallel=True)
def _pass_over_all(
    score: Any, masks: Any, levels: Any, counts: Any, volumes: Any, totals: Any, boxes: Any
) -> None:
    for z in numba.prange(score.shape[0]):
        totals[z] = _add_slice(score, masks, levels, z, counts[z], volumes[z], boxes[z])


@numba.njit(fastmath=True)
def _add_slice(
    score: Any, masks: Any, levels: Any, z: int, counts: Any, volumes: Any, box: Any
) -> float:
    height, width = score.shape[1], score.shape[2]
    level, votes = np.empty(width, np.uint8), np.empty(width, np.uint8)
    total = 0.0
    for y in range(height):
        if _is_empty(score, masks, z, y, 0, width):
            counts[0, 0] += width
            continue
        row = score[z, y]
        votes[:] = 0
        for k, mask in enumerate(masks):
            part = mask[z, y]
            marks = np.int32(0)
            for x in range(width):
                votes[x] += part[x]
                marks += np.int32(part[x])
            volumes[k] += marks
        level[:] = 0
        for t in range(levels.size):
            threshold = levels[t]
            for x in range(width):
                level[x] += np.uint8(row[x] > threshold)
        row_sum = np.float64(0)
        for x in range(width):
            row_sum += np.float64(row[x])
            counts[level[x], votes[x]] += 1
            if votes[x]:
                box[0], box[1], box[2] = min(box[0], z), min(box[1], y), min(box[2], x)
                box[3], box[4], box[5] = max(box[3], z), max(box[4], y), max(box[5], x)
        total += row_sum
    return total


@numba.njit(parallel=True)
def _pass_over_box(score: Any, masks: Any, edges: Any, box: Any, claimed: Any, right: Any) -> None:
    for k in numba.prange(len(claimed)):
        z = box[0, 0] + k
        for y in range(box[1, 0], box[1, 1]):
            _add_calibration(score, masks, edges, z, y, box[2], claimed[k], right[k])


@numba.njit
def _add_calibration(
    score: Any, masks: Any, edges: Any, z: int, y: int, ends: Any, claimed: Any, right: Any
) -> None:
    first, last = ends
    row = score[z, y, first:last]
    if _is_empty(score, masks, z, y, first, last):
        claimed[-1] += row.size  # of a confidence of 1
        for k in range(len(masks)):
            right[k, -1] += row.size
        return
    which, prediction = np.empty(row.size, np.uint32), np.empty(row.size, np.uint8)
    for x in range(row.size):
        tumour, other = max(row[x], _TINY), max(np.float32(1) - row[x], _TINY)
        both = tumour + other
        tumour, other = tumour / both, other / both
        prediction[x] = np.uint8(tumour > other)
        confidence = max(tumour, other)
        at = np.uint32(confidence * np.float32(edges.size - 1))
        if confidence < edges[at]:
            at -= np.uint32(1)
        elif at + 1 < edges.size and confidence >= edges[at + np.uint32(1)]:
            at += np.uint32(1)
        which[x] = at
        claimed[at] += confidence
    for k, mask in enumerate(masks):
        part = mask[z, y, first:last]
        for x in range(row.size):
            right[k, which[x]] += np.float64(prediction[x] == part[x])
