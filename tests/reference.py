"""Independent answers: NumPy sorting and SciPy's isotonic regression, from the definitions."""

import numpy as np
from scipy.optimize import isotonic_regression


def cut_starts(scores, bins):
    """First positions of the bins among the sorted scores (numerics contract: ties never split)."""
    ordered = np.sort(scores)
    voxels = len(ordered)
    positions = [k * voxels // bins for k in range(1, bins)]
    starts = [int(np.searchsorted(ordered, ordered[p], "left")) for p in positions if p < voxels]
    return np.unique([0, *starts])


def equal_mass(scores, labels, bins):
    """Counts, mean scores and votes (B, N) of the bins."""
    order = np.argsort(scores, kind="stable")
    starts = cut_starts(scores, bins)
    count = np.diff(np.append(starts, len(scores)))
    mean = np.add.reduceat(scores[order].astype(np.longdouble), starts) / count
    votes = np.stack([np.add.reduceat(rater[order].astype(np.int64), starts) for rater in labels])
    return count, mean.astype(np.float64), votes.T


def fitted_map(scores, labels, bins):
    """Knots of the MHR map."""
    count, mean, votes = equal_mass(scores, labels, bins)
    fit = isotonic_regression(votes.mean(axis=1) / count, weights=count)
    return mean, fit.x


def sample(rng, voxels, kind, dtype):
    """Scores of one of several distributions in [0, 1]."""
    u = rng.random(voxels)
    if kind == "background":
        u = np.where(rng.random(voxels) < 0.95, u * 1e-5, u)
    elif kind == "zeros":
        u = np.where(rng.random(voxels) < 0.9, 0.0, u)
    elif kind == "saturated":
        u = 1 / (1 + np.exp(-(u - 0.5) * 60))
    elif kind == "ties":
        u = np.round(u * 7) / 7
    return u.astype(dtype)


KINDS = ("uniform", "background", "zeros", "saturated", "ties")
