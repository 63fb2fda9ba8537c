"""Metrics of arrays on a device give what the same arrays in host memory give.

Run on stand-ins for the libraries with the kernels executed by the CPU (see arrays/test_device).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from twintrack.arrays.backend import cuda_module
from twintrack.arrays.case import open_case
from twintrack.metrics import CaseTally, evaluate
from twintrack.metrics.vascular import contact_degrees


def case(seed=0, shape=(9, 11, 23), raters=3, dtype=np.float32):
    rng = np.random.default_rng(seed)
    score = np.zeros(shape, dtype)
    score[2:7, 3:9, 5:15] = rng.random((5, 6, 10))
    return score, [(rng.random(shape) < score).astype(np.uint8) for _ in range(raters)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("raters", [1, 3, 9])
def test_case_tally_is_the_cpus(library, dtype, raters):
    score, masks = case(raters=raters, dtype=dtype)
    put = [library.put(mask) for mask in masks]
    region = score > 0.3
    on_host, on_device = CaseTally(raters, 20), CaseTally(raters, 20)
    marked = on_host.add_and_overview(open_case(score, masks)).marked
    assert on_device.add_and_overview(open_case(library.put(score), put)).marked == marked
    assert marked[0][0] >= 2
    # Another case on top, in another memory order.
    on_host.update(score.T, [m.T for m in masks], region.T)
    on_device.update(library.put(score.T), [library.put(m.T) for m in masks], library.put(region.T))
    assert on_device == on_host
    assert on_host.voxels == score.size + region.sum()


def test_case_tally_is_left_alone_by_invalid_input(library):
    score, masks = case()
    tally = CaseTally(3).update(library.put(score), [library.put(m) for m in masks])
    before = CaseTally(3).update(score, masks)
    score[4, 5, 6] = 1.5
    with pytest.raises(ValueError, match=r"score\[4, 5, 6\] is 1.5"):
        tally.update(library.put(score), [library.put(m) for m in masks])
    with pytest.raises(ValueError, match="raters has 2 masks but the tally was made for 3"):
        tally.update(library.put(score), [library.put(m) for m in masks[:2]])
    assert tally == before


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_contact_degrees_are_the_cpus(library, dtype):
    score, masks = case()
    vessels = np.zeros(score.shape, dtype)
    vessels[:, 5:8, 8:11] = 1
    vessels[4:6, 2:4, :] = 7
    labels = {"artery": 1, "vein": 7, "duct": 3}
    expected = contact_degrees(score, masks, vessels, labels)
    stacked = library.put(np.stack(masks))
    found = contact_degrees(library.put(score), stacked, library.put(vessels), labels)
    assert expected.raters.any()
    np.testing.assert_array_equal(found.raters, expected.raters)
    np.testing.assert_array_equal(found.thresholds, expected.thresholds)
    with pytest.raises(TypeError, match="vessels is in host memory but score is on cuda:0"):
        contact_degrees(library.put(score), stacked, vessels, labels)


def assert_same_metrics(found, expected):
    for field in dataclasses.fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(b, (float, np.ndarray)):
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        elif dataclasses.is_dataclass(b):
            np.testing.assert_array_equal(dataclasses.astuple(a), dataclasses.astuple(b))
        else:
            assert a == b, field.name


@pytest.mark.parametrize("protocol", ["official", "corrected"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("where", ["low", "middle", "everywhere", "nowhere", "region"])
def test_evaluate_is_the_cpus(library, monkeypatch, protocol, dtype, where):
    rng = np.random.default_rng(3)
    shape = (50, 45, 48)
    score, marked = np.zeros(shape, dtype), np.zeros(shape, bool)
    part = {"low": slice(1, 4), "everywhere": slice(None)}.get(where, slice(22, 25))
    score[part, part, part] = rng.random(score[part, part, part].shape)
    marked[part, part, part] = where != "nowhere"
    masks = [((rng.random(shape) < 0.6) & marked).astype(np.uint8) for _ in range(2)]
    vessels = np.zeros(shape, np.uint8)
    vessels[20:26, 22:24, 20:30] = 2
    region = score > 0.2 if where == "region" else None
    # A score that is a part of a larger array, so that NumPy's sum has another order.
    big = np.zeros((50, 45, 96), dtype)
    big[..., ::2] = score
    expected = evaluate(big[..., ::2], masks, vessels, 2.5, protocol, region)
    put = [library.put(a) for a in (*masks, vessels)]
    put_region = None if region is None else library.put(region)
    fetched = []
    module = cuda_module()
    real = module.fetch
    monkeypatch.setattr(module, "fetch", lambda *a: fetched.append(a[1]) or real(*a))
    found = evaluate(library.put(big)[..., ::2], put[:2], put[2], 2.5, protocol, put_region)
    assert_same_metrics(found, expected)
    # The score alone comes back, where NumPy's roundings of its sum are part of the protocol.
    needed = protocol == "official" and dtype != np.float64
    assert fetched == ([(score.size * 2 - 1) * score.itemsize] if needed else [])
    stacked = library.put(np.stack(masks))
    again = evaluate(library.put(big)[..., ::2], stacked, put[2], 2.5, protocol, put_region)
    assert_same_metrics(again, expected)
