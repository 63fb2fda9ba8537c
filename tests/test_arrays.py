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


@pytest.mark.torch
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


@pytest.mark.torch
def test_a_tensor_that_needs_a_gradient_is_read():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    score = torch.full((3,), 0.5, requires_grad=True)
    mapped = tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])(score)
    assert mapped.tolist() == [0.25] * 3
    assert not mapped.requires_grad


@pytest.mark.torch
def test_a_subclass_of_tensor_is_a_tensor():
    torch = pytest.importorskip("torch", exc_type=ImportError)

    class MetaTensor(torch.Tensor):
        """As MONAI's: a tensor with an affine."""

    score = torch.rand(40, generator=torch.Generator().manual_seed(0)).as_subclass(MetaTensor)
    a_map = tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])
    mapped = a_map(score)
    assert isinstance(mapped, MetaTensor)
    np.testing.assert_array_equal(mapped.numpy(), a_map(score.numpy()))
    assert a_map(score.bfloat16()).dtype == torch.bfloat16


def test_what_is_written_arrives_or_is_refused():
    score = np.linspace(0, 1, 40, dtype=np.float32)
    members = [np.zeros((2, 40), np.float32)]
    a_map = tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])
    swapped = np.full(40, -7, np.float32).astype(">f4")
    for out, error, message in (
        (swapped, ValueError, r"out has dtype >f4; .* byte order"),
        ([0.0] * 40, TypeError, r"out is a list; an array to write to is needed"),
    ):
        with pytest.raises(error, match=message):
            a_map(score, out=out)
        with pytest.raises(error, match=message):
            tt.ensemble_score(members, out=out)
    np.testing.assert_array_equal(a_map(score.astype(">f4")), a_map(score))


def test_raters_of_a_single_voxel():
    tally = tt.ScoreTally(2).update(np.float32(0.5), np.array([1, 0], np.uint8))
    assert tally.votes.tolist() == [[1, 0]]


class OnSomeDevice:
    """An array that has DLPack alone, on a CUDA device."""

    def __dlpack_device__(self):
        return 2, 0


def test_dlpack_alone_is_told_the_way():
    with pytest.raises(TypeError, match=r"score .* DLPack alone: pass torch.from_dlpack\(score\)"):
        tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])(OnSomeDevice())


def masked_case(masked):
    """Score, raters, vessels and region; one of them masked at one element."""
    rng = np.random.default_rng(0)
    score = rng.random((4, 5, 6))
    arrays = {
        "score": score,
        "raters": np.stack([score > 0.4, score > 0.6]),
        "vessels": rng.integers(0, 6, score.shape),
        "region": score > 0.1,
    }
    whole = {name: np.ma.masked_array(array) for name, array in arrays.items()}
    if masked is not None:
        at = (1, 1, 2, 3) if masked == "raters" else (1, 2, 3)
        whole[masked][at] = np.ma.masked
    return arrays, whole


@pytest.mark.parametrize("masked", ["score", "raters", "vessels", "region"])
def test_masked_elements_are_refused_and_not_counted(masked):
    _, given = masked_case(masked)
    where = r"\[1, 1, 2, 3\]" if masked == "raters" else r"\[1, 2, 3\]"
    message = rf"{masked}{where} is masked \(1 of .* pass {masked}\.filled\(VALUE\)"
    with pytest.raises(ValueError, match=message):
        tt.evaluate(**given)
    score, raters, region = given["score"], given["raters"], given["region"]
    if masked != "vessels":
        with pytest.raises(ValueError, match=r"\[1, 2, 3\] is masked"):
            tt.Calibrator().fit(score, list(raters), region)
        with pytest.raises(ValueError, match="is masked"):
            tt.ScoreTally(2).update(score, raters, region)


def test_other_entrances_refuse_masked_elements():
    score = np.ma.masked_array([0.1, 0.5, 0.9], [False, True, False])
    a_map = tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])
    for call, name in (
        (lambda: a_map(score), "score"),
        (lambda: a_map(np.zeros(3), out=score), "out"),
        (lambda: tt.ensemble_score([score[np.newaxis]], (0,), "probabilities"), "members"),
        (lambda: tt.bootstrap(score), "values"),
        (lambda: tt.isotonic(score), "values"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.* is masked \(1 of 3"):
            call()


def test_masked_arrays_with_nothing_masked_are_their_data():
    arrays, given = masked_case(None)
    expected, found = tt.evaluate(**arrays), tt.evaluate(**given)
    assert found.calibration == expected.calibration
    assert found.vascular_invasion == expected.vascular_invasion
    mapped = tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])(given["score"])
    assert type(mapped) is np.ndarray
