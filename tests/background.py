"""Background, which tallies count without loading it: the same for every kind of tally."""

import numpy as np

DTYPES = (np.float16, np.float32, np.float64)
LABELS_AS = (bool, np.int16, np.float64)


def assert_background_counts(tally, dtype, labels_as):
    """Voxels of blocks that are 0 everywhere count as others do; `tally` makes one for N raters.

    Such blocks are counted without being loaded if memory shows it. The same voxels with gaps
    between them, or with a region, are all loaded.
    """
    score = np.zeros(20_000, dtype)
    labels = np.zeros((9, score.size), labels_as)
    score[[3, 5000, 19_999]] = 0.25, 1, 0.5
    score[7000] = -0.0
    labels[8, [9000, 19_999]] = labels[0, 12_288] = 1  # a vote of the second group; a block's first
    apart = np.zeros((score.size, 2), dtype)
    apart[:, 0] = score
    everywhere = np.ones(score.shape, bool)
    found = tally(9).update(score, labels)
    assert found == tally(9).update(apart[:, 0], labels)
    assert found == tally(9).update(score, labels, everywhere)
    assert found.voxels == score.size
    half = np.arange(score.size) < 10_000
    inside = tally(9).update(score[half], labels[:, half])
    assert tally(9).update(score, labels, half) == inside
