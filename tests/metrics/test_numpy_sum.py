import numpy as np
import pytest

from twintrack.metrics.numpy_sum import numpy_sum


def scores(dtype, seed, voxels):
    rng = np.random.default_rng(seed)
    return (rng.random(voxels) ** rng.integers(1, 9)).astype(dtype)


@pytest.mark.parametrize("seed", range(60))
def test_float16_sums_without_adding(seed):
    score = scores(np.float16, seed, 1000 * (seed + 1))
    assert numpy_sum(score, float(score.sum(dtype=np.float64))) == float(score.sum())


def test_float16_sums_at_a_tie_are_left_to_numpy():
    # 2049 lies between the float16s 2048 and 2050: an exact sum a hair beside it decides nothing.
    for last in (1 - 2.0**-11, 1.0):
        score = np.append(np.ones(2048, np.float16), np.float16(last))
        assert numpy_sum(score, float(score.sum(dtype=np.float64))) == float(score.sum())


def test_float16_sums_overflow_as_numpy_does():
    score = np.ones(70_000, np.float16)
    assert numpy_sum(score, 70_000.0) == np.inf


def test_strided_float16_sums_are_left_to_numpy():
    # NumPy rounds to float16 after every row of an array that is not contiguous.
    score = scores(np.float16, 1, 60 * 90 * 100).reshape(60, 90, 100)[:, ::2, ::3]
    assert numpy_sum(score, float(score.sum(dtype=np.float64))) == float(score.sum())


@pytest.mark.parametrize("seed", range(5))
def test_float32_and_float64_sums(seed):
    score = scores(np.float32, seed, 100_003)
    assert numpy_sum(score, -1.0) == float(score.sum())
    wide = score.astype(np.float64)
    assert numpy_sum(wide, float(wide.sum())) == pytest.approx(float(wide.sum()), rel=1e-13)


def test_bfloat16_sums_are_exact():
    assert numpy_sum(np.zeros(3, "V2"), 1.25) == 1.25
