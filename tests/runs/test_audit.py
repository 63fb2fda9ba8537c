"""An audit of a map: its verdicts, what they rest on, and the map that replaces it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import expit, logit

from twintrack import Calibrator, InputError, ScoreTally
from twintrack.arrays.threads import thread_limit
from twintrack.calibration.departures import Answers, Departure
from twintrack.calibration.fitted_on import FittedCase
from twintrack.calibration.map_updates import AffineUpdates
from twintrack.metrics.corp import corp
from twintrack.metrics.mapped_voxels import all_of, mapped_voxels
from twintrack.runs.audit import (
    audit_map,
    check_overlap,
    check_region,
    overlap_with,
    updated_calibrator,
)
from twintrack.runs.audit_result import Gain, judged
from twintrack.runs.fit import fit_tallies
from twintrack.runs.stored_tallies import Known, StoredTallies

RATERS = 3


class Tallies(StoredTallies):
    """Tallies in memory, as those of a store."""

    def __init__(self, tallies, patients=None):
        self._tallies, self._pack, self._loads = tallies, None, {}
        self.cases = sorted(tallies)
        patients = patients or {}
        self._known = {
            case: Known(FittedCase.named(case, f"{case}-1", patients.get(case)), patients.get(case))
            for case in self.cases
        }

    def _packed(self, case):
        return None

    def _from_file(self, case):
        return self._tallies[case]


def simulated(first, cases, seed, a=1.0, b=-1.0, spread=0.1, change=None, patients=None, size=1500):
    """Cases whose raters mark with log-odds a logit(score) + b, that differ by `spread`."""
    rng = np.random.default_rng(seed)
    made = {}
    for number in range(first, first + cases):
        score = expit(np.round(rng.normal(-1, 2, int(size * rng.uniform(0.5, 2))) * 4) / 4)
        score = score.astype(np.float32)
        chance = expit(a * logit(score.astype(float)) + b + rng.normal(0, spread))
        if change is not None:
            chance = change(score, chance)
        votes = [rng.random(len(score)) < chance for _ in range(RATERS)]
        made[f"case {number:02d}"] = ScoreTally(RATERS).update(score, votes, rule="box")
    return Tallies(made, patients)


@pytest.fixture(scope="module")
def calibration():
    return simulated(0, 12, 0)


def fitted(tallies, **parameters):
    return fit_tallies(Calibrator(**{"bins": "cells", **parameters}), tallies, "box")


def test_a_right_map_is_kept(calibration):
    found = audit_map(fitted(calibration), simulated(20, 10, 1), calibration)
    assert found.verdict == "keep"
    assert found.sentence.startswith("Keep the map: it predicts")
    assert "±25% would not matter" in found.sentence
    assert found.p_value > 0.05
    assert found.recommended is None
    assert (found.cases, found.patients, found.map_error_from) == (10, 10, "tallies")
    low, high = found.volume_interval
    assert -0.25 < low < high < 0.25
    assert found.detectable < 0.5


def test_other_log_odds_are_updated_and_another_shape_is_fitted_again(calibration):
    made = fitted(calibration)
    found = audit_map(made, simulated(20, 10, 1, b=-2.2), calibration)
    assert (found.verdict, found.recommended) == ("refit", "affine")
    assert found.sentence.startswith("Refit: it predicts")
    assert "more volume than raters mark" in found.sentence
    assert "affine update of its log-odds is enough" in found.sentence
    assert found.updates["a"] == pytest.approx(1, abs=0.1)
    assert found.updates["b"] == pytest.approx(-1.2, abs=0.2)
    assert found.affine_gain.gain > 3 * found.affine_gain.error

    def jump(score, chance):
        return np.where(score > 0.5, 0.95, chance * 0.2)

    found = audit_map(made, simulated(20, 10, 1, change=jump), calibration)
    assert (found.verdict, found.recommended) == ("refit", "refit")
    assert "fitted to the new cases is better" in found.sentence
    assert found.refit_over_affine.gain > found.refit_over_affine.error


def test_a_wrong_slope_with_the_right_volume_is_seen(calibration):
    made = fitted(calibration)
    flat = simulated(20, 10, 1, a=0.5, b=-1.09)
    found = audit_map(made, flat, calibration)
    assert abs(found.volume.estimate) < 0.06
    assert found.tilt.estimate < -0.1
    assert found.verdict == "refit"
    assert "raters mark less than it says where it is high, more where low" in found.sentence


def departure(p=1.0, error=0.01):
    """A departure that is significant at p."""
    one = Departure(0.0, error, 10.0)
    return dataclasses.replace(one, estimate=one.reach(p))


@pytest.mark.parametrize(
    ("volume", "tilt", "p", "verdict"),
    [
        (departure(), departure(), 1, "keep"),
        (departure(0.04), departure(), 0.04 / 0.6, "keep"),
        (departure(0.02), departure(), 0.02 / 0.6, "refit"),
        (departure(), departure(0.03), 0.03 / 0.4, "keep"),
        (departure(), departure(0.01), 0.01 / 0.4, "refit"),
        (departure(error=0.2), departure(), 1, "too few cases"),
        (departure(), departure(error=0.2), 1, "too few cases"),
        # From -23% to +30%, and from -27% to +16%.
        (Departure(0.02, 0.155, 10.0), departure(), 1, "too few cases"),
        (Departure(-0.1, 0.12, 10.0), departure(), 0.7, "too few cases"),
        (Departure(-0.05, 0.1, 10.0), departure(), 1, "keep"),
    ],
)
def test_volume_and_tilt_share_the_size_and_both_must_be_within_the_bound(volume, tilt, p, verdict):
    found = judged(volume, tilt, 0.25)
    assert found == (pytest.approx(p, rel=0.05), verdict)


def test_an_update_that_is_no_better_is_not_recommended(calibration, monkeypatch):
    made, new = fitted(calibration), simulated(20, 10, 1, b=-2.2)
    monkeypatch.setattr("twintrack.runs.audit._gains", lambda *_: (Gain(-1, 1),) * 3)
    found = audit_map(made, new, calibration)
    assert (found.verdict, found.recommended) == ("refit", None)
    assert "no update is better on patients left out" in found.sentence
    with pytest.raises(InputError, match="no map to replace it with: Refit"):
        updated_calibrator(found, made, new, "box")


def test_two_cases_are_too_few(calibration):
    found = audit_map(fitted(calibration), simulated(20, 2, 1, spread=0.4), calibration)
    assert found.verdict == "too few cases"
    assert found.recommended is None
    assert found.sentence.startswith("Too few cases to tell: ")
    assert "would have been found with 80% probability" in found.sentence
    assert found.detectable > 1


def test_a_narrower_bound_asks_for_more_cases(calibration):
    made, new = fitted(calibration), simulated(20, 10, 1)
    assert audit_map(made, new, calibration, bound=0.02).verdict == "too few cases"
    for bound in (0, 1.5, float("nan")):
        with pytest.raises(InputError, match="bound"):
            audit_map(made, new, calibration, bound=bound)


def test_the_error_of_the_map_enters_the_test():
    """Few patients who differ make a map that misses others: that alone is no reason to refit."""
    few = simulated(0, 4, 3, spread=0.8)
    made, new = fitted(few), simulated(20, 30, 4, spread=0.1, b=-1.4)
    found, blind = audit_map(made, new, few), audit_map(made, new)
    assert found.volume.error == blind.volume.error
    assert found.volume.map_error > 3 * found.volume.error
    assert found.p_value > 0.05 > blind.p_value
    assert (blind.verdict, blind.map_error_from) == ("refit", "unknown")
    assert "if the map itself had no error" in blind.sentence
    with_band = fit_tallies(Calibrator(bins="cells"), few, "box", keep=True).keep_band()
    by_band = audit_map(with_band, new)
    assert by_band.map_error_from == "band"
    assert by_band.volume.map_error > found.volume.map_error
    assert by_band.tilt.map_error > found.tilt.map_error


def test_the_error_of_the_map_is_by_fits_without_each_patient(calibration):
    patients = {case: f"p{k // 2}" for k, case in enumerate(calibration.cases)}
    stored = Tallies(calibration._tallies, patients)
    made, new = fitted(stored), simulated(20, 5, 1)
    total = ScoreTally.of_all([tally for _, tally in new])
    cells = total.equal_mass_bins(1 << 62)

    def volume(one):
        return cells.count @ np.interp(cells.mean_score, one.x, one.y)

    change, marked = [], []
    for who in sorted(set(patients.values())):
        own = [case for case in stored.cases if patients[case] == who]
        rest = fitted(stored.of([case for case in stored.cases if case not in own]))
        change.append(np.log(volume(rest.map_) / volume(made.map_)))
        marked.append(sum(stored.tally(case).response for case in own))
    share = np.array(marked) / sum(marked)
    wanted = np.sqrt(((1 - share) * np.square(change)).sum())
    found = audit_map(made, new, stored)
    assert found.volume.map_error == pytest.approx(wanted, rel=1e-9)
    assert found.volume.map_freedom == pytest.approx(1 / (share**2).sum() - 1)


def test_gains_are_of_maps_that_have_not_seen_the_patient(calibration):
    made, new = fitted(calibration, bins=40), simulated(20, 5, 1, b=-1.6)
    found = audit_map(made, new)
    lost = []
    for case in new.cases:
        others = new.of([other for other in new.cases if other != case])
        answers = [Answers.of(made.tally_fit, tally) for _, tally in others]
        affine, _ = AffineUpdates(made.map_, answers).fit()
        lost.append([])
        for one in (made.map_, affine, fitted(others, bins=40).map_):
            voxels = mapped_voxels(new.tally(case), lambda s, one=one: np.interp(s, one.x, one.y))
            lost[-1].append(corp(voxels).brier * voxels.voxels)
    old, affine, refit = np.transpose(lost) / new.voxels()
    pairs = (old - affine, old - refit, affine - refit)
    for gain, each in zip(
        (found.affine_gain, found.refit_gain, found.refit_over_affine), pairs, strict=True
    ):
        assert gain.gain == pytest.approx(each.sum(), rel=1e-3, abs=1e-9)
        assert gain.error == pytest.approx(np.std(each, ddof=1) * np.sqrt(5), rel=1e-3)
    whole = corp(all_of([mapped_voxels(tally, made) for _, tally in new]))
    assert found.miscalibration == pytest.approx(whole.miscalibration, rel=1e-3)
    assert 0 < found.if_calibrated < found.miscalibration


@pytest.mark.parametrize(
    "parameters",
    [
        {"target": "single", "rater": 1},
        {"target": "hard"},
        {"target": "majority"},
        {"kind": "platt", "bins": 250},
        {"case_weight": "cases"},
        {"floor": 0.01, "ceiling": 0.9},
        {"bins": "auto", "folds": 3},
        {"floor": "auto"},
    ],
)
def test_all_kinds_of_maps(calibration, parameters, tmp_path):
    made = fitted(calibration, **parameters)
    made.save(tmp_path / "map.json")
    loaded = Calibrator.load(tmp_path / "map.json")
    found = audit_map(loaded, simulated(20, 8, 1), calibration)
    assert found.verdict == "keep", found.sentence
    wrong = simulated(20, 8, 1, b=-3)
    found = audit_map(loaded, wrong, calibration)
    assert found.verdict == "refit"
    updated = updated_calibrator(found, loaded, wrong, "box")
    wanted = found.affine if found.recommended == "affine" else found.refitted
    assert updated.map_ == wanted
    for one in (found.affine, found.refitted):
        assert made.floor_ <= one.y.min() <= one.y.max() <= made.ceiling_


def test_no_result_depends_on_threads_or_the_order_of_stores(calibration):
    made, new = fitted(calibration), simulated(20, 6, 1, b=-1.8)
    with thread_limit(1):
        alone = audit_map(made, new, calibration)
    assert audit_map(made, new, calibration) == alone
    turned = Tallies({f"z{99 - int(c[-2:])}": t for c, t in new})
    found = audit_map(made, turned, calibration)
    assert (found.volume, found.tilt, found.p_value) == (alone.volume, alone.tilt, alone.p_value)
    assert found.refitted == alone.refitted


def test_cases_of_a_patient_count_as_one(calibration):
    made, new = fitted(calibration), simulated(20, 8, 1)
    two = Tallies(new._tallies, {case: f"p{k % 2}" for k, case in enumerate(new.cases)})
    found = audit_map(made, two, calibration)
    assert (found.cases, found.patients) == (8, 2)
    assert found.effective_groups <= 2
    assert found.volume.estimate == pytest.approx(audit_map(made, new).volume.estimate)


def test_new_cases_may_have_other_raters(calibration):
    """Any number of them, and not the same for all cases or voxels."""
    rng = np.random.default_rng(8)
    made, new = {}, simulated(20, 8, 1)
    for number, case in enumerate(new.cases):
        score = expit(np.round(rng.normal(-1, 2, 1500) * 4) / 4).astype(np.float32)
        chance = expit(logit(score.astype(float)) - 1 + rng.normal(0, 0.1))
        votes = (rng.random((2 + number % 4, len(score))) < chance).astype(np.uint8)
        votes[0, :200] = 255
        made[case] = ScoreTally(len(votes)).update(score, list(votes), ignore_label=255)
    others = Tallies(made)
    found = audit_map(fitted(calibration), others, calibration)
    assert found.verdict == "keep", found.sentence
    marked = sum(tally.response for tally in made.values())
    voxels = ScoreTally.of_all([tally.among(5) for tally in made.values()])
    cells = voxels.equal_mass_bins(1 << 62)
    predicted = cells.count @ np.interp(cells.mean_score, found.old.x, found.old.y)
    assert found.volume.estimate == pytest.approx(np.log(predicted / marked), abs=1e-6)
    single = fitted(calibration, target="single", rater=2)
    with pytest.raises(InputError, match="rater"):
        audit_map(single, others, calibration)


def test_an_affine_update_is_saved_with_what_it_is(calibration, tmp_path):
    made, new = fitted(calibration), simulated(20, 10, 1, b=-2.2)
    found = audit_map(made, new, calibration)
    updated_calibrator(found, made, new, "box").save(tmp_path / "new.json")
    loaded = Calibrator.load(tmp_path / "new.json")
    assert loaded.map_ == found.affine
    said = loaded.provenance_
    assert said["update"] == {**found.updates, "cases": 10, "patients": 10}
    assert (said["cases"], said["facts"], said["thresholds"]) == (12, None, None)
    # The map has seen the new cases, too.
    assert {one.case for one in loaded.fitted_on_} == {
        FittedCase.named(case).case for case in (*calibration.cases, *new.cases)
    }
    again = simulated(40, 10, 5, b=-3.4)
    with pytest.raises(InputError, match="updated by an audit"):
        audit_map(loaded, again, calibration)
    second = audit_map(loaded, again)
    assert second.map_error_from == "unknown"
    assert second.recommended == "affine"
    twice = updated_calibrator(second, loaded, again, "box").provenance_["update"]
    assert twice["a"] == pytest.approx(second.updates["a"] * found.updates["a"])
    assert twice["b"] == pytest.approx(
        second.updates["a"] * found.updates["b"] + second.updates["b"]
    )
    assert twice["cases"] == 20
    broken = json.loads((tmp_path / "new.json").read_text()) | {"update": {"a": -1}}
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(InputError, match="update"):
        Calibrator.load(tmp_path / "broken.json")


def test_a_kept_map_is_not_replaced(calibration):
    made, new = fitted(calibration), simulated(20, 10, 1)
    with pytest.raises(InputError, match="no map to replace it with: Keep"):
        updated_calibrator(audit_map(made, new, calibration), made, new, "box")


def test_numbers_go_to_json(calibration):
    found = audit_map(fitted(calibration), simulated(20, 5, 1), calibration)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["sentence"] == found.sentence
    assert content["volume_ratio"] == pytest.approx(np.exp(found.volume.estimate))
    assert content["volume"]["p_value"] == found.volume.p_value
    assert content["affine_gain"] == found.affine_gain._asdict()
    assert "old" not in content
    unknown = dataclasses.replace(found, detectable=np.inf)
    assert unknown.to_dict()["detectable"] is None


def test_tallies_of_another_fit_are_refused(calibration):
    made, new = fitted(calibration), simulated(20, 5, 1)
    with pytest.raises(InputError, match="11 of the 12 cases"):
        audit_map(made, new, calibration.of(calibration.cases[1:]))
    with pytest.raises(InputError, match="not the tallies that the map was fitted to"):
        audit_map(made, new, simulated(0, 12, 7, b=0))
    alone = calibration.of(calibration.cases[:1])
    with pytest.raises(InputError, match="one patient"):
        audit_map(fitted(alone), new, alone)
    # A store may have more cases than a fit with --only used.
    some = fitted(calibration.of(calibration.cases[:6]))
    assert audit_map(some, new, calibration) == audit_map(
        some, new, calibration.of(calibration.cases[:6])
    )


def test_what_cannot_be_audited_is_refused(calibration):
    new = simulated(20, 5, 1)
    with pytest.raises(InputError, match="identity"):
        audit_map(fitted(calibration, target="none", bins=250), new)
    with pytest.raises(InputError, match="1 of the 1 new patients"):
        audit_map(fitted(calibration), new.of(new.cases[:1]))


def test_new_cases_must_be_new_and_of_the_region_of_the_map(calibration):
    made = fitted(calibration)
    check_region(made, "box")
    with pytest.raises(InputError, match="fitted to the region box.*--region box"):
        check_region(made, "all")
    assert overlap_with(made, simulated(20, 3, 1)) == {}
    known = overlap_with(made, simulated(10, 3, 1))
    assert known == {"same_case": ("case 10", "case 11")}
    with pytest.raises(InputError, match=r"on 2 of these 3 cases \(case 10, case 11\)"):
        check_overlap(known, 3)
    check_overlap({"same_patient": ("a",)}, 3)
