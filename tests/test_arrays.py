"""Arrays of other libraries in host memory, and what is said of arrays nobody can read."""

from __future__ import annotations

import numpy as np
import pytest

import twintrack as tt

DTYPES = ("float16", "bfloat16", "float32", "float64")


def tensors(dtype):
    """Scores of a dtype as a torch tensor and as the array that holds the same bits."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    score = torch.rand(6, 5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = score.to(getattr(torch, dtype))
    if dtype == "bfloat16":
        return score, score.view(torch.int16).numpy().view("V2")
    return score, score.numpy()


def bits(array):
    return array.view(f"u{array.itemsize}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_tensors_in_host_memory(dtype):
    score, array = tensors(dtype)
    a_map = tt.CalibrationMap([0.0, 0.3, 1.0], [0.0, 0.1, 0.9])
    mapped = a_map(score)
    assert (mapped.dtype, mapped.shape) == (score.dtype, score.shape)
    expected = np.empty_like(array)
    a_map(array, out=expected)
    out = mapped.clone().zero_()
    assert a_map(score, out=out) is out
    for tensor in (mapped, out):
        found = tensor.view(getattr(pytest.importorskip("torch"), f"int{8 * array.itemsize}"))
        np.testing.assert_array_equal(bits(found.numpy()), bits(expected))
    masks = [score > limit for limit in (0.2, 0.7)]
    region = (score > 0.05).transpose(0, 2)
    tally = tt.ScoreTally(2).update(
        score.transpose(0, 2), [mask.transpose(0, 2) for mask in masks], region
    )
    assert tally == tt.ScoreTally(2).update(
        array, [mask.numpy() for mask in masks], region.transpose(0, 2).numpy()
    )


def test_a_tensor_that_needs_a_gradient_is_read():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    score = torch.full((3,), 0.5, requires_grad=True)
    mapped = tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])(score)
    assert mapped.tolist() == [0.25] * 3
    assert not mapped.requires_grad


class OnSomeDevice:
    """An array that has DLPack alone, on a CUDA device."""

    def __dlpack_device__(self):
        return 2, 0


def test_dlpack_alone_is_told_the_way():
    with pytest.raises(TypeError, match=r"score .* DLPack alone: pass torch.from_dlpack\(score\)"):
        tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])(OnSomeDevice())
