"""Maps to the majority, and maps with parameters, as any calibrator: files, bands, stores."""

import numpy as np
import pytest

import twintrack as tt
from twintrack import InputError


def make(seed, raters=4, voxels=3000):
    rng = np.random.default_rng(seed)
    score = rng.random(voxels).astype(np.float32)
    return score, [(rng.random(voxels) < score**2).astype(np.uint8) for _ in range(raters)]


def majority(masks):
    seen = np.ma.masked_equal(masks, 255)
    return (2 * seen.sum(axis=0) > seen.count(axis=0)).astype(np.uint8)


@pytest.mark.parametrize("raters", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("bins", [20, "cells"])
def test_the_map_to_the_majority_is_that_to_its_mask(raters, bins):
    cases = [make(seed, raters) for seed in range(3)]
    for number, (_, masks) in enumerate(cases):
        masks[-1][: 700 * number * (raters > 1)] = 255
    scores, labels = zip(*cases, strict=True)
    made = tt.Calibrator("majority", bins=bins).fit(scores, labels, ignore_label=255)
    want = tt.Calibrator(bins=bins).fit(scores, [[majority(masks)] for masks in labels])
    assert made.map_ == want.map_
    assert made.facts_ == want.facts_
    found, expected = made.band(), want.band()
    np.testing.assert_array_equal(found.low, expected.low)
    assert found.volumes == expected.volumes


def test_bins_for_the_majority_are_chosen_by_its_answers():
    cases = [make(seed) for seed in range(6)]
    scores, labels = zip(*cases, strict=True)
    made = tt.Calibrator("majority", bins="auto").fit(scores, labels)
    want = tt.Calibrator(bins="auto").fit(scores, [[majority(masks)] for masks in labels])
    assert made.bin_choice_ == want.bin_choice_


def test_tallies_of_earlier_versions_do_not_know_the_majority():
    tally = tt.ScoreTally(3).update(*make(0, 3))
    cells, sums = tally.pooled_rows()
    old = tt.ScoreTally.of_rows(3, {(0, 1, 2): (cells, sums[:, :5])})
    with pytest.raises(InputError, match="target is 'majority'; the tally is of an earlier"):
        tt.Calibrator("majority").add_tally(old).finish()


@pytest.mark.parametrize("kind", ["platt", "beta", "temperature"])
@pytest.mark.parametrize("target", ["mhr", "single", "hard", "majority"])
def test_a_map_with_parameters_is_saved_as_any(kind, target, tmp_path):
    scores, labels = zip(*[make(seed) for seed in range(3)], strict=True)
    made = tt.Calibrator(target, kind=kind, rater=1).fit(scores, labels)
    made.save(tmp_path / "c.json")
    loaded = tt.load_calibrator(tmp_path / "c.json")
    assert loaded.map_ == made.map_
    assert loaded.parameters_ == made.parameters_
    assert len(made.parameters_) == (4 if target == "hard" else 1)
    assert (loaded.kind, loaded.made_with_["kind"]) == (kind, kind)
    assert loaded.provenance_ == made.provenance_
    assert made.provenance_["bins"] is None
    assert made.facts_.top == made.map_.y[-1]
    if target != "majority":
        assert np.abs(made.transform(scores[0]) - scores[0] ** 2).mean() < 0.2


@pytest.mark.parametrize("kind", ["platt", "beta", "temperature"])
def test_the_band_of_a_map_with_parameters(kind):
    scores, labels = zip(*[make(seed) for seed in range(8)], strict=True)
    made = tt.Calibrator(kind=kind).fit(scores, labels)
    band = made.band([0.2, 0.6, 0.9])
    assert (band.low < band.value).all()
    assert (band.value < band.high).all()
    assert (band.high - band.low < 0.2).all()
    # The jackknife by hand, with groups of equal share.
    rest = [
        tt.Calibrator(kind=kind).fit(
            [s for k, s in enumerate(scores) if k != c], [m for k, m in enumerate(labels) if k != c]
        )
        for c in range(8)
    ]
    theta = [np.log(m / (1 - m)) for m in (one.map_(band.score) for one in rest)]
    center = np.log(band.value / (1 - band.value))
    error = np.sqrt(7 / 8 * np.sum((np.array(theta) - center) ** 2, axis=0))
    width = np.log(band.high / (1 - band.high)) - center
    np.testing.assert_allclose(width, 2.365 * error, rtol=0.03)  # t of 7 degrees


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "splines"}, "kind is 'splines'; it must be one of isotonic, platt"),
        ({"kind": "platt", "bins": 20}, "has no bins: leave out bins and exact"),
        ({"kind": "beta", "exact": True}, "has no bins"),
        ({"kind": "beta", "target": "none"}, "the identity: leave kind out"),
        ({"target": "majority", "exact": True}, "leave it out"),
    ],
)
def test_what_cannot_be_asked_for_together(parameters, message):
    with pytest.raises(InputError, match=message):
        tt.Calibrator(**parameters).fit(*make(0))
