"""Members of an ensemble, and where their grids lie, for several packages' tests."""

import numpy as np

from twintrack.ensemble import ExportGeometry

WHOLE = ExportGeometry((6, 5, 4), ((0, 6), (0, 5), (0, 4)), (1, 1, 1), (1, 1, 1))


def logits(rng, shape, members=3, scale=4.0, dtype=np.float32):
    return [(rng.normal(size=shape) * scale).astype(dtype) for _ in range(members)]


def geometry_for(shape, member_spacing=(1, 1, 1), spacing=(1, 1, 1)):
    return ExportGeometry(shape, tuple((0, n) for n in shape), spacing, member_spacing)
