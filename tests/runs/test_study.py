"""A study's figures are those of maps fitted and evaluated by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from study_stores import names, write_store

import twintrack as tt
from twintrack.arrays.threads import thread_limit
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.calibration.tally_fit import TallyFit
from twintrack.metrics.corp import corp
from twintrack.metrics.debiased_error import debiased_error
from twintrack.metrics.mapped_voxels import mapped_voxels
from twintrack.metrics.rater_noise import RaterNoise, rater_noise
from twintrack.runs import study as studies
from twintrack.runs.pooled_tallies import Place
from twintrack.runs.progress import Progress
from twintrack.runs.study import study
from twintrack.runs.study_bench import CLIP, Measured, Trial
from twintrack.runs.study_cohort import halves, open_cohort
from twintrack.runs.study_tables import methods_table

CASES, PATIENTS = names(24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def tallies(folder):
    return write_store(folder / "over", CASES, PATIENTS, regions=("all", "roi"))


@pytest.fixture(scope="module")
def other(folder):
    """Twelve patients, six of whom the first store has, too, scored in another way."""
    return write_store(folder / "other", *names(24, 12), slope=1.0, shift=0.0)


@pytest.fixture(scope="module")
def cohort(folder, tallies):
    return open_cohort(Place(folder / "over"))


@pytest.fixture(scope="module")
def found(cohort):
    return study(cohort, splits=2)


def table(found, key):
    return next(one for one in found.tables if one.key == key)


def value(found, key, row, column):
    one = table(found, key)
    return one.column(column)[one.names.index(row)]


def of_split(cohort, tallies, split, splits=2):
    """Tallies of a half that is fitted to, and of the patients of the one that is tested."""
    half = halves([cohort], splits, 0)[split]
    fitted = [tallies[case] for patient in half.fitted for case in cohort.patients[patient]]
    tested = [[tallies[case] for case in cohort.patients[patient]] for patient in half.tested]
    return fitted, tested


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("No map", None),
        ("MHR, 250 bins", TallyFit("mhr", 250, 0)),
        ("MHR, without bins", TallyFit("mhr", EVERY_CELL, 0)),
        ("MHR, 100 bins", TallyFit("mhr", 100, 0)),
        ("Platt scaling", TallyFit("mhr", 250, 0, kind="platt")),
        ("Beta calibration", TallyFit("mhr", 250, 0, kind="beta")),
        ("Temperature scaling", TallyFit("mhr", 250, 0, kind="temperature")),
        ("Majority vote", TallyFit("majority", 250, 0)),
        ("Single rater", TallyFit("single", 250, 0)),
        ("Hard labels", TallyFit("hard", 250, 0)),
    ],
)
def test_methods_are_those_of_maps_made_by_hand(found, cohort, tallies, name, fit):
    want = {key: [] for key in ("brier", "excess_brier", "log_score", "miscalibration")}
    want |= {key: [] for key in ("squared_error", "tdsc", "crps", "volume_ratio")}
    for split in range(2):
        fitted, tested = of_split(cohort, tallies, split)
        one = None
        if fit is not None:
            total = tt.ScoreTally.of_all(fitted)
            one = fit(fit.seen(total))
        cases = [case for patient in tested for case in patient]
        total = tt.ScoreTally.of_all(cases)
        voxels = mapped_voxels(total, one)
        parts = corp(voxels)
        m = np.clip(voxels.value, CLIP, 1 - CLIP)
        log = voxels.response * np.log(m) + (voxels.count - voxels.response) * np.log(1 - m)
        each = [tt.evaluate_tally(case, one, protocol="corrected") for case in cases]
        groups = [mapped_voxels(tt.ScoreTally.of_all(patient), one) for patient in tested]
        predicted = sum(case.predicted_volume for case in each)
        want["brier"].append(tt.evaluate_tally(total, one).brier)
        want["excess_brier"].append(parts.brier - rater_noise(total).noise)
        want["log_score"].append(-log.sum() / voxels.voxels)
        want["miscalibration"].append(parts.miscalibration)
        want["squared_error"].append(debiased_error(groups).squared)
        want["tdsc"].append(np.mean([case.tdsc for case in each]))
        want["crps"].append(np.mean([case.crps for case in each]))
        want["volume_ratio"].append(predicted / sum(case.response for case in cases))
    for key, values in want.items():
        assert value(found, "methods", name, key) == pytest.approx(np.mean(values), rel=1e-6), key


def test_paired_differences_and_one_more_rater(found, cohort, tallies):
    ours, theirs, noise = [], [], []
    for split in range(2):
        fitted, tested = of_split(cohort, tallies, split)
        total = tt.ScoreTally.of_all([case for patient in tested for case in patient])
        one = TallyFit("mhr", 250, 0)(tt.ScoreTally.of_all(fitted))
        ours.append(tt.evaluate_tally(total, one).brier)
        theirs.append(tt.evaluate_tally(total).brier)
        noise.append(rater_noise(total).one_more)
    off = np.array(theirs) / ours - 1
    assert value(found, "methods", "No map", "brier_difference") == pytest.approx(off.mean())
    assert value(found, "methods", "No map", "brier_spread") == pytest.approx(off.std(ddof=1))
    assert value(found, "methods", "MHR, 250 bins", "brier_difference") == 0
    assert value(found, "methods", "One more rater", "brier") == pytest.approx(np.mean(noise))
    assert math.isnan(value(found, "methods", "One more rater", "tdsc"))


def test_the_answer_names_methods_that_are_lower_in_every_split():
    def one(brier):
        noise = RaterNoise(0.0, brier, 1)
        return Measured(brier, 0, noise, 0, 0, 1, 0.5, 1, np.ones(4), np.ones(4))

    names = ("MHR, 250 bins", "No map", "Equal", "Lower", "Once")
    figures = ((1.0, 2.0, 0.998, 0.9, 0.9), (1.0, 2.0, 1.001, 0.95, 1.01))
    results = {
        Trial(split, name): one(brier)
        for split, briers in enumerate(figures)
        for name, brier in zip(names, briers, strict=True)
    }
    answer = methods_table(names, results).answer
    assert answer.endswith("Equal to within 0.5%: Equal. Lower in every split: Lower (-7.5%).")
    some = {trial: one for trial, one in results.items() if trial.name != "Lower"}
    assert methods_table(names, some).answer.endswith("No method is lower in every split by more.")


def test_few_bins_cap_the_map(folder):
    write_store(folder / "rare", CASES, PATIENTS, shift=-5.0)
    rows = table(study(open_cohort(Place(folder / "rare")), splits=1), "bins")
    assert rows.names == ["20", "30", "40", "100", "250", "1000", "without bins", "no map"]
    tops, brier = rows.column("top"), np.array(rows.column("brier"))
    assert tops[:7] == sorted(tops[:7])
    assert rows.column("brier_difference") == pytest.approx(brier / brier[6] - 1, abs=1e-12)
    assert rows.column("brier_difference")[2] > 0.01 > rows.column("brier_difference")[3]
    assert rows.answer.startswith("100 bins are enough")
    assert f"no score comes above {tops[0]:.2f}" in rows.answer


def test_few_patients_cost(found, cohort, tallies):
    rows = table(found, "learning")
    assert rows.names == ["2", "5"]  # of six in a half, all six are no draw
    assert rows.column("draws") == [12, 12]
    excess, worst = rows.column("brier_difference"), rows.column("brier_worst")
    assert excess[0] > excess[1]
    assert all(w >= e for w, e in zip(worst, excess, strict=True))
    off = []
    for draw in range(12):
        fitted, tested = of_split(cohort, tallies, draw % 2)
        half = halves([cohort], 2, 0)[draw % 2].fitted
        order = np.random.default_rng([0, draw % 2, draw]).permutation(len(half))[:2]
        drawn = [tallies[case] for k in order for case in cohort.patients[half[k]]]
        few, every = (TallyFit("mhr", 250, 0)(tt.ScoreTally.of_all(t)) for t in (drawn, fitted))
        total = tt.ScoreTally.of_all([case for patient in tested for case in patient])
        off.append(tt.evaluate_tally(total, few).brier / tt.evaluate_tally(total, every).brier - 1)
    assert excess[0] == pytest.approx(np.mean(off), rel=1e-6)
    assert worst[0] == pytest.approx(max(off), rel=1e-6)


def test_volumes_by_size(found, cohort, tallies):
    ratios = []
    for split in range(2):
        _, tested = of_split(cohort, tallies, split)
        cases = [case for patient in tested for case in patient]
        predicted = np.array([tt.evaluate_tally(case).predicted_volume for case in cases])
        marked = np.array([case.response for case in cases])
        # Quarters are those of each map's own prediction.
        smallest = np.argsort(predicted)[: len(cases) // 4]
        ratios.append(predicted[smallest].sum() / marked[smallest].sum())
    assert value(found, "sizes", "smallest quarter", "volume_ratio_without") == pytest.approx(
        np.mean(ratios), rel=1e-6
    )
    assert sum(table(found, "sizes").column("predicted_share")[:4]) == pytest.approx(1)


def test_maps_of_another_region(found, cohort, folder, tallies):
    assert table(found, "regions").names == ["all", "roi"]
    inside = write_store(folder / "inside", CASES, PATIENTS, regions=("roi",))
    want = []
    for split in range(2):
        fitted = tt.ScoreTally.of_all(of_split(cohort, inside, split)[0])
        _, tested = of_split(cohort, tallies, split)
        total = tt.ScoreTally.of_all([case for patient in tested for case in patient])
        want.append(tt.evaluate_tally(total, TallyFit("mhr", 250, 0)(fitted)).brier)
    assert value(found, "regions", "roi", "brier") == pytest.approx(np.mean(want), rel=1e-6)


def test_a_region_without_whole_cases(folder, tallies):
    found = study(open_cohort(Place(folder / "over"), region="roi"), splits=1)
    keys = {column.key for one in found.tables for column in one.columns}
    assert not keys & {"tdsc", "crps", "volume_ratio", "tdsc_difference", "tdsc_worst"}
    assert "brier" in keys
    assert "sizes" not in {one.key for one in found.tables}
    assert any("all voxels" in why for _, why in found.absent)
    assert any(note.startswith("tdsc") for note in found.notes)
    assert table(found, "regions").names == ["roi", "all"]


def test_transfer_knows_patients_of_both(folder, cohort, tallies, other):
    second = open_cohort(Place(folder / "other", "second"))
    for half in halves([cohort, second], 5, 0):
        assert not set(half.fitted) & set(half.tested)
        assert set(half.fitted) | set(half.tested) == set(cohort.patients) | set(second.patients)
    found = study(cohort, second, splits=2)
    rows = table(found, "transfer")
    assert len(rows.rows) == 10
    divided, want = halves([cohort, second], 2, 0), []
    for half in divided:
        fitted = [other[c] for p in half.fitted for c in second.patients.get(p, ())]
        tested = [tallies[c] for p in half.tested for c in cohort.patients.get(p, ())]
        one = TallyFit("mhr", 250, 0)(tt.ScoreTally.of_all(fitted))
        want.append(tt.evaluate_tally(tt.ScoreTally.of_all(tested), one).brier)
    assert value(found, "transfer", "over: map of second", "brier") == pytest.approx(
        np.mean(want), rel=1e-6
    )
    wrong = value(found, "transfer", "over: map of second", "brier_difference")
    updated = "over: map of second, updated by 5 patients of over"
    assert 0 < value(found, "transfer", updated, "brier_difference") < wrong
    assert rows.answer.startswith("On over the map of second is ")


def test_the_same_again_on_any_number_of_threads(cohort, found):
    assert study(cohort, splits=2) == found
    with thread_limit(1):
        assert study(cohort, splits=2) == found
    assert study(cohort, splits=2, seed=1) != found
    assert [one.csv() for one in study(cohort, splits=2).tables] == [
        one.csv() for one in found.tables
    ]


def test_what_cannot_be_fitted_is_said(folder):
    cases, patients = names(8)
    write_store(folder / "a", cases[:4], patients[:4])
    write_store(folder / "two", cases, patients, absent=(0,))
    found = study(open_cohort(Place(folder / "two")), splits=1)
    assert "Single rater" not in table(found, "methods").names
    assert "Hard labels" in table(found, "methods").names
    assert any(note.startswith("Single rater: not fitted: ") for note in found.notes)
    write_store(folder / "unmarked", cases, patients, shift=-400.0)
    with pytest.raises(tt.InputError, match="unmarked: no rater marks"):
        study(open_cohort(Place(folder / "unmarked")), splits=1)
    with pytest.raises(tt.InputError, match="a has 2 patients"):
        study(open_cohort(Place(folder / "a")))


def test_a_region_that_some_cases_lack(folder):
    cases, patients = names(12)
    write_store(folder / "lacking", cases, patients)
    write_store(folder / "lacking", cases[:3], patients[:3], regions=("roi",))
    cohort = open_cohort(Place(folder / "lacking"))
    assert cohort.notes[0].endswith("9 cases have no tally of the region roi")
    found = study(cohort, splits=3)
    assert found.notes[0] == cohort.notes[0]
    assert table(found, "regions").names == ["all", "roi"]


def test_two_cohorts_of_different_regions(folder, cohort):
    write_store(folder / "roi", *names(8), regions=("roi",))
    with pytest.raises(tt.InputError, match="--region"):
        study(cohort, open_cohort(Place(folder / "roi")))


def test_absent_questions_say_what_they_need(folder):
    write_store(folder / "small", *names(8))
    found = study(open_cohort(Place(folder / "small")), splits=1)
    told = dict(found.absent)
    assert any("--tallies OTHER" in why for why in told.values())
    assert any("--region roi" in why for why in told.values())
    assert "How many patients are enough?" in told


def test_a_damaged_tally_is_named_and_long_work_is_told_of(folder, monkeypatch):
    write_store(folder / "damaged", *names(8))
    told = []

    class Told(Progress):
        def start(self, work, cases, nbytes):
            told.append(work)

    monkeypatch.setattr("twintrack.runs.progress._PATIENCE", -1.0)
    study(open_cohort(Place(folder / "damaged")), splits=1, progress=Told())
    assert told == ["Adding up", "Fitting", "Measuring"]
    path = next((folder / "damaged").glob("*/cases/c003.npz"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(tt.InputError, match="c003"):
        study(open_cohort(Place(folder / "damaged")), splits=1)


def test_sizes_are_ascending():
    assert list(studies.SIZES) == sorted(studies.SIZES)
    assert studies.FRESH in studies.SIZES
