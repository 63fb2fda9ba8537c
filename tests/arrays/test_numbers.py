"""Numbers that are none: refused by the name of the argument, wherever they are given."""

import re
from decimal import Decimal

import numpy as np
import pytest

import twintrack as tt
from twintrack.arrays.numbers import number_between, whole_number
from twintrack.metrics.vascular import contact_degrees

SCORE = np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3)
RATERS = [SCORE > 0.4, SCORE > 0.6]


def fitted(**parameters):
    return tt.Calibrator(**{"bins": 3, **parameters}).fit([SCORE, SCORE[::-1]], [RATERS, RATERS])


@pytest.mark.parametrize(
    ("call", "name", "bad"),
    [
        (lambda v: tt.evaluate(SCORE, RATERS, voxel_volume=v), "voxel_volume", (1, 1, 1)),
        (lambda v: tt.evaluate(SCORE, RATERS, voxel_volume=v), "voxel_volume", np.ones(3)),
        (lambda v: tt.evaluate(SCORE, RATERS, voxel_volume=v), "voxel_volume", "1"),
        (lambda v: tt.evaluate(SCORE, RATERS, voxel_volume=v), "voxel_volume", None),
        (tt.CaseTally, "raters", 2.5),
        (lambda v: tt.CaseTally(2, v), "bins", "50"),
        (lambda v: tt.reliability_curve(SCORE, RATERS, v), "bins", 10.0),
        (tt.ScoreTally, "raters", [2]),
        (lambda v: tt.ScoreTally(2).update(SCORE, RATERS).equal_mass_bins(v), "bins", 2.5),
        (lambda v: fitted(bins="auto", folds=v), "folds", 2.5),
        (lambda v: fitted(bins="auto", seed=v), "seed", "0"),
        (lambda v: fitted().band(level=v), "level", "95%"),
        (lambda v: fitted(seed=v).band(kind="simultaneous"), "seed", 0.5),
        (lambda v: tt.bootstrap([1.0, 2.0], v), "resamples", 10.5),
        (lambda v: tt.bootstrap([1.0, 2.0], seed=v), "seed", None),
        (lambda v: tt.bootstrap([1.0, 2.0], level=v), "level", (0.05, 0.95)),
        (lambda v: contact_degrees(SCORE, RATERS, RATERS[0], {"a": v}), "labels['a']", 1.5),
        (lambda v: tt.ensemble_score([SCORE], v, "probabilities"), "tumour[0]", "1"),
        (lambda v: tt.ensemble_score([SCORE], (0, v), "probabilities"), "tumour[1]", 1.5),
        (lambda v: tt.ensemble_score([SCORE], v, "probabilities"), "tumour[0]", None),
    ],
)
def test_what_is_no_number_is_named(call, name, bad):
    with pytest.raises(TypeError, match=re.escape(f"{name} is {bad!r}; it must be a ")):
        call(bad)


@pytest.mark.parametrize(
    ("call", "name", "bad"),
    [
        (lambda v: tt.evaluate(SCORE, RATERS, voxel_volume=v), "voxel_volume", float("inf")),
        (lambda v: tt.evaluate(SCORE, RATERS, voxel_volume=v), "voxel_volume", float("nan")),
        (tt.CaseTally, "raters", -1),
        (lambda v: fitted(bins="auto", folds=v), "folds", 1),
        (lambda v: fitted().band(level=v), "level", 95),
        (lambda v: contact_degrees(SCORE, RATERS, RATERS[0], {"a": v}), "labels['a']", 1 << 63),
        (lambda v: tt.ensemble_score([SCORE], v, "probabilities"), "tumour[0]", -1),
    ],
)
def test_what_is_out_of_range_is_named(call, name, bad):
    with pytest.raises(ValueError, match=re.escape(f"{name} is {bad!r}; it must be a ")):
        call(bad)


def test_numbers_of_other_libraries_are_taken():
    assert [whole_number(v, "n", 1, 3) for v in (np.int8(3), np.array(2), True)] == [3, 2, 1]
    for value in (np.float32(0.5), np.array(0.5), 0.5):
        found = number_between(value, "x", 0, 1)
        assert (type(found), found) == (float, 0.5)
    assert tt.evaluate(SCORE, RATERS, voxel_volume=np.float32(2)).predicted_volume > 0
    result = tt.bootstrap([1.0, 2.0], 10, level=Decimal("0.5"))
    assert (type(result.level), result) == (float, tt.bootstrap([1.0, 2.0], 10, level=0.5))
    chosen = fitted(bins="auto", folds=np.array(2), seed=np.array(1))
    assert chosen.bin_choice_ == fitted(bins="auto", folds=2, seed=1).bin_choice_
