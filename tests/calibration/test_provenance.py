"""What a calibrator says of its map is what the map was made with, whatever is set afterwards."""

from __future__ import annotations

import copy
import json
import pickle
from types import MappingProxyType

import numpy as np
import pytest
from sklearn.base import clone

import twintrack as tt
from twintrack.ensemble import check_ensemble, ensemble_record

ENSEMBLE = {"members": 3, "tumour": [1, 2], "average": "logits"}
OTHER = {
    "target": "single",
    "bins": 7,
    "rater": 1,
    "exact": True,
    "region_rule": "box",
    "ensemble": {"members": 5, "tumour": [4], "average": "probabilities"},
}


def cohort(cases=4, raters=3):
    rng = np.random.default_rng(3)
    scores = [rng.random(4000, np.float32) for _ in range(cases)]
    labels = [[rng.random(4000) < score**2 for _ in range(raters)] for score in scores]
    return scores, labels


def fitted(**parameters):
    scores, labels = cohort()
    given = {"bins": 30, "region_rule": "roi", "ensemble": copy.deepcopy(ENSEMBLE), **parameters}
    return tt.Calibrator(**given).fit(scores, labels)


def streamed(**parameters):
    scores, labels = cohort()
    given = {"bins": 30, "region_rule": "roi", "ensemble": copy.deepcopy(ENSEMBLE), **parameters}
    calibrator = tt.Calibrator(**given)
    for number, (score, raters) in enumerate(zip(scores, labels, strict=True)):
        calibrator.partial_fit(score, raters, case=f"case {number}")
    assert calibrator.map_ is not None  # made when it is first asked for
    return calibrator


def saved(calibrator, path):
    calibrator.save(path)
    return json.loads(path.read_text())


@pytest.mark.parametrize("make", [fitted, streamed])
def test_parameters_set_after_the_fit_do_not_change_what_is_said_of_it(make, tmp_path):
    """A file would name bins, rater and ensemble that its map was not made with."""
    untouched, touched = make(), make()
    before = saved(touched, tmp_path / "before.json")
    touched.set_params(**OTHER)
    assert touched.get_params()["bins"] == 7
    assert saved(touched, tmp_path / "after.json") == before
    assert touched.provenance_ == untouched.provenance_
    assert (touched.region_, touched.n_bins_asked) == ("roi", 30)
    assert touched.made_with_ == untouched.made_with_ == untouched.get_params()
    band, expected = (c.band() for c in (touched, untouched))
    np.testing.assert_array_equal(band.low, expected.low)
    np.testing.assert_array_equal(band.high, expected.high)


def test_the_check_of_the_ensemble_looks_at_what_the_map_was_fitted_on():
    calibrator = fitted()
    calibrator.set_params(ensemble=ensemble_record(5, (1, 2), "logits"))
    check_ensemble(calibrator, ensemble_record(3, (1, 2), "logits"))
    with pytest.raises(ValueError, match="members = 3, but this one has members = 5"):
        check_ensemble(calibrator, ensemble_record(5, (1, 2), "logits"))
    calibrator.set_params(ensemble=None)
    with pytest.raises(ValueError, match="members = 3"):
        check_ensemble(calibrator, ensemble_record(5, (1, 2), "logits"))


def test_a_list_inside_the_ensemble_may_be_changed_afterwards():
    given = copy.deepcopy(ENSEMBLE)
    calibrator = fitted(ensemble=given)
    given["tumour"].append(9)
    given["members"] = 8
    assert calibrator.provenance_["ensemble"] == ENSEMBLE
    calibrator.provenance_["ensemble"]["tumour"].append(9)  # what is handed out is a copy
    calibrator.made_with_["ensemble"]["tumour"].append(9)
    assert calibrator.provenance_["ensemble"] == ENSEMBLE
    assert calibrator.made_with_["ensemble"] == ENSEMBLE


def test_any_mapping_may_say_how_scores_were_made(tmp_path):
    frozen = fitted(ensemble=MappingProxyType(ENSEMBLE))
    assert saved(frozen, tmp_path / "c.json")["ensemble"] == ENSEMBLE
    with pytest.raises(TypeError, match="ensemble is 'logits'; it must be a mapping"):
        fitted(ensemble="logits")


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_keep_what_the_map_was_made_with(copied):
    calibrator = fitted()
    again = copied(calibrator.set_params(**OTHER))
    assert again.provenance_ == fitted().provenance_
    assert again.get_params() == calibrator.get_params()
    assert clone(again).get_params() == again.get_params()
    assert not hasattr(clone(again), "provenance_")


def test_adding_voxels_makes_a_new_map_with_the_new_parameters():
    scores, labels = cohort(5)
    calibrator = streamed().set_params(bins=7, target="hard")
    calibrator.partial_fit(scores[4], labels[4], case="case 4")
    assert calibrator.n_bins_asked == 7
    made_of = calibrator.provenance_
    assert (made_of["target"], made_of["bins"]["asked"], made_of["cases"]) == ("hard", 7, 5)
    assert calibrator.set_params(bins=9).n_bins_asked == 7
    assert calibrator.fit(scores, labels).n_bins_asked == 9


def test_what_cannot_be_is_refused_when_the_map_is_made():
    """Parameters set between the voxels and the map were not looked at: 2.5 bins were 2."""
    scores, labels = cohort()
    for wrong, message in (
        ({"bins": 2.5}, "bins is 2.5"),
        ({"target": "single", "rater": -1}, "rater is -1 but there are 3 raters"),
        ({"target": "mean"}, "target is 'mean'"),
    ):
        calibrator = tt.Calibrator(bins=10).partial_fit(scores[0], labels[0]).set_params(**wrong)
        with pytest.raises(ValueError, match=message):
            _ = calibrator.map_


def test_merging_compares_with_what_the_other_map_was_made_with():
    scores, labels = cohort()

    def part(index, ensemble):
        made = tt.Calibrator(bins=10, ensemble=ensemble)
        return made.partial_fit(scores[index], labels[index], case=str(index))

    other = part(1, {"members": 3})
    _ = other.map_
    other.set_params(ensemble={"members": 5})
    with pytest.raises(ValueError, match=r"ensemble is \{'members': 5\} here but \{'members': 3\}"):
        part(0, {"members": 5}).merge(other)
    merged = part(0, {"members": 3}).merge(other)
    assert (merged.n_cases_, merged.provenance_["ensemble"]) == (2, {"members": 3})


def test_a_loaded_calibrator_says_what_its_file_says(tmp_path):
    before = saved(fitted(target="single", rater=2), tmp_path / "c.json")
    loaded = tt.load_calibrator(tmp_path / "c.json").set_params(**OTHER)
    assert saved(loaded, tmp_path / "again.json") == before
    assert (loaded.region_, loaded.n_bins_asked) == ("roi", 30)
    assert (loaded.made_with_["target"], loaded.made_with_["rater"]) == ("single", 2)
    with pytest.raises(ValueError, match="no tallies"):
        loaded.refine([(np.zeros(1), [np.zeros(1)], None)])
    assert saved(loaded, tmp_path / "again.json") == before  # the map is still there


def test_how_cases_were_weighed_is_in_the_file(tmp_path):
    scores, labels = cohort()
    assert "case_weight" not in fitted().provenance_  # the bytes of files of before
    alike = fitted(case_weight="cases")
    assert alike.provenance_["case_weight"] == "cases"
    alike.save(tmp_path / "alike.json")
    loaded = tt.load_calibrator(tmp_path / "alike.json")
    assert (loaded.case_weight, loaded.provenance_["case_weight"]) == ("cases", "cases")
    numbers = tt.Calibrator(bins=30).fit(scores, labels, case_weight=[1, 2, 3, 4])
    numbers.save(tmp_path / "numbers.json")
    loaded = tt.load_calibrator(tmp_path / "numbers.json")
    assert (loaded.case_weight, loaded.provenance_["case_weight"]) == ("voxels", "numbers")
    assert numbers.set_params(bins=9).provenance_["case_weight"] == "numbers"
