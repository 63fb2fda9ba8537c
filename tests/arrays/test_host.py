"""Arrays of other libraries in host memory, and what is said of arrays nobody can read."""

from __future__ import annotations

import numpy as np
import pytest

import twintrack as tt
from twintrack.cohort.score_records import calibrate_score
from twintrack.metrics import CaseTally

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


def case_of(rng=None):
    """Score, two raters and a boolean region."""
    rng = rng or np.random.default_rng(3)
    score = rng.random((4, 5, 6))
    return score, [score > 0.4, score > 0.6], score > 0.1


REGION_DOORS = {
    "ScoreTally": lambda s, r, region: tt.ScoreTally(2).update(s, r, region),
    "CaseTally": lambda s, r, region: CaseTally(2).update(s, r, region),
    "fit": lambda s, r, region: tt.Calibrator(bins=5, exact=True).fit(s, r, region).X_thresholds_,
    "partial_fit": lambda s, r, region: tt.Calibrator(bins=5).partial_fit(s, r, region).tallies_,
    "refine": lambda s, r, region: refined(0.5 + s / 1e4, r, s > 0.1, region),
    "evaluate": lambda s, r, region: tt.evaluate(s, r, region=region).calibration,
    "reliability_curve": lambda s, r, region: tt.reliability_curve(s, r, 5, region).mhr,
    "calibrate_score": lambda s, r, region: calibrated(s, region),
}


def refined(score, raters, first, second):
    """Knots after two passes; the scores share cells, so that the second has to read them."""
    calibrator = tt.Calibrator(bins=5, exact=True).partial_fit(score, raters, first)
    return calibrator.refine([(score, raters, second)]).X_thresholds_


def calibrated(score, region):
    mapped = np.where(score < 0.2, 0, score)
    calibrate_score(tt.Calibrator(bins=4).fit(score, [score > 0.5]), mapped, region)
    return mapped


def same(a, b):
    np.testing.assert_equal(a, b)  # tallies compare by themselves


@pytest.mark.parametrize("door", REGION_DOORS)
def test_a_region_is_0_and_one_other_value_at_every_door(door):
    call = REGION_DOORS[door]
    score, raters, region = case_of()
    expected = call(score, raters, region)
    for value, dtype in [(1, "u1"), (255, "u1"), (-1, "i1"), (7, "i8"), (1, "f4"), (0.5, "f8")]:
        mask = np.asfortranarray(np.where(region, value, 0).astype(dtype))
        same(call(score, raters, mask), expected)
    same(call(score, raters, region.astype(np.uint8).tolist()), expected)
    labels = region.astype(np.uint8)
    labels[2, 1, 3] = 2
    message = r"region\[2, 1, 3\] is 2 but a voxel before it is 1; a region is 0 where"
    with pytest.raises(ValueError, match=message):
        call(score, raters, labels)
    with pytest.raises(ValueError, match=r"region\[2, 1, 3\] is nan; a region is 0 where"):
        call(score, raters, np.where(labels == 2, np.nan, region))
    for wrong in (region.astype(complex), region.astype(object), region.astype(str)):
        with pytest.raises(TypeError, match=r"region has dtype .*; a region is a mask of booleans"):
            call(score, raters, wrong)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [*DTYPES, "bool", "uint8", "uint16", "int64"])
def test_regions_that_are_tensors(dtype):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    score, raters, region = case_of()
    mask = torch.from_numpy(region).to(getattr(torch, dtype))
    same(
        tt.ScoreTally(2).update(score, raters, mask), tt.ScoreTally(2).update(score, raters, region)
    )
    if dtype != "bool":
        mask[2, 1, 3] = 2
        with pytest.raises(ValueError, match=r"region\[2, 1, 3\] is 2.* before it is 1"):
            tt.ScoreTally(2).update(score, raters, mask)


def outputs_that_share():
    """Outputs of shape (3, 40) with elements that share memory, and what makes them."""
    strided = np.lib.stride_tricks.as_strided
    yield "a repeated row", strided(np.zeros(40, np.float32), (3, 40), (0, 4))
    yield "overlapping rows", strided(np.zeros(80, np.float32), (3, 40), (80, 4))
    yield "overlapping elements", strided(np.zeros(61, np.float32), (3, 40), (80, 2))
    yield "backwards", strided(np.zeros(80, np.float32), (3, 40), (80, 4))[::-1, ::-1]


def out_doors(score, members):
    """What writes to an output: of a score (3, 40), and of members whose merged score it is."""
    a_map = tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])
    calibrator = tt.Calibrator(bins=4).fit(score, [score > 0.5])
    geometry = tt.ExportGeometry((3, 40, 1), ((0, 3), (0, 40), (0, 1)), (1, 1, 1), (1, 1, 1))

    def export(out):
        whole = [member[..., np.newaxis] for member in members]
        return tt.export_score(whole, geometry, inputs="probabilities", out=out[..., None])

    return {
        "map": lambda out: a_map(score, out=out),
        "transform": lambda out: calibrator.transform(score, out=out),
        "ensemble_score": lambda out: tt.ensemble_score(members, inputs="probabilities", out=out),
        "export_score": export,
    }


def scores_and_members():
    score = np.random.default_rng(0).random((3, 40), np.float32)
    return score, [np.stack([1 - score, score])] * 2


@pytest.mark.parametrize("door", ["map", "transform", "ensemble_score", "export_score"])
def test_outputs_that_cannot_hold_the_result_are_refused(door):
    call = out_doors(*scores_and_members())[door]
    room = np.full((40, 6), -7, np.float32)
    part = room.T[::2]  # any strides, as long as no element is another's
    call(part)
    assert (part >= 0).all()
    assert (room.T[1::2] == -7).all()
    for what, out in outputs_that_share():
        before = out.copy()
        with pytest.raises(ValueError, match=r"out has elements that share memory"):
            call(out)
        np.testing.assert_array_equal(out, before, err_msg=what)
    with pytest.raises(ValueError, match="out is read-only; pass an array that"):
        call(np.broadcast_to(np.zeros(40, np.float32), (3, 40)))
    score = np.linspace(0, 1, 12, dtype=np.float32)
    in_place = np.lib.stride_tricks.as_strided(score, (3, 12), (0, 4))
    with pytest.raises(ValueError, match="out has elements that share memory"):
        tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])(in_place, out=in_place)


def test_a_number_is_no_output():
    a_map = tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])
    with pytest.raises(TypeError, match="out is a float32; an array to write to is needed"):
        a_map(np.float32(0.5), out=np.float32(0))
    room = np.zeros((), np.float32)
    assert a_map(np.float32(0.5), out=room) is room
    assert room == 0.25


@pytest.mark.torch
@pytest.mark.parametrize("door", ["map", "transform", "ensemble_score", "export_score"])
def test_tensors_that_cannot_hold_the_result_are_refused(door):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    call = out_doors(*scores_and_members())[door]
    call(torch.zeros(40, 3).T)
    with pytest.raises(ValueError, match="out has elements that share memory"):
        call(torch.zeros(40).expand(3, 40))
    with pytest.raises(ValueError, match=r"out requires a gradient, .* pass out.detach\(\)"):
        call(torch.zeros(3, 40, requires_grad=True))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda torch, t: t.to_sparse(),
            r"score has layout torch.sparse_coo; .* score.to_dense\(\)",
        ),
        (lambda torch, t: t.to("meta"), "score is on the device meta, where arrays have no values"),
        (lambda torch, t: t.to(torch.float8_e4m3fn), "score is a tensor that NumPy cannot read"),
        (lambda torch, t: torch._neg_view(-t), r"score is a view .* pass score.resolve_neg\(\)"),
        (lambda torch, t: t.to(torch.complex64), "score has dtype complex64; scores are prob"),
        (lambda torch, t: (t * 9).int(), "score has dtype int32; scores are prob"),
    ],
)
def test_tensors_that_hold_no_scores_are_refused_by_name(make, message):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    tensor = make(torch, torch.rand(3, 4))
    with pytest.raises(TypeError, match=message):
        tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])(tensor)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (np.array([0.5 + 0j]), "score has dtype complex128; scores are prob"),
        (np.array([0.5, None], object), "score has dtype object"),
        (["0.5"], "score has dtype <U3"),
        (np.zeros(3, "M8[s]"), "score has dtype datetime64"),
        (np.zeros(3, [("p", "f4")]), r"score has the structured dtype .* pass one of its fields"),
        ([[0.5], [0.5, 0.6]], "score is no array: .*inhomogeneous"),
        (None, "score has dtype object"),
    ],
)
def test_what_holds_no_scores_is_refused_by_name(score, message):
    with pytest.raises(TypeError, match=message):
        tt.CalibrationMap([0.0, 1.0], [0.0, 0.5])(score)


def test_two_bytes_of_a_structure_are_no_bfloat16():
    score, raters, _ = case_of()
    pairs = np.zeros(score.shape, [("a", "u1"), ("b", "u1")])
    for name, call in {
        r"raters\[1\]": lambda: tt.ScoreTally(2).update(score, [raters[0], pairs]),
        "region": lambda: tt.ScoreTally(2).update(score, raters, pairs),
        "vessels": lambda: tt.evaluate(score, raters, pairs),
    }.items():
        with pytest.raises(TypeError, match=rf"{name} has the structured dtype"):
            call()


@pytest.mark.parametrize("raters", [(mask for mask in [1]), {0: 1}, np.uint8(1), None])
def test_raters_that_are_no_arrays(raters):
    with pytest.raises(
        TypeError, match=r"raters is a single .*; it must be an array \(N, \*shape\)"
    ):
        tt.ScoreTally(1).update(np.zeros(3), raters)


def test_numbers_are_real_at_every_door():
    objects = np.array([0, 1], object)  # a column with None, as pandas has it, in a bootstrap alone
    for call, name, others in (
        (tt.isotonic, "values", [objects]),
        (lambda given: tt.isotonic([0.0, 1.0], given), "weights", [objects]),
        (lambda given: tt.CalibrationMap(given, [0.0, 1.0]), "x", [objects]),
        (lambda given: tt.CalibrationMap([0.0, 1.0], given), "y", [objects]),
        (tt.bootstrap, "values", []),
        (lambda given: tt.paired_bootstrap([1.0, 2.0], given), "b", []),
    ):
        for given in (np.array([0, 1 + 1j]), ["0", "1"], *others):
            with pytest.raises(TypeError, match=f"{name} has dtype .*; real numbers are needed"):
                call(given)


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


@pytest.mark.parametrize("masked", ["score", "vessels", "region"])
def test_masked_elements_are_refused_and_not_counted(masked):
    _, given = masked_case(masked)
    message = rf"{masked}\[1, 2, 3\] is masked \(1 of .* pass {masked}\.filled\(VALUE\)"
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
    with pytest.raises(ValueError, match=r"score\[1\] is masked \(1 of 1"):
        a_map([0.5, np.ma.masked])
    for call, name in (
        (lambda: a_map(score), "score"),
        (lambda: a_map(np.zeros(3), out=score), "out"),
        (lambda: tt.ensemble_score([score[np.newaxis]], (0,), "probabilities"), "members"),
        (lambda: tt.bootstrap(score), "values"),
        (lambda: tt.isotonic(score), "values"),
        (lambda: tt.CalibrationMap(score, [0, 0, 1]), "x"),
        (lambda: a_map([score]), r"score\[0\]\[1\]"),
        (lambda: a_map([[[0.1, 0.2, 0.3], score]]), r"score\[0\]\[1\]\[1\]"),
        (lambda: tt.bootstrap([score]), r"values\[0\]\[1\]"),
        (lambda: tt.ScoreTally(1).update([0.5] * 3, [[score]]), r"raters\[0\]\[0\]\[1\]"),
        (lambda: tt.ScoreTally(1).update([[0.5] * 3], [[[1] * 3]], [score]), r"region\[0\]\[1\]"),
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
