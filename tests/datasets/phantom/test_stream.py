"""Streams of scores that are longer than memory."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from twintrack.datasets.phantom import score_stream


@pytest.mark.parametrize(
    ("distribution", "dtype"),
    [("background", np.float32), ("uniform", np.float32), ("fp16", np.float16)],
)
def test_stream_repeats_one_period_whatever_the_chunks(distribution: str, dtype: type) -> None:
    def collect(voxels: int, chunk: int) -> tuple[NDArray[np.floating], NDArray[np.uint8]]:
        chunks = list(score_stream(voxels, 3, 7, distribution, chunk=chunk, period=1000))  # type: ignore[arg-type]
        scores, raters = zip(*chunks, strict=True)
        return np.concatenate(scores), np.concatenate(raters, axis=1)

    score, raters = collect(1000, 1000)
    assert score.dtype == dtype
    assert raters.dtype == np.uint8
    assert raters.max() == 1
    assert score.min() >= 0
    assert score.max() <= 1
    for chunk in (1, 333, 2500, 10**9):
        longer, marks = collect(2345, chunk)
        np.testing.assert_array_equal(longer, np.resize(score, 2345))
        np.testing.assert_array_equal(marks, np.stack([np.resize(row, 2345) for row in raters]))


def test_stream_raters_mark_with_the_square_of_the_score() -> None:
    ((score, raters),) = score_stream(200_000, 4, 0, "uniform", period=200_000)
    bins = (score * 10).astype(int)
    for k in range(10):
        expected = np.mean(score[bins == k].astype(np.float64) ** 2)
        assert raters[:, bins == k].mean() == pytest.approx(expected, abs=0.01)


def test_background_stream_is_mostly_zero_in_long_runs_and_fp16_has_ties() -> None:
    ((score, raters),) = score_stream(1 << 20, 2, 3, "background", period=1 << 20)
    zero = score == 0
    assert 0.9 < zero.mean() < 0.999
    assert np.count_nonzero(np.diff(zero)) < 300
    assert not raters[:, zero].any()
    ((half, _),) = score_stream(1 << 18, 1, 3, "fp16", period=1 << 18)
    assert np.unique(half).size < 20_000


def test_stream_costs_no_memory_per_voxel_and_cannot_be_written_to() -> None:
    base = None
    total = 0
    for score, raters in score_stream(10**9, 2, chunk=1 << 16, period=1 << 16):
        assert base is None or score.base is base
        base = score.base
        total += score.size
        assert raters.shape == (2, score.size)
    assert total == 10**9
    with pytest.raises(ValueError, match="read-only"):
        score[0] = 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("voxels", {"voxels": -1}),
        ("raters", {"voxels": 1, "raters": 0}),
        ("seed", {"voxels": 1, "seed": -1}),
        ("chunk", {"voxels": 1, "chunk": 0}),
        ("period", {"voxels": 1, "period": 0}),
        ("distribution", {"voxels": 1, "distribution": "normal"}),
    ],
)
def test_bad_stream_is_refused_by_the_call_itself(name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        score_stream(**arguments)  # type: ignore[arg-type]


def test_empty_stream_yields_nothing() -> None:
    assert list(score_stream(0)) == []
