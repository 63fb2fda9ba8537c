from __future__ import annotations

import dataclasses
import errno
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from folders import content
from killed_runs import kill_and_finish

from twintrack import Calibrator, ScoreTally, _core
from twintrack.cohort import load_case, read_manifest
from twintrack.runs.case_band import band_over_cases
from twintrack.runs.engine import Settings
from twintrack.runs.fit import (
    TallyJob,
    default_region,
    failures_of,
    fit_cohort,
    fit_tallies,
    read_tallies,
    tally_cohort,
)
from twintrack.runs.leave_one_out import leave_one_out
from twintrack.runs.staging import StoreError
from twintrack.runs.store import open_stores
from twintrack.runs.stored_tallies import StoredTallies


@pytest.fixture
def store(tmp_path):
    return tmp_path / "tallies"


def in_memory(cases, region, **parameters):
    """Fit as a user without the engine would."""
    loaded = [load_case(case, region) for case in cases]
    return Calibrator(region_rule=region, **parameters).fit(
        [case.score.array for case in loaded],
        [case.raters for case in loaded],
        [case.region for case in loaded] if region != "all" else None,
    )


def saved(calibrator, path):
    calibrator.save(path)
    return path.read_bytes()


def saved_map(calibrator, path):
    """The file without the cases: arrays have no names."""
    content = json.loads(saved(calibrator, path))
    del content["fitted_on"]
    return content


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("region", ["roi", "box", "all"])
def test_same_file_as_from_arrays(cases, store, tmp_path, region, exact):
    streamed = Calibrator(bins=40, exact=exact)
    outcomes = fit_cohort(cases, streamed, TallyJob(region), store, settings=Settings(memory=1))
    assert failures_of(outcomes) == []
    expected = in_memory(cases, region, bins=40, exact=exact)
    assert saved_map(streamed, tmp_path / "a.json") == saved_map(expected, tmp_path / "b.json")


def test_cross_validation_does_not_depend_on_the_order_of_finishing(cases, store, tmp_path):
    files = []
    for number, order in enumerate((cases, cases[::-1])):
        calibrator = Calibrator(bins="auto", folds=3)
        fit_cohort(order, calibrator, TallyJob("all"), store / str(number))
        files.append(saved(calibrator, tmp_path / f"{number}.json"))
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "parameters", [{"target": "hard"}, {"target": "single", "rater": 2}, {"bins": 7}]
)
def test_refit_without_voxels_equals_fit(cases, store, tmp_path, parameters):
    fit_cohort(cases, Calibrator(), TallyJob("roi"), store)
    again = Calibrator(**parameters)
    options, tallies = read_tallies(store)
    fit_tallies(again, tallies, options["region"])
    expected = in_memory(cases, "roi", **parameters)
    assert saved_map(again, tmp_path / "a.json") == saved_map(expected, tmp_path / "b.json")


def test_refit_to_a_subset(cases, store):
    fit_cohort(cases, Calibrator(), TallyJob("roi"), store)
    names = [case.name for case in cases]
    _, tallies = read_tallies(store, without=[names[0]], only=["PHANTOM_*[0-4]"])
    assert [name for name, _ in tallies] == names[1:5]
    with pytest.raises(ValueError, match="no case matches 'X'"):
        read_tallies(store, only=["X"])
    with pytest.raises(ValueError, match="there are no cases"):
        fit_tallies(Calibrator(), tallies.of([]), "roi")


@pytest.mark.parametrize("case_weight", ["voxels", "cases"])
def test_band_over_cases_needs_them_kept(cases, store, case_weight):
    fit_cohort(cases, Calibrator(bins=20), TallyJob("roi"), store)
    _, tallies = read_tallies(store)
    made = Calibrator(bins=20, case_weight=case_weight)
    kept = fit_tallies(made, tallies, "roi", keep=True)
    assert set(kept.tallies_) == {case.name for case in cases}
    band = kept.band()
    assert band.low.shape == (1001,)
    assert band == band_over_cases(kept, tallies)
    assert band.volumes.cases == len(cases)


def test_folds_are_not_left_out_as_cases(cases, store):
    calibrator = Calibrator(bins="auto", folds=3)
    fit_cohort(cases, calibrator, TallyJob("roi"), store)
    assert (list(calibrator.tallies_), calibrator.n_cases_) == ([None], 6)
    with pytest.raises(ValueError, match=r"6 of 6 cases are there in sums .*band_over_cases"):
        calibrator.band()
    other = Calibrator(bins="auto", folds=3)
    fit_cohort(cases[:4], other, TallyJob("roi"), store / "other")
    assert other.merge(calibrator).n_cases_ == 10
    # A fold for each case: they are there one by one.
    alone = fit_tallies(Calibrator(bins="auto", folds=6), read_tallies(store)[1], "roi")
    assert set(alone.tallies_) == {case.name for case in cases}
    assert alone.band().level == 0.95


@pytest.mark.parametrize(
    "parameters",
    [{"bins": 30}, {"bins": "auto", "target": "hard"}, {"bins": "cells", "floor": "auto"}],
)
def test_leaving_one_out_is_fitting_the_others(cases, store, parameters):
    fit_cohort(cases, Calibrator(), TallyJob("roi"), store)

    def tallies(**subset):
        return read_tallies(store, **subset)[1]

    whole = fit_tallies(Calibrator(**parameters), tallies(), "roi")
    left_out = dict(leave_one_out(whole, tallies(), "roi"))
    assert list(left_out) == [case.name for case in cases]
    again = {**parameters, "bins": whole.bins_used}
    for case, fitted in left_out.items():
        expected = fit_tallies(Calibrator(**again), tallies(without=[case]), "roi")
        assert fitted.map_ == expected.map_
        assert fitted.provenance_ == {
            **expected.provenance_,
            "facts": None,
            "thresholds": None,
        }
    with pytest.raises(ValueError, match="leaving one patient out needs at least two, here 1"):
        list(leave_one_out(whole, tallies(only=["*0"]), "roi"))


def test_what_follows_a_fit_goes_by_what_its_map_was_made_with(cases, store):
    """Parameters set afterwards would give a band, and calibrators, of another target and bins."""
    fit_cohort(cases, Calibrator(), TallyJob("roi"), store)

    def tallies():
        return read_tallies(store)[1]

    made = fit_tallies(Calibrator("single", bins=20, rater=2), tallies(), "roi")
    expected = dict(leave_one_out(made, tallies(), "roi")), band_over_cases(made, tallies())
    made.set_params(target="mhr", bins=7, rater=0, ensemble={"members": 5})
    found = dict(leave_one_out(made, tallies(), "roi")), band_over_cases(made, tallies())
    for case, fitted in found[0].items():
        assert fitted.provenance_ == expected[0][case].provenance_
        assert fitted.map_ == expected[0][case].map_
    np.testing.assert_array_equal(found[1].low, expected[1].low)


def test_tallies_of_several_regions_are_told_apart(cases, store):
    for region in ("roi", "box"):
        fit_cohort(cases, Calibrator(), TallyJob(region), store)
    assert read_tallies(store, region="box")[0]["region"] == "box"
    with pytest.raises(ValueError, match=r"holds 2 sets of tallies; there are tallies of box, roi"):
        read_tallies(store)
    with pytest.raises(ValueError, match="holds no sets of tallies for --region all"):
        read_tallies(store, region="all")


def test_region_is_chosen_by_the_masks(cases):
    assert default_region(cases) == "roi"
    bare = [dataclasses.replace(case, roi=None) for case in cases]
    assert default_region(bare) == "box"
    with pytest.raises(ValueError, match=r"5 cases have an roi mask, but 1 have none \(PHANTOM_0"):
        default_region([bare[0], *cases[1:]])


def test_broken_cases_are_an_error_or_left_out(cohort, store):
    cases = read_manifest(cohort / "manifest.csv")
    score = Path(cases[4].score)
    score.write_bytes(score.read_bytes()[:-200])  # truncated
    Path(cases[1].raters[2]).unlink()
    with pytest.raises(
        ValueError, match=r"2 of 6 cases could not be used.*--skip-broken"
    ) as raised:
        fit_cohort(cases, Calibrator(), TallyJob("roi"), store)
    assert f"{cases[1].name}: annotation_3.nii.gz: No such file" in str(raised.value)
    assert f"{cases[4].name}: {score.name}: truncated" in str(raised.value)
    fitted = Calibrator()
    failures = failures_of(fit_cohort(cases, fitted, TallyJob("roi"), store, skip_broken=True))
    assert [failure.case for failure in failures] == [cases[1].name, cases[4].name]
    assert [failure.file for failure in failures] == ["rater_3", "score"]
    assert fitted.n_cases_ == 4
    _, tallies = read_tallies(store)
    assert len(list(tallies)) == 4


def test_nothing_left_is_an_error_even_if_broken_cases_are_skipped(cases, store, tmp_path):
    lost = [dataclasses.replace(case, score=tmp_path / "gone.nii.gz") for case in cases[:2]]
    with pytest.raises(ValueError, match="none of the 2 cases could be used"):
        fit_cohort(lost, Calibrator(), TallyJob("roi"), store, skip_broken=True)


def test_cases_of_other_raters_are_refused_by_name(cases, store):
    odd = dataclasses.replace(cases[1], raters=cases[1].raters[:2])
    with pytest.raises(ValueError, match=r"case 'PHANTOM_0000\d'.*raters"):
        fit_cohort([cases[0], odd], Calibrator(), TallyJob("roi"), store)


def test_damaged_tally_is_made_again_by_a_run_and_refused_by_a_refit(cases, store):
    fit_cohort(cases, Calibrator(), TallyJob("roi"), store)
    (opened,) = open_stores(store)
    path = opened.tally_path(cases[0].name)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    _, tallies = read_tallies(store)
    with pytest.raises(ValueError, match=rf"{cases[0].name}\.npz: damaged"):
        list(tallies)
    outcomes, _ = tally_cohort(cases, TallyJob("roi"), store, Settings())
    assert [outcome.case for outcome in outcomes if outcome.state == "done"] == [cases[0].name]
    assert path.read_bytes() == whole


def test_tally_of_another_case_is_not_taken_for_that_of_its_record(cases, store):
    """Whole, and of the right raters, but not what the record names: as after a mixed-up copy."""
    fit_cohort(cases, Calibrator(), TallyJob("roi"), store)
    (opened,) = open_stores(store)
    path, other = (opened.tally_path(case.name) for case in cases[:2])
    whole = path.read_bytes()
    path.write_bytes(other.read_bytes())
    outcomes, total = tally_cohort(cases, TallyJob("roi"), store, Settings())
    assert [outcome.case for outcome in outcomes if outcome.state == "done"] == [cases[0].name]
    assert path.read_bytes() == whole
    assert total == read_tallies(store)[1].total()


@pytest.mark.parametrize(
    "changed",
    [
        *({"region": "box"}, {"tumour": (2,)}, {"tumour": (1, 2)}, {"ignore_header": True}),
        *({"label": ("2",)}, {"use_raters": (1, 2)}, {"ignore_label": 255}),
    ],
)
def test_everything_that_decides_a_tally_is_in_its_options(changed):
    """Else the tallies of one way of counting would be found, and taken, for another's."""
    plain = TallyJob("roi")
    assert dataclasses.replace(plain, **changed).options != plain.options
    assert plain.options["grid_cells"] == _core.GRID_CELLS
    asked = dataclasses.replace(plain, label=("2",), use_raters=(1, 2), ignore_label=255)
    assert {field.name for field in dataclasses.fields(plain)} <= set(asked.options)


def test_order_in_which_cases_come_does_not_decide_the_folds(cases, store):
    fit_cohort(cases, Calibrator(), TallyJob("roi"), store)
    (opened,) = open_stores(store)
    names = [case.name for case in cases]
    choices = [
        fit_tallies(
            Calibrator(bins="auto", folds=2), StoredTallies(opened, order), "roi"
        ).bin_choice_
        for order in (names, names[::-1], [*names[3:], *names[:3]])
    ]
    assert choices[0] == choices[1] == choices[2]


def test_full_disk_while_tallies_are_written(cases, store, monkeypatch):
    save, calls = ScoreTally.save, []

    def full(self, path):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(self, path)

    monkeypatch.setattr(ScoreTally, "save", full)
    with pytest.raises(StoreError, match="No space left"):
        fit_cohort(cases, Calibrator(), TallyJob("roi"), store, settings=Settings(workers=1))
    (opened,) = open_stores(store)
    assert len(opened.cases()) == 3
    assert not list(opened.folder.glob("staging-*"))
    monkeypatch.undo()
    fitted = Calibrator()
    fit_cohort(cases, fitted, TallyJob("roi"), store)
    assert fitted.map_ == in_memory(cases, "roi").map_


def test_parts_in_one_store_equal_the_whole(cases, tmp_path):
    job = TallyJob("roi")
    for part in range(3):
        tally_cohort(cases[part::3], job, tmp_path / "parts", Settings(), cases)
        if part < 2:
            with pytest.raises(ValueError, match="cases are missing"):
                read_tallies(tmp_path / "parts")
    tally_cohort(cases, job, tmp_path / "whole", Settings())
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_killed_at_any_moment_and_resumed_ends_the_same(
    pristine_cohort, tmp_path, command, environment
):
    """SIGKILL while some number of cases is finished; what is left after the last run is the same
    as after a run that nobody disturbed."""
    manifest = pristine_cohort / "manifest.csv"

    def start(name):
        arguments = ["fit", "-i", str(manifest), "-o", str(tmp_path / name / "c.json")]
        (tmp_path / name).mkdir(exist_ok=True)
        return subprocess.Popen([*command, *arguments, "-npp", "1", "-q"], env=environment)

    assert start("whole").wait() == 0
    kill_and_finish(
        lambda: start("killed"), tmp_path / "killed", "c.tallies/*/cases/*.json", (1, 3)
    )
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_only_the_sum_of_a_cohort_is_held(cases, store):
    fit_cohort(cases, Calibrator(), TallyJob("roi"), store)
    calibrator = fit_tallies(Calibrator(), read_tallies(store)[1], "roi")
    assert list(calibrator.tallies_) == [None]
    assert calibrator.n_cases_ == len(cases)
