from __future__ import annotations

import dataclasses
import functools
import io
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twintrack import Calibrator, ScoreTally
from twintrack.calibration.fitted_on import FittedCase
from twintrack.cohort import read_manifest
from twintrack.runs import stored_tallies
from twintrack.runs.case_band import band_over_cases
from twintrack.runs.engine import Settings
from twintrack.runs.fit import TallyJob, fit_tallies, read_tallies, tally_cohort
from twintrack.runs.leave_one_out import leave_one_out
from twintrack.runs.progress import Lines
from twintrack.runs.records import Entry
from twintrack.runs.store import Store
from twintrack.runs.stored_tallies import Known
from twintrack.runs.tally_pack import NAME, DenseSums, TallyPack, write_pack
from twintrack.volumes import read_score, write_volume

STAMP = (1, 2, 3, 4)


def tally(seed, voxels, raters=3, dtype=np.float32):
    rng = np.random.default_rng(seed)
    score = (rng.random(voxels) ** 3).astype(dtype)
    return ScoreTally(raters).update(score, [rng.random(voxels) < score for _ in range(raters)])


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 9)), min_size=1, max_size=4))
def test_packed_tallies_are_the_tallies(tmp_path_factory, cases):
    """Few voxels leave gaps between the cells, many do not: both layouts of a block."""
    path = tmp_path_factory.mktemp("pack") / NAME
    made = {str(k): tally(k, voxels, raters) for k, (voxels, raters) in enumerate(cases)}
    write_pack(path, ((case, STAMP, one) for case, one in made.items()))
    pack = TallyPack(path)
    for case, one in made.items():
        packed = pack.read(case)
        assert packed.tally() == one
        assert (packed.raters, packed.regions) == (one.raters, {"all"})
        dense = DenseSums(one.raters)
        dense.add(packed)
        assert dense.tally() == one
        dense.add(packed, 2)
        assert dense.tally() == ScoreTally.of_all([one, one, one])


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("gap", [1, 5000])
def test_sums_at_the_limit_of_a_type_are_kept(tmp_path, bits, gap):
    """One more than a type holds would come back as 0: voxels, or votes, would be lost."""
    sums = np.zeros((3, 6), np.uint64)
    sums[:, 0] = np.array([-1, 0, 1]) + 2**bits
    for rater, by in enumerate((1, 0)):  # the largest votes fit just so, or not any more
        sums[:, 2 + rater] = sums[:, 0] - np.uint64(by)
    cells = np.arange(3, dtype=np.uint32) * gap + 7
    for rows in (slice(1), slice(2), slice(3)):
        one = ScoreTally.of_rows(2, {(0, 1): (cells[rows], sums[rows])})
        write_pack(tmp_path / NAME, [("A", STAMP, one)])
        assert TallyPack(tmp_path / NAME).read("A").tally() == one


def test_every_cell_occupied_is_stored_without_cells(tmp_path):
    score = np.linspace(0.4, 0.6, 1 << 20, dtype=np.float32)
    full = ScoreTally(1).update(score, [score > 0.5])
    write_pack(tmp_path / NAME, [("A", STAMP, full)])
    packed = TallyPack(tmp_path / NAME).read("A")
    assert packed.sets[0,].cells is None
    assert packed.tally() == full


@pytest.mark.parametrize("damage", range(0, 400, 7))
def test_a_damaged_pack_is_noticed(tmp_path, damage):
    path = tmp_path / NAME
    one = tally(0, 20)
    write_pack(path, [("A", STAMP, one)])
    data = bytearray(path.read_bytes())
    data[damage % len(data)] ^= 4
    path.write_bytes(data)
    try:
        pack = TallyPack(path)
        packed = pack.read("A").tally() if pack.has("A", STAMP) else None
        assert packed in (None, one)
    except ValueError as error:
        assert NAME in str(error)  # noqa: PT017


@pytest.fixture
def store(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_tallies, "_WORTH_PACKING", 1)
    tally_cohort(cases, TallyJob("roi"), tmp_path / "t", Settings())
    return tmp_path / "t"


def test_refits_from_the_pack_are_those_from_the_files(store, monkeypatch):
    names = read_tallies(store)[1].cases
    assert list(store.rglob(NAME))
    results = []
    for _ in ("packed", "files"):
        _, tallies = read_tallies(store, without=names[:1])
        assert tallies.cases == names[1:]
        fitted = fit_tallies(Calibrator(bins=30), tallies, "roi")
        left_out = leave_one_out(fitted, tallies, "roi")
        results.append((fitted.map_, [one.map_ for _, one in left_out]))
        for pack in store.rglob(NAME):
            pack.unlink()
        monkeypatch.setattr(stored_tallies, "_WORTH_PACKING", 1000)
    assert results[0] == results[1]


def test_pack_is_not_believed_when_a_tally_has_changed(store):
    names = read_tallies(store)[1].cases
    path = next(store.rglob(f"{names[2]}.npz"))
    ScoreTally(3).save(path)
    with pytest.raises(ValueError, match=rf"{names[2]}\.npz: damaged, or not the tally"):
        list(read_tallies(store)[1])


def test_pack_is_not_believed_when_a_record_has_changed(store):
    names = read_tallies(store)[1].cases
    record = next(store.rglob(f"cases/{names[2]}.json"))
    content = json.loads(record.read_text())
    content["outputs"]["tally"]["digest"] = "0" * 16
    record.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{names[2]}\.npz: damaged, or not the tally"):
        list(read_tallies(store)[1])


def sum_of_files(store, names):
    files = [next(store.rglob(f"cases/{name}.npz")) for name in names]
    return functools.reduce(ScoreTally.__add__, map(ScoreTally.load, files))


def test_sum_of_a_pack_is_not_taken_for_that_of_more_or_other_tallies(
    cohort, tmp_path, monkeypatch
):
    """The pack is written again only when many tallies are missing in it."""
    cases, store = read_manifest(cohort / "manifest.csv"), tmp_path / "t"
    names = [case.name for case in cases]

    def total(number):
        tally_cohort(cases[:number], TallyJob("roi"), store, Settings())
        return read_tallies(store)[1].total()

    monkeypatch.setattr(stored_tallies, "_WORTH_PACKING", 1)
    assert total(4) == sum_of_files(store, names[:4])
    packed = next(store.rglob(NAME)).read_bytes()
    monkeypatch.setattr(stored_tallies, "_WORTH_PACKING", 1000)
    assert total(5) == sum_of_files(store, names[:5])
    score = read_score(cases[1].score)
    write_volume(cases[1].score, 1 - score.array, score)
    assert total(4) == sum_of_files(store, names[:4])
    assert next(store.rglob(NAME)).read_bytes() == packed


@pytest.mark.parametrize("threads", [1, 2, 3, 99])
def test_many_tallies_are_added_up_by_threads(tmp_path, monkeypatch, threads):
    store = Store(tmp_path, "score-tally", {"region": "all"})
    names = [f"case_{k:02d}" for k in range(50)]
    with store.writing(names):
        for k, name in enumerate(names):
            place = store.tally_path(name)
            tally(k, 40).save(store.staged(place.name))
            outputs = {"tally": store.stamp_staged(place.name, place)}
            store.save(Entry(name, {}, 40, {}, outputs), {store.staged(place.name): place})
    monkeypatch.setattr(stored_tallies._core, "max_threads", lambda: threads)
    found = stored_tallies.StoredTallies(store, names).total()
    assert found.voxels == 50 * 40
    assert found == sum_of_files(tmp_path, names)


def test_a_pack_that_cannot_be_read_or_written_costs_nothing_but_time(store, monkeypatch):
    expected = dict(read_tallies(store)[1])
    next(store.rglob(NAME)).write_bytes(b"TWTPACK1" + bytes(20))
    assert dict(read_tallies(store)[1]) == expected

    def full(*_):
        raise OSError(28, os.strerror(28))

    next(store.rglob(NAME)).unlink()
    monkeypatch.setattr(stored_tallies, "write_pack", full)
    assert dict(read_tallies(store)[1]) == expected


def test_cases_of_fewer_raters_are_fitted_with_the_others(store):
    tallies = read_tallies(store)[1]
    case = tallies.cases[3]
    entry = tallies._store.find(case)
    place = tallies._store.tally_path(case)
    with tallies._store.joining() as opened:
        tally(0, 50, raters=2).save(opened.staged(place.name))
        outputs = {"tally": opened.stamp_staged(place.name, place)}
        changed = type(entry)(case, entry.inputs, entry.voxels, entry.result, outputs)
        opened.save(changed, {opened.staged(place.name): place})
    tallies = read_tallies(store)[1]
    fitted = fit_tallies(Calibrator(bins=12), tallies, "roi")
    assert fitted.n_raters_ == 3
    assert fitted.map_ == fit_tallies(Calibrator(bins=12), tallies, "roi", keep=True).map_
    for target in ("single", "hard"):  # who would be rater 2 of those two?
        with pytest.raises(ValueError, match="cases have 2 or 3 raters"):
            fit_tallies(Calibrator(target), tallies, "roi")


@pytest.mark.parametrize("kind", ["pointwise", "simultaneous"])
@pytest.mark.parametrize("target", ["mhr", "single", "hard", "majority", "none"])
def test_band_over_stored_cases_is_that_of_the_calibrator(store, target, kind):
    kept = Calibrator(target, bins=12, rater=2, seed=3)
    tallies = read_tallies(store)[1]
    fit_tallies(kept, tallies, "roi", keep=True)
    at = np.array([0.9, 0.003, 0.5])
    assert band_over_cases(kept, tallies, kind=kind) == kept.band(kind=kind)
    assert band_over_cases(kept, tallies, at, 0.8, kind) == kept.band(at, 0.8, kind)


def test_band_over_stored_cases_leaves_out_patients(store):
    tallies = read_tallies(store)[1]
    patients = {case: f"patient {k // 2}" for k, case in enumerate(tallies.cases)}
    tallies._known = {
        case: Known(FittedCase.named(case), patient) for case, patient in patients.items()
    }
    kept = fit_tallies(Calibrator(bins=12), tallies, "roi", keep=True)
    band = band_over_cases(kept, tallies)
    assert band.groups == len(set(patients.values())) < len(tallies)
    assert band == kept.band()


def test_band_over_stored_cases_weighs_them_as_the_map_does(store, monkeypatch):
    """A case of weight k is one that is there k times."""
    tallies = read_tallies(store)[1]
    weights = {case: k for k, case in enumerate(tallies.cases, start=1)}
    kept = Calibrator(bins=12)
    for case, tally in tallies:
        for _ in range(weights[case]):
            kept.add_tally(tally, case)
    monkeypatch.setattr(stored_tallies.StoredTallies, "weights", lambda *_: weights)
    found, expected = band_over_cases(kept, tallies), kept.band()
    assert dataclasses.replace(found, volumes=None) == dataclasses.replace(expected, volumes=None)
    # Volumes are those of the voxels that there are, whatever they weigh.
    assert found.volumes != expected.volumes


def test_a_band_is_followed_when_it_takes_long(store, monkeypatch):
    tallies = read_tallies(store)[1]
    fitted = fit_tallies(Calibrator(bins=12), tallies, "roi")
    quick, slow = io.StringIO(), io.StringIO()
    band = band_over_cases(fitted, tallies, progress=Lines(quick))
    assert quick.getvalue() == ""
    monkeypatch.setattr("twintrack.runs.progress._PATIENCE", 0.0)
    assert band_over_cases(fitted, tallies, progress=Lines(slow)) == band
    first, *_, last = slow.getvalue().splitlines()
    assert first.startswith(f"Band: {len(tallies)} cases")
    assert last.startswith(f"Band: {len(tallies)}/{len(tallies)} cases in")


def test_band_needs_two_cases(store):
    _, tallies = read_tallies(store)
    fitted = fit_tallies(Calibrator(bins=10), tallies, "roi")
    with pytest.raises(ValueError, match="at least two cases"):
        band_over_cases(fitted, tallies.of(tallies.cases[:1]))
    with pytest.raises(ValueError, match="level is 1"):
        band_over_cases(fitted, tallies, level=1)
