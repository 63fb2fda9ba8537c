"""Metrics of arrays on a device give what the same arrays in host memory give.

Run on stand-ins for the libraries with the kernels executed by the CPU (see test_device_arrays).
"""

from __future__ import annotations

import numpy as np
import pytest

from twintrack.metrics import CaseTally
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
    marked = on_host.update_and_overview(score, masks).marked
    assert on_device.update_and_overview(library.put(score), put).marked == marked
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
