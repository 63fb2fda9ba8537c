"""What a CaseTally must hold, voxel by voxel from the evaluation protocol, in NumPy."""

from dataclasses import dataclass

import numpy as np

from twintrack import _core

THRESHOLDS = np.linspace(0.1, 0.8, 6)


@dataclass
class Expected:
    votes: np.ndarray
    score_bins: tuple
    confidence_bins: tuple
    squares: float
    rater_scores: np.ndarray
    ranges: tuple


def to_bfloat16(x):
    """Round to bfloat16, ties to even; values stay float32."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def confidence_and_class(p, bfloat16):
    """Clamp, normalise and take the larger, step by step in the score's own type."""
    own = to_bfloat16 if bfloat16 else (lambda x: x)
    one, least = p.dtype.type(1), p.dtype.type(own(1e-8))
    background, tumour = np.maximum(own(one - p), least), np.maximum(p, least)
    total = own(background + tumour)
    background, tumour = own(background / total), own(tumour / total)
    return np.maximum(background, tumour).astype(np.float32), tumour > background


def expected(p, labels, bins=50, bfloat16=False):
    """`p` float16, float32 (also bfloat16 values) or float64; `labels` (N, *shape) bool."""
    labels = np.asarray(labels, bool)
    raters = len(labels)
    marked = np.argwhere(labels.any(axis=0))
    ranges = tuple(zip(marked.min(0), marked.max(0) + 1, strict=True)) if len(marked) else ()
    p, y = p.ravel(), labels.reshape(raters, -1)
    edges = _core.uniform_bin_edges(bins)
    exceeded = (p.astype(np.float64)[:, np.newaxis] > THRESHOLDS).sum(axis=1)
    votes = np.zeros((7, raters + 1), np.uint64)
    np.add.at(votes, (exceeded, y.sum(axis=0)), 1)

    def binned(value, answers):
        place = np.searchsorted(edges, value.astype(np.float32), "right") - 1
        count = np.bincount(place, minlength=bins + 1)
        total = np.bincount(place, value.astype(np.float64), bins + 1)
        return count, total, np.stack([np.bincount(place, a, bins + 1) for a in answers], axis=1)

    confidence, tumour = confidence_and_class(p, bfloat16)
    exact = p.astype(np.float64)
    return Expected(
        votes,
        binned(np.abs(p), y),
        binned(confidence, tumour == y),
        float(exact @ exact),
        y.astype(np.float64) @ exact,
        ranges,
    )
