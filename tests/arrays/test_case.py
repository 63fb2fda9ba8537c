"""A call's arrays are converted once, at the door; what is behind it takes the case."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import twintrack as tt
from twintrack.arrays import backend, case, host
from twintrack.arrays.case import DeviceCase, HostCase, open_case


def arrays(seed=0, shape=(50, 48, 46)):
    rng = np.random.default_rng(seed)
    score = np.zeros(shape, np.float32)
    part = score[1:20, shape[1] // 2 :, 1:-1]
    part[...] = rng.random(part.shape)
    raters = [rng.random(shape) < score for _ in range(3)]
    return score, raters, score > 0.2, rng.integers(0, 6, shape)


@pytest.fixture
def converted(monkeypatch):
    """Names of the arrays that were converted to NumPy's."""
    names, real = [], host.to_numpy

    def counted(array, name):
        if re.fullmatch(r"(score|raters|region|vessels)(\[\d+\])?", name):  # no knots, no volumes
            names.append(name)
        return real(array, name)

    for module in (host, case):
        monkeypatch.setattr(module, "to_numpy", counted)
    return names


@pytest.mark.parametrize("protocol", ["official", "corrected"])
def test_evaluate_converts_each_array_once(converted, protocol):
    score, raters, region, vessels = arrays()
    tt.evaluate(score, raters, vessels, protocol=protocol, region=region)
    expected = ["raters[0]", "raters[1]", "raters[2]", "region", "score", "vessels"]
    assert sorted(converted) == expected
    converted.clear()
    tt.evaluate(score, np.stack(raters), protocol=protocol)  # with a box, and the official one
    assert sorted(converted) == ["raters", "score"]


def test_doors_convert_each_array_once(converted):
    score, raters, region, _ = arrays()
    for call in (
        lambda: tt.ScoreTally(3).update(score, raters, region),
        lambda: tt.CaseTally(3).update(score, raters, region),
        lambda: tt.Calibrator(bins=5).fit(score, raters, region),
        lambda: tt.Calibrator(bins=5).partial_fit(score, raters, region),
        lambda: tt.reliability_curve(score, raters, 5, region),
    ):
        converted.clear()
        call()
        assert sorted(converted) == ["raters[0]", "raters[1]", "raters[2]", "region", "score"]


def test_only_the_doors_ask_where_arrays_are():
    package = Path(backend.__file__).parents[1]
    rooms = [package / room for room in ("calibration", "metrics", "ensemble")]
    asking = re.compile(r"\b(on_device\(|device_kind|device_array|to_numpy\(score)")
    for file in [file for room in rooms for file in room.rglob("*.py")]:
        found = asking.findall(
            re.sub(r"self\.\w*on_device\(|def \w*on_device\(", "", file.read_text())
        )
        assert not found, file


def test_a_case_on_a_device_is_that_of_the_host(library):
    score, raters, region, vessels = arrays(shape=(7, 6, 5))
    given = score.T, [mask.T for mask in raters], region.T, vessels.T
    on_host = open_case(*given)
    put = (library.put(given[0]), [library.put(m) for m in given[1]], *map(library.put, given[2:]))
    on_device = open_case(*put)
    assert isinstance(on_host, HostCase)
    assert isinstance(on_device, DeviceCase)
    assert on_host.on_host() is on_host
    box = (slice(1, 4), slice(-3, 40), slice(2, None))
    for there, here in (
        (on_device.on_host(), on_host),
        (on_device.cropped(box).on_host(), on_host.cropped(box)),
        (on_device.cropped((slice(-2, 1),) * 3).on_host(), on_host.cropped((slice(-2, 1),) * 3)),
    ):
        np.testing.assert_array_equal(there.score, here.score, strict=True)
        np.testing.assert_array_equal(there.raters, here.raters, strict=True)
        if here.region is None:
            assert there.region is None
        else:
            np.testing.assert_array_equal(there.region, here.region, strict=True)
    assert on_device.cropped(box).score.contiguous == on_host.cropped(box).score.flags.forc
    assert on_device.score.contiguous
    assert on_device.vessels.shape == on_host.vessels.shape


def test_nothing_is_copied():
    score, raters, region, vessels = arrays()
    opened = open_case(score[::2], [mask[::2] for mask in raters], region[::2], vessels[::2])
    views = [opened.score, *opened.raters, opened.region, opened.vessels]
    for view, array in zip(views, [score, *raters, region, vessels], strict=True):
        assert np.shares_memory(view, array)
    box = (slice(0, 4),) * 3
    assert np.shares_memory(opened.cropped(box).score, score)
