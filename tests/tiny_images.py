"""Small CTs, in many orientations."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

SHAPE = (30, 28, 16)  # x, y, z


def affine_of(matrix: Any) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = (11, -23, 57)
    return affine


def oblique() -> np.ndarray:
    c, s = np.cos(0.2), np.sin(0.2)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return affine_of(turn @ np.diag([1.5, 1.2, 2.5]))


SLANTING = np.linalg.qr(np.array([[2, 7, 5], [9, -1, 6], [6, 4, -8]]))[0]
AFFINES = {
    "RAS": affine_of(np.diag([1.5, 1.2, 2.5])),
    "LPS": affine_of(np.diag([-1.5, -1.2, 2.5])),
    "flipped z": affine_of(np.diag([1.5, -1.2, -2.5])),
    "oblique": oblique(),
    "sagittal": affine_of([[0, 0, 2.5], [-1.5, 0, 0], [0, -1.2, 0]]),
    # The axes are far from the patient's.
    "slanting": affine_of(SLANTING @ np.diag([-1.5, 1.2, 2.5])),
}


def ct(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.asfortranarray((200 * field / field.std()).astype(np.int16))
