"""Arrays on a device give what the same arrays in host memory give, and the same errors.

Run on stand-ins for the libraries with the kernels executed by the CPU, and, marked `gpu`, on torch
and CuPy with a device.
"""

from __future__ import annotations

import pickle
import re
import sys

import numpy as np
import pytest
from device_libraries import BFLOAT16, STAND_INS, CupyArray, InterfaceArray, StandIn, Tensor

import twintrack as tt
from twintrack.arrays.case import open_case
from twintrack.metrics import CaseTally
from twintrack.metrics.staple import staple_consensus


def to_bfloat16(values):
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BFLOAT16)


def scores(kind, voxels, rng):
    if kind == "uniform":
        return rng.random(voxels)
    if kind == "background":
        return np.where(rng.random(voxels) < 0.9, 0, rng.random(voxels) ** 8)
    if kind == "tied":
        return rng.choice([0.0, 0.25, 0.25 + 2**-20, 1 - 2**-24, 1.0], voxels)
    return np.full(voxels, 0.3)


def case(kind="uniform", dtype="float32", shape=(5, 7, 40), raters=3, seed=0):
    rng = np.random.default_rng(seed)
    score = scores(kind, int(np.prod(shape)), rng).reshape(shape)
    masks = (rng.random((raters, *shape)) < score).astype(np.uint8)
    return (to_bfloat16(score) if dtype == "bfloat16" else score.astype(dtype)), masks


def assert_same(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def a_map():
    x = np.array([0.0, 1e-6, 0.1, 0.2, 0.5, 0.500001, 0.9, 1.0])
    return tt.CalibrationMap(x, np.array([0.0, 0.01, 0.02, 0.2, 0.2, 0.6, 0.85, 0.99]))


# --- the same results -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["uniform", "background", "tied", "equal"])
def test_tally_is_the_cpus(library, kind, dtype):
    score, raters = case(kind, dtype)
    on_host = tt.ScoreTally(3).update(score, raters)
    on_device = tt.ScoreTally(3).update(library.put(score), [library.put(r) for r in raters])
    assert on_device == on_host
    assert on_host.voxels == score.size


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_map_is_the_cpus(library, dtype):
    score, _ = case(dtype=dtype)
    mapped = a_map()(library.put(score))
    assert type(mapped) is type(library.put(score))
    assert_same(library.get(mapped), a_map()(score))


def test_any_memory_order(library):
    score, raters = case()
    region = score > 0.2
    for axes in [(2, 1, 0), (1, 2, 0)]:
        turned = [a.transpose(axes)[1:, ::2] for a in (score, *raters, region)]
        put = [library.put(a) for a in turned]
        expected = tt.ScoreTally(3).update(turned[0], turned[1:4], turned[4])
        assert tt.ScoreTally(3).update(put[0], put[1:4], put[4]) == expected
        assert_same(library.get(a_map()(put[0])), a_map()(turned[0]))
    backwards = library.put(score[::-1, :, ::-3])
    assert_same(library.get(a_map()(backwards)), a_map()(score[::-1, :, ::-3]))


def test_raters_in_one_array_and_of_other_dtypes(library):
    score, raters = case()
    expected = tt.ScoreTally(3).update(score, raters)
    for dtype in (np.bool_, np.int64, np.float32):
        stacked = library.put(raters.astype(dtype))
        assert tt.ScoreTally(3).update(library.put(score), stacked) == expected


def test_out(library):
    score, _ = case()
    expected = a_map()(score)
    room = library.put(np.zeros_like(score))
    assert a_map()(library.put(score), out=room) is room
    assert_same(library.get(room), expected)
    in_place = library.put(score)
    assert a_map()(in_place, out=in_place) is in_place
    assert_same(library.get(in_place), expected)


def test_out_that_overlaps_is_written_from_a_copy(library):
    line = np.linspace(0, 1, 301, dtype=np.float32)
    expected = a_map()(line[:-1])
    shared = library.put(line)
    a_map()(shared[:-1], out=shared[1:])
    assert_same(library.get(shared)[1:], expected)
    square = library.put(line[:256].reshape(16, 16))
    a_map()(library_transpose(square), out=square)  # the same address, other strides
    assert_same(library.get(square), a_map()(line[:256].reshape(16, 16).T))


def test_out_that_overlaps_backwards_is_written_from_a_copy(emulation):
    line = np.linspace(0, 1, 301, dtype=np.float32)
    for score, out in (
        (slice(0, 300), slice(300, 0, -1)),
        (slice(299, None, -1), slice(1, 301)),
        (slice(0, 300), slice(299, None, -1)),
    ):
        shared = line.copy()
        expected = a_map()(shared[score].copy())
        a_map()(InterfaceArray(shared[score]), out=InterfaceArray(shared[out]))
        assert_same(shared[out], expected)


def library_transpose(array):
    values = getattr(array, "values", None)
    return array.T if values is None else type(array)(values.T)


def test_empty_arrays(library):
    score = np.zeros((0, 4), np.float32)
    tally = tt.ScoreTally(2)
    mask = library.put(score.astype(np.uint8))
    tally.update(library.put(score), [mask] * 2)
    tally.update(library.put(score), [mask] * 2, mask)
    assert tally.voxels == 0
    assert library.get(a_map()(library.put(score))).shape == (0, 4)


def test_calibrator(library):
    cases = [case(kind, seed=seed) for seed, kind in enumerate(("uniform", "background"))]
    on_host = tt.Calibrator(bins=20).fit([s for s, _ in cases], [list(r) for _, r in cases])
    put = [(library.put(s), [library.put(r) for r in masks]) for s, masks in cases]
    on_device = tt.Calibrator(bins=20).fit([s for s, _ in put], [r for _, r in put])
    streamed = tt.Calibrator(bins=20)
    for name, (score, masks) in enumerate(put):
        streamed.partial_fit(score, masks, case=str(name))
    for calibrator in (on_device, streamed):
        np.testing.assert_array_equal(calibrator.X_thresholds_, on_host.X_thresholds_)
        np.testing.assert_array_equal(calibrator.y_thresholds_, on_host.y_thresholds_)
    score = cases[0][0]
    assert_same(library.get(on_device.transform(library.put(score))), on_host.transform(score))


def test_tally_takes_cases_from_anywhere(library):
    (score, raters), (other, others) = case(seed=1), case(seed=2)
    expected = tt.ScoreTally(3).update(score, raters).update(other, others).update(score, raters)
    tally = tt.ScoreTally(3).update(library.put(score), [library.put(r) for r in raters])
    assert tally.voxels == score.size  # the sums come back, and more are added afterwards
    tally.update(other, others).compact()
    tally.update(library.put(score), [library.put(r) for r in raters])
    assert pickle.loads(pickle.dumps(tally)) == expected
    assert tally == expected


# --- the same errors ------------------------------------------------------------------------------


def broken(what):
    score, raters = case()
    region = np.ones(score.shape, bool)
    if what == "nan":
        score[1, 2, 3] = np.nan
        score[4, 0, 0] = 2
    if what == "range":
        score[0, 0, 39] = -1.5e-6
        score[0, 0, 38] = 1.000002
    if what == "label":
        raters[1, 4, 6, 39] = 3
    if what == "outside":  # of the region: not looked at
        score[1, 2, 3] = np.nan
        region[1, 2, 3] = False
    if what == "shape":
        raters = raters[:, :4]
    if what == "region shape":
        region = region[:, :4]
    if what == "raters":
        raters = raters[:2]
    if what == "no raters":
        raters = raters[:0]
    if what == "dtype":
        score = score.astype(np.int32)
    if what.startswith("region of "):
        region = region.astype(what.removeprefix("region of "))
        region[2, 0] = region[0, 3] = 0
    if what == "region labels":
        region = region.astype(np.uint8) * 255
        region[1, 2, 3] = 254
        region[4, 0, 0] = 1
    if what == "region nan":
        region = np.where(region, np.float32(1), 0)
        region[1, 2, 3] = np.nan
    return score, raters, region


def outcome(call):
    try:
        return call()
    except (TypeError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    "what",
    [
        *("nan", "range", "label", "outside", "shape", "region shape"),
        *("raters", "no raters", "dtype", "region labels", "region nan", "region of complex64"),
    ],
)
def test_errors_of_a_tally_are_the_cpus(library, what):
    score, raters, region = broken(what)
    on_host, on_device = tt.ScoreTally(3), tt.ScoreTally(3)
    expected = outcome(lambda: on_host.update(score, list(raters), region))
    put = library.put(score), [library.put(r) for r in raters], library.put(region)
    assert outcome(lambda: on_device.update(*put)) == (on_device if what == "outside" else expected)
    assert on_device == on_host
    assert on_device.voxels == (score.size - 1 if what == "outside" else 0)


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4"])
def test_a_region_is_0_and_one_other_value(library, dtype):
    score, raters, region = broken(f"region of {dtype}")
    expected = tt.ScoreTally(3).update(score, raters, region)
    assert 0 < expected.voxels < score.size
    put = library.put(score), [library.put(r) for r in raters]
    for value in (1, 3, -1):
        if dtype == "?" or (dtype[0] == "u" and value < 0):
            continue
        mask = library.put((region * value).astype(dtype).transpose(2, 1, 0).copy().T)
        assert tt.ScoreTally(3).update(*put, mask) == expected
        assert CaseTally(3).update(*put, mask) == CaseTally(3).update(score, raters, region)


def test_a_region_of_bfloat16(library):
    score, raters, region = broken("region of f4")
    mask = library.put(to_bfloat16(region))
    put = library.put(score), [library.put(r) for r in raters]
    expected = tt.ScoreTally(3).update(score, raters, region)
    assert tt.ScoreTally(3).update(*put, mask) == expected
    assert tt.ScoreTally(3).update(score, raters, to_bfloat16(region)) == expected
    with pytest.raises(ValueError, match=r"region\[0, 0, 1\] is .* but a voxel before it is"):
        tt.ScoreTally(3).update(*put, library.put(to_bfloat16(score)))


def test_good_masks_of_torch_and_cupy_stay_on_the_device(emulation, monkeypatch):
    monkeypatch.setattr(emulation, "fetch", None)
    for kind in ("torch", "cupy"):
        library = StandIn(kind, monkeypatch)
        put = [library.put(a) for a in broken("region of u1")]
        assert tt.ScoreTally(3).update(*put).voxels > 0


def test_outputs_that_cannot_hold_the_result_are_refused(library):
    score, _ = case()
    row = np.zeros(score.shape[-1], np.float32)
    members = [np.stack([1 - score, score])]
    put = library.put(score)
    for call in (
        lambda out: a_map()(put, out=out),
        lambda out: tt.ensemble_score([library.put(m) for m in members], out=out),
    ):
        room = library.put(np.zeros((*score.shape[:-1], 2 * score.shape[-1]), np.float32))
        call(room[..., ::2])
        expanded = library_expanded(library, row, score.shape)
        with pytest.raises(ValueError, match="out has elements that share memory"):
            call(expanded)
        np.testing.assert_array_equal(library.get(expanded), 0)


def library_expanded(library, row, shape):
    array = library.put(row)
    if hasattr(array, "expand"):
        return array.expand(shape)
    values = np.lib.stride_tricks.as_strided
    if hasattr(array, "values"):
        return type(array)(values(array.values, shape, (0, 0, row.itemsize)))
    return sys.modules["cupy"].lib.stride_tricks.as_strided(array, shape, (0, 0, row.itemsize))


def test_an_output_that_is_differentiated_is_refused(emulation, monkeypatch):
    library = StandIn("torch", monkeypatch)
    score, _ = case()
    out = library.put(score)
    out.requires_grad = True
    with pytest.raises(ValueError, match=r"out requires a gradient, .* pass out.detach\(\)"):
        a_map()(library.put(score), out=out)


@pytest.mark.parametrize("what", ["nan", "range", "dtype"])
def test_errors_of_a_map_are_the_cpus(library, what):
    score, _, _ = broken(what)
    put = library.put(score)
    expected = outcome(lambda: a_map()(score))
    assert issubclass(expected[0], TypeError if what == "dtype" else ValueError)
    assert outcome(lambda: a_map()(put)) == expected
    assert outcome(lambda: a_map()(put, out=put)) == expected
    np.testing.assert_array_equal(library.get(put), score)  # as it was


def test_out_must_fit(library):
    score, _ = case()
    put = library.put(score)
    for out in (np.zeros((2, 3), np.float32), np.zeros(score.shape, np.float64)):
        expected = outcome(lambda out=out: a_map()(score, out=out))
        assert expected[0] is tt.InputError
        assert outcome(lambda out=out: a_map()(put, out=library.put(out))) == expected


def test_host_and_device_arrays_are_not_mixed(library):
    score, raters = case()
    put = library.put(score)
    message = "raters[1] is in host memory but score is on cuda:0"
    with pytest.raises(TypeError, match=re.escape(message)):
        tt.ScoreTally(2).update(put, [library.put(raters[0]), raters[1]])
    with pytest.raises(TypeError, match=re.escape("score is in host memory but raters is on")):
        tt.ScoreTally(3).update(score, library.put(raters))
    with pytest.raises(TypeError, match="out is in host memory but score is on cuda:0"):
        a_map()(put, out=np.zeros_like(score))
    with pytest.raises(TypeError, match="score is in host memory but out is on cuda:0"):
        a_map()(score, out=put)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_exact_cuts_are_the_cpus(library, dtype):
    score, raters = case("tied", dtype)  # within a cell of the tally too: the voxels are read again
    region = np.random.default_rng(1).random(score.shape) < 0.7
    turned = [a.transpose(2, 0, 1)[::2, 1:] for a in (score, *raters, region)]
    on_host = tt.Calibrator(bins=5, exact=True).fit(turned[0], turned[1:4], turned[4])
    put = [library.put(a) for a in turned]
    on_device = tt.Calibrator(bins=5, exact=True).fit(put[0], put[1:4], put[4])
    np.testing.assert_array_equal(on_device.X_thresholds_, on_host.X_thresholds_)
    np.testing.assert_array_equal(on_device.y_thresholds_, on_host.y_thresholds_)
    rough = tt.Calibrator(bins=5).fit(turned[0], turned[1:4], turned[4])
    # At 16 bits scores are cells of their own; else the second pass makes a difference.
    same = np.array_equal(rough.X_thresholds_, on_host.X_thresholds_)
    assert same == dtype.endswith("16")


def test_functions_without_a_kernel_say_what_to_do(library):
    _, raters = case()
    with pytest.raises(TypeError, match="raters is on a CUDA device, for which .* no kernel: pass"):
        staple_consensus(library.put(raters))


def test_a_forced_backend_refuses_the_other_kind(library, monkeypatch):
    score, raters = case()
    put = library.put(score)
    monkeypatch.setenv("TWINTRACK_BACKEND", "cpu")
    a_map()(score)
    with pytest.raises(TypeError, match="score is on a CUDA device but TWINTRACK_BACKEND is cpu"):
        a_map()(put)
    monkeypatch.setenv("TWINTRACK_BACKEND", "cuda")
    assert_same(library.get(a_map()(put)), a_map_on_host(score, monkeypatch))
    monkeypatch.setenv("TWINTRACK_BACKEND", "cuda")
    with pytest.raises(TypeError, match="score is in host memory but TWINTRACK_BACKEND is cuda"):
        tt.ScoreTally(3).update(score, raters)
    monkeypatch.setenv("TWINTRACK_BACKEND", "gpu")
    with pytest.raises(ValueError, match="TWINTRACK_BACKEND is 'gpu'; it must be cpu, cuda"):
        a_map()(score)


def a_map_on_host(score, monkeypatch):
    monkeypatch.setenv("TWINTRACK_BACKEND", "cpu")
    return a_map()(score)


# --- streams, devices and what libraries say ------------------------------------------------------


def test_several_devices_are_refused_by_name(emulation, monkeypatch):
    library = StandIn("torch", monkeypatch)
    score, raters = case()
    masks = [library.put(raters[0]), Tensor(raters[1], device=1)]
    with pytest.raises(
        ValueError, match=re.escape("raters[1] is on cuda:1 but score is on cuda:0")
    ):
        tt.ScoreTally(2).update(library.put(score), masks)
    with pytest.raises(ValueError, match="out is on cuda:1 but score is on cuda:0"):
        a_map()(library.put(score), out=Tensor(np.zeros_like(score), device=1))


def test_a_tally_adds_up_over_devices(emulation, monkeypatch):
    StandIn("torch", monkeypatch)
    score, raters = case()
    tally = tt.ScoreTally(3)
    for device in (0, 1):
        tally.update(Tensor(score, device), Tensor(raters, device))
    assert tally == tt.ScoreTally(3).update(score, raters).update(score, raters)
    assert emulation.devices() == ["Emulation (compute capability 0.0, 1 GB)"] * 2


def test_works_on_the_current_stream_and_waits_for_others(emulation, monkeypatch):
    waits = []
    monkeypatch.setattr(emulation, "wait_for", lambda *streams: waits.append(streams))
    torch, cupy = StandIn("torch", monkeypatch), StandIn("cupy", monkeypatch)
    torch.stream, cupy.stream = 70, 80
    score, raters = case(raters=2)
    masks = [cupy.put(raters[0]), InterfaceArray(raters[1], stream=90)]
    region = InterfaceArray(score > 0.5)  # nobody works on it
    assert open_case(torch.put(score), masks, region).stream == 70
    assert waits == [(70, 80, 0), (70, 90, 0)]
    waits.clear()
    assert open_case(torch.put(score), torch.put(raters), None).stream == 70
    assert not waits


def test_unknown_libraries_need_out(emulation):
    score, _ = case()
    array = InterfaceArray(score, maker=False)
    with pytest.raises(TypeError, match="InterfaceArray says no way to make arrays: pass out="):
        a_map()(array)
    room = InterfaceArray(np.zeros_like(score), maker=False)
    assert_same(a_map()(array, out=room).values, a_map()(score))


def test_read_only_out_is_refused(emulation):
    score, _ = case()
    room = np.zeros_like(score)
    room.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        a_map()(InterfaceArray(score), out=InterfaceArray(room))


def test_memory_that_is_not_there_is_a_memory_error(emulation, monkeypatch):
    score, raters = case()
    monkeypatch.setenv("TWINTRACK_EMULATION", "memory=100000")
    with pytest.raises(MemoryError, match="CUDA device 0 has no 7717056 bytes of memory left"):
        tt.ScoreTally(3).update(InterfaceArray(score), [InterfaceArray(r) for r in raters])


def test_without_the_module_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "twintrack._cuda", None)
    score, _ = case()
    with pytest.raises(TypeError, match="this TwinTrack has no CUDA module .* a copy of score in"):
        a_map()(InterfaceArray(score))
    with pytest.raises(TypeError, match=re.escape("or pass score.get()")):
        a_map()(CupyArray(score))


@pytest.mark.parametrize("kind", STAND_INS)
def test_a_stream_that_is_captured_is_refused(emulation, monkeypatch, kind):
    library = StandIn(kind, monkeypatch)
    library.stream = 70
    score, masks = (library.put(array) for array in case())
    member = library.put(np.ones((2, *score.shape), np.float16))
    tally = tt.ScoreTally(raters=3)
    tally.update(score, masks)
    before = pickle.dumps(tally)
    tally.update(score, masks)
    monkeypatch.setenv("TWINTRACK_EMULATION", "capturing=70")
    for work in (
        lambda: tally.update(score, masks),
        lambda: CaseTally(3).update(score, masks),
        lambda: tt.evaluate(score, masks, protocol="corrected"),
        lambda: a_map()(score, out=library.put(case()[0])),
        lambda: tt.ensemble_score([member], out=library.put(case()[0])),
    ):
        with pytest.raises(RuntimeError, match="the CUDA stream is being captured into a graph"):
            work()
    monkeypatch.delenv("TWINTRACK_EMULATION")
    twice = pickle.loads(before)
    twice += pickle.loads(before)
    assert pickle.dumps(tally) == pickle.dumps(twice)
