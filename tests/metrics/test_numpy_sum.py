import numpy as np
import pytest

from twintrack.arrays.case import HostCase
from twintrack.metrics import numpy_sum as numpy_sums


def numpy_sum(score, *rest):
    return numpy_sums.numpy_sum(HostCase(score, []), *rest)


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


def test_float16_sums_near_a_tie_are_left_to_numpy():
    # A hair below 2051, which NumPy's float32 sum cannot tell from it: 2051 rounds to 2052, the
    # exact sum to 2050.
    parts = [1 - 2.0**-11, 2.0**-12, 2.0**-13, 2.0**-14, 2.0**-15]
    score = np.append(np.ones(2050, np.float16), np.array(parts, np.float16))
    exact = float(score.sum(dtype=np.float64))
    assert (float(np.float16(exact)), float(score.sum())) == (2050, 2052)
    assert numpy_sum(score, exact) == 2052


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


# Lengths at which NumPy splits a sum, a task ends, and remainders of eight and 128 are left.
LENGTHS = (1, 7, 8, 9, 127, 128, 129, 136, 1023, 1024, 65536, 65537, 131_073, 300_007)


@pytest.mark.parametrize("voxels", LENGTHS)
def test_float32_sums_are_numpys_to_the_bit(voxels):
    # 40 draws: a sum in another order differs in about every second of them.
    for seed in range(40 if voxels < 10_000 else 4):
        score = scores(np.float32, seed, voxels)
        assert numpy_sum(score, -1.0) == float(score.sum())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(61, 47, 103), (1, 500, 301), (64, 1, 2048), (97, 33)])
def test_float32_sums_of_volumes_are_numpys(shape, order):
    score = scores(np.float32, 3, int(np.prod(shape))).reshape(shape, order=order)
    assert numpy_sum(score, -1.0) == float(score.sum())


def test_blocks_of_zeros_are_left_out_of_a_sum_without_a_change():
    rng = np.random.default_rng(5)
    for voxels in (1000, 70_000, 1_000_003):
        score = scores(np.float32, 6, voxels)
        blocks = -(-voxels // 1024)
        scored = (rng.random(blocks) < 0.1).astype(np.uint8)
        score[~np.repeat(scored.astype(bool), 1024)[:voxels]] = 0
        assert numpy_sum(score, -1.0, scored) == float(score.sum())
        # Told that all is 0, it does not look.
        assert numpy_sum(score, -1.0, np.zeros_like(scored)) == 0


def test_float32_at_an_odd_address_is_summed_as_numpy_does():
    score = scores(np.float32, 2, 3001)
    room = np.empty(score.nbytes + 1, np.uint8)
    odd = room[1:].view(np.float32)
    odd[:] = score
    assert not odd.flags.aligned
    assert numpy_sum(odd, -1.0) == float(score.sum())


def test_flags_must_be_those_of_the_scores():
    with pytest.raises(ValueError, match="nonzero has 2 blocks; score has 3"):
        numpy_sum(np.zeros(3000, np.float32), 0.0, np.zeros(2, np.uint8))


def test_bfloat16_sums_are_exact():
    assert numpy_sum(np.zeros(3, "V2"), 1.25) == 1.25
