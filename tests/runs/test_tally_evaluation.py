"""A map on stored tallies has the figures that a run over the voxels gives."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from twintrack import Calibrator, InputError
from twintrack.runs.case_band import band_over_cases
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort
from twintrack.runs.fit import TallyJob, fit_cohort, read_tallies
from twintrack.runs.pooled_tallies import Place, pool_tallies
from twintrack.runs.progress import Progress
from twintrack.runs.store import Store
from twintrack.runs.tally_evaluation import evaluate_tallies, tally_options
from twintrack.volumes import read_volume, write_volume

# All that a sum over the voxels of a region gives. Those of the whole case are compared with "all".
IN_REGION = ("ece_probability", "ece_mhr", "ace", "brier", "reliability", "resolution")
OF_CASE = ("tdsc", "crps", "predicted_volume", "rater_volume")


@pytest.fixture
def coarse(cases, tmp_path):
    """The cases with scores of 255 steps, which float16 tells apart."""
    for case in cases:
        volume = read_volume(case.score)
        write_volume(tmp_path / f"{case.name}.nii.gz", volume.array, volume, "uint8")
    return [dataclasses.replace(c, score=tmp_path / f"{c.name}.nii.gz") for c in cases]


def stored(cases, folder, region):
    fitted = Calibrator(bins=30)
    fit_cohort(cases, fitted, TallyJob(region), folder)
    return fitted, *read_tallies(folder)


@pytest.mark.parametrize("protocol", ["official", "corrected"])
@pytest.mark.parametrize("region", ["all", "roi"])
def test_the_figures_are_those_of_the_voxels(coarse, tmp_path, region, protocol):
    fitted, made, tallies = stored(coarse, tmp_path / "fit", region)
    # No score outside of the roi: a tally of all voxels does not know where it is.
    plain = [
        dataclasses.replace(case, roi=None if region == "all" else case.roi) for case in coarse
    ]
    job = EvaluateJob(protocol, fitted, region)
    want = evaluate_cohort(plain, job, tmp_path / "evaluated")
    found = evaluate_tallies(tallies, tally_options(made, fitted, protocol), fitted)
    assert found.rows.keys() == want.rows.keys()
    for case, row in found.rows.items():
        for name in (*IN_REGION, *OF_CASE[: len(OF_CASE) * (region == "all")]):
            # A cell has one mean score, and so one value of float32, for each of the 255 steps.
            assert row[name] == pytest.approx(want.rows[case][name], rel=2e-6), name
        assert set(row) >= {*IN_REGION, *OF_CASE}
        assert all(row[name] is None for name in OF_CASE if region != "all")
        assert row["ece"] is None if region == "all" else row["ece"] is not None
    assert found.fitted_on == want.fitted_on != {}
    assert found.total.voxels == tallies.voxels()
    assert {case: notes[0] for case, notes in found.notes.items()} == {
        case: notes[0] for case, notes in want.notes.items()
    }


def test_the_identity_and_an_infinite_log_score(cases, tmp_path):
    fitted, made, tallies = stored(cases[:2], tmp_path / "fit", "all")
    fitted.keep_band(band_over_cases(fitted, tallies))
    with_band = evaluate_tallies(tallies, tally_options(made, fitted, "corrected"), fitted)
    for row in with_band.rows.values():
        ends = fitted.volume_interval(row["predicted_volume"])
        assert (row["predicted_volume_low"], row["predicted_volume_high"]) == (ends.low, ends.high)
    assert "volumes" in with_band.options
    found = evaluate_tallies(tallies, tally_options(made, None, "corrected"))
    assert found.fitted_on == {}
    for case, row in found.rows.items():
        infinite = any(note.startswith("log_score: infinite") for note in found.notes[case])
        assert math.isnan(row["log_score"]) == infinite
    assert any("benchmark's" in note for note in found.options["notes"])
    assert found.means()["tdsc"][1] == 2


def test_stores_of_other_numbers_of_raters(cases, tmp_path):
    less = [dataclasses.replace(case, raters=case.raters[:3]) for case in cases[3:]]
    for name, some in (("a", cases[:3]), ("b", less)):
        stored(some, tmp_path / name, "all")
    pool = pool_tallies([Place(tmp_path / "a"), Place(tmp_path / "b", "B")])
    found = evaluate_tallies(pool.tallies, tally_options(pool.options, None, "official"))
    alone = read_tallies(tmp_path / "b")
    want = evaluate_tallies(alone[1], tally_options(alone[0], None, "official"))
    for case, row in want.rows.items():
        np.testing.assert_equal(found.rows[f"B/{case}"], row)


def test_a_damaged_tally_is_named_and_long_work_is_told_of(cases, tmp_path, monkeypatch):
    fitted, made, tallies = stored(cases, tmp_path / "fit", "all")
    options = tally_options(made, fitted, "official")
    told = []

    class Told(Progress):
        def start(self, work, cases, nbytes):
            told.append((work, cases))

        def case(self, outcome):
            told.append((outcome.case, outcome.voxels > 0))

    evaluate_tallies(tallies, options, fitted, progress=Told())
    assert told == []
    monkeypatch.setattr("twintrack.runs.progress._PATIENCE", -1.0)
    evaluate_tallies(tallies, options, fitted, progress=Told())
    assert told == [("Evaluating", len(cases)), *((case, True) for case in tallies.cases)]
    store = Store(tmp_path / "fit", "score-tally", TallyJob("all").options)
    path = store.tally_path(cases[1].name)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=cases[1].name):
        evaluate_tallies(read_tallies(tmp_path / "fit")[1], options, fitted)


def test_the_command(cases, pristine_cohort, tmp_path, capfd):
    from twintrack.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, capfd.readouterr().err

    stored(cases, tmp_path / "fit", "all")[0].save(tmp_path / "c.json")
    given = ("--tallies", tmp_path / "fit", "-m", tmp_path / "c.json", "-o", tmp_path / "results")
    status, err = run("evaluate", *given)
    assert status == 0
    assert "fitted on 6 of these 6 cases" in err
    assert "ece, ece_per_rater" in err
    first = {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert set(first) == {"cases.csv", "summary.json", "failures.csv"}
    assert json.loads(first["summary.json"])["tallies"] is True
    assert run("evaluate", *given)[0] == 0
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert run("compare", tmp_path / "results", "-o", tmp_path / "report")[0] == 0

    # Figures of voxels are another method than those of tallies, and the other way round.
    voxels = ("-i", pristine_cohort / "manifest.csv", "-m", tmp_path / "c.json", "--region", "all")
    status, err = run("evaluate", *voxels, "-o", tmp_path / "results")
    assert status == 2
    assert "tallies is true, here none" in err
    for wrong in (
        *(("--mm3",), ("--staple",), ("--example", "a"), ("-num_parts", "2"), ("-p", tmp_path)),
        *(("--dry-run",), ("--use-raters", "1"), ("--image", "{case}.nii")),
    ):
        status, err = run("evaluate", *given, *wrong)
        assert status == 2
        assert f"{wrong[0]} is about files of voxels" in err
    status, err = run("evaluate", *given, *voxels[:2])
    assert status == 2
    assert "either -i" in err
