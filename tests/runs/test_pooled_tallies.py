"""Tallies of several stores: the fit is that of all cases at once, and no case counts twice."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from twintrack import Calibrator
from twintrack.calibration.fitted_on import FittedCase
from twintrack.runs.case_band import band_over_cases
from twintrack.runs.fit import TallyJob, fit_cohort, fit_tallies, read_tallies
from twintrack.runs.leave_one_out import leave_one_out
from twintrack.runs.pooled_tallies import Place, pool_tallies
from twintrack.runs.store import open_stores

PATIENTS = ["P", "P", None, "Q", "Q", "R"]


def tallied(cases, store, **job):
    fit_cohort(cases, Calibrator(bins=5), TallyJob(job.pop("region", "roi"), **job), store)
    return store


@pytest.fixture
def visits(cases):
    return [dataclasses.replace(c, patient=p) for c, p in zip(cases, PATIENTS, strict=True)]


@pytest.fixture
def stores(visits, tmp_path):
    """One of all cases, and two that share them, so that a patient is in both."""
    return {
        "all": tallied(visits, tmp_path / "all"),
        "a": tallied(visits[::2], tmp_path / "a"),
        "b": tallied(visits[1::2], tmp_path / "b"),
    }


def pooled(stores, **asked):
    return pool_tallies([Place(stores["b"]), Place(stores["a"])], **asked)


def saved(calibrator, path):
    calibrator.save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"bins": 30},
        {"bins": "auto", "folds": 3},
        {"target": "hard", "bins": "auto", "folds": 9},
        {"target": "single", "rater": 1},
    ],
)
@pytest.mark.parametrize("subset", [{}, {"without": ["*1"]}, {"only": ["*[024]"]}])
def test_a_pooled_fit_is_that_of_all_cases(stores, tmp_path, parameters, subset):
    together, apart = read_tallies(stores["all"], **subset), pooled(stores, **subset)
    assert apart.options == together[0]
    assert apart.tallies.cases == together[1].cases
    assert apart.tallies.groups() == together[1].groups()
    made = [
        fit_tallies(Calibrator(**parameters), tallies, "roi", keep=keep)
        for tallies in (together[1], apart.tallies)
        for keep in (False, parameters == {})
    ]
    files = {saved(fitted, tmp_path / "c.json") for fitted in made}
    assert len(files) == 1


def test_leaving_out_and_bands_are_those_of_all_cases(stores):
    both = read_tallies(stores["all"])[1], pooled(stores).tallies
    fits = [fit_tallies(Calibrator(bins=30), tallies, "roi") for tallies in both]
    left_out = [
        {
            case: (fitted.map_, fitted.provenance_, fitted.fitted_on_)
            for case, fitted in leave_one_out(fits[0], tallies, "roi")
        }
        for tallies in both
    ]
    assert left_out[0] == left_out[1]
    assert list(left_out[1]) == list(left_out[0])
    bands = [band_over_cases(fits[0], tallies) for tallies in both]
    assert bands[0] == bands[1]


def test_packs_are_used_and_may_be_damaged(stores, monkeypatch):
    monkeypatch.setattr("twintrack.runs.stored_tallies._WORTH_PACKING", 1)
    expected = read_tallies(stores["all"])[1].total()
    assert pooled(stores).tallies.total() == expected
    (pack,) = stores["a"].rglob("tallies.pack")
    assert pooled(stores).tallies.total() == expected
    content = bytearray(pack.read_bytes())
    content[40] ^= 1
    pack.write_bytes(content)
    assert pooled(stores).tallies.total() == expected


def test_stores_that_call_cases_alike_are_told_apart_by_name(stores, visits, tmp_path):
    names = {case.name: f"00{k // 2}" for k, case in enumerate(visits)}
    for name, cases in (("a", visits[::2]), ("b", visits[1::2])):
        alike = [dataclasses.replace(case, name=names[case.name]) for case in cases]
        tallied(alike, tmp_path / f"{name} alike")
    places = [tmp_path / "a alike", tmp_path / "b alike"]
    with pytest.raises(
        ValueError, match=r"case '000': it is in .*a alike and in .*b alike; if"
    ) as e:
        pool_tallies([Place(place) for place in places])
    assert f"--tallies A={places[0]} --tallies B={places[1]}" in str(e.value)
    named = pool_tallies([Place(place, name) for place, name in zip(places, "AB", strict=True)])
    assert named.tallies.cases == [f"{name}/00{k}" for name in "AB" for k in range(3)]
    # Nor are their patients the same.
    assert set(named.tallies.groups()) == {"A/P", "A/001", "A/Q", "B/P", "B/Q", "B/R"}
    fitted = fit_tallies(Calibrator(bins="auto", folds=9), named.tallies, "roi")
    whole = fit_tallies(Calibrator(bins=fitted.n_bins_asked), read_tallies(stores["all"])[1], "roi")
    assert fitted.map_ == whole.map_
    # The file has the names that the cases have at home: there they are known again.
    known = {one.case for one in fitted.fitted_on_}
    assert known == {FittedCase.named(f"00{k}").case for k in range(3)}
    assert len(fitted.fitted_on_) == 6
    one = pool_tallies(
        [Place(place, name) for place, name in zip(places, "AB", strict=True)], only=["A/*"]
    )
    assert one.tallies.cases == ["A/000", "A/001", "A/002"]
    alone = fit_tallies(Calibrator(bins=30), one.tallies, "roi")
    assert alone.map_ == fit_tallies(Calibrator(bins=30), read_tallies(stores["a"])[1], "roi").map_


def test_a_case_under_two_names_is_found_out(stores, visits, tmp_path):
    copied = [dataclasses.replace(visits[0], name="copy"), *visits[3:4]]
    tallied(copied, tmp_path / "c")
    places = [Place(stores["a"]), Place(tmp_path / "c", "C")]
    with pytest.raises(ValueError, match="case 'copy': .*c: it is of the very score of case") as e:
        pool_tallies(places)
    assert "--without C/copy" in str(e.value)
    assert len(pool_tallies(places, without=["C/copy"]).tallies) == 4


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"region": "box"}, "region is roi in .*a, box here"),
        ({"tumour": (1, 2)}, "tumour is 1 in .*a, 1,2 here; tallies of one map must have counted"),
    ],
)
def test_stores_that_counted_something_else_are_refused(stores, visits, tmp_path, job, message):
    tallied(visits[1::2], tmp_path / "c", **job)
    with pytest.raises(ValueError, match=message) as refused:
        pool_tallies([Place(stores["a"]), Place(tmp_path / "c")])
    assert refused.value.file == tmp_path / "c"


def test_how_files_are_read_may_differ_and_is_told(stores, visits, tmp_path):
    tallied(visits[1::2], tmp_path / "c", ignore_header=True, label=("1",))
    found = pool_tallies([Place(stores["a"]), Place(tmp_path / "c", "C")])
    told = " ".join(found.notes)
    assert f"ignore_header is False in {stores['a']}, True in C ({tmp_path / 'c'})" in told
    assert "label is not set in" in told
    whole = read_tallies(stores["all"])[1].total()
    assert found.tallies.total() == whole
    assert pooled(stores).notes == []


def test_other_scores_are_refused(stores, visits, tmp_path):
    for name, members in (("a", 3), ("b", 5)):
        (store,) = open_stores(stores[name])
        with store.joining():
            for case in store.cases():
                entry = store.find(case)
                result = {**entry.result, "ensemble": {"members": members}}
                store.save(dataclasses.replace(entry, result=result), {})
    with pytest.raises(
        ValueError, match=r"case 'PHANTOM_0000\d': its score is of an ensemble with"
    ):
        pooled(stores)
    assert pooled(stores, only=["*[024]"]).options["ensemble"] == {"members": 3}


def test_what_is_not_there_is_told_of_all_stores(stores):
    with pytest.raises(ValueError, match="no case matches 'X'"):
        pooled(stores, only=["X"])
    shutil.rmtree(stores["b"])
    with pytest.raises(FileNotFoundError):
        pooled(stores)
