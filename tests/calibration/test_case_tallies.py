"""What a calibrator gathers: by several threads as by one, and sums of cases are no cases."""

from __future__ import annotations

import contextlib
import copy
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

import twintrack as tt
from twintrack.arrays.rater_sets import open_parts
from twintrack.calibration.bin_choice import choose_bins
from twintrack.calibration.case_tallies import CaseTallies

THREADS = 8


@pytest.fixture(autouse=True)
def hasty_threads():
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def parts(number, voxels=50, raters=3):
    rng = np.random.default_rng(7)
    scores = rng.random((number, voxels)).astype(np.float32)
    return [(s, [(rng.random(voxels) < s).astype(np.uint8) for _ in range(raters)]) for s in scores]


def at_once(work, items):
    """Call `work` with each item, in threads that begin together."""
    gate = threading.Barrier(min(THREADS, len(items)))

    def some(share):
        gate.wait()
        for item in share:
            work(item)

    with ThreadPoolExecutor(gate.parties) as pool:
        list(pool.map(some, [items[k :: gate.parties] for k in range(gate.parties)]))


NAMES = {
    "one case": lambda k: "A",
    "no name": lambda k: None,
    "a case each": str,
    "three cases": lambda k: f"case {k % 3}",
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("add", ["partial_fit", "add_tally", "either"])
def test_threads_gather_what_one_thread_does(names, add):
    given = [(k, *part) for k, part in enumerate(parts(24))]

    def adding(calibrator):
        def work(item):
            k, score, raters = item
            if add == "partial_fit" or (add == "either" and k % 2):
                calibrator.partial_fit(score, raters, case=names(k))
            else:
                tally = tt.ScoreTally(3).update(score, raters)
                calibrator.add_tally(tally, names(k), region="all")

        return work

    serial = tt.Calibrator(bins=10)
    for item in given:
        adding(serial)(item)
    for _ in range(20):
        threaded = tt.Calibrator(bins=10)
        at_once(adding(threaded), given)
        assert threaded.tallies_ == serial.tallies_
        assert threaded.map_ == serial.map_
        assert threaded.provenance_ == serial.provenance_


@pytest.mark.parametrize("bins", [10, "auto"])
def test_the_order_of_cases_decides_nothing(bins):
    given = parts(12, voxels=400)
    names = [f"case {k}" for k in range(12)]
    orders = [np.arange(12), np.arange(12)[::-1], np.random.default_rng(0).permutation(12)]
    made = []
    for order in orders:
        calibrator = tt.Calibrator(bins=bins, folds=4)
        for k in order:
            calibrator.partial_fit(*given[k], case=names[k])
        made.append((calibrator.map_, calibrator.band()))
    for fitted, band in made[1:]:
        assert fitted == made[0][0]
        assert np.array_equal(band.low, made[0][1].low)
    # Cases without names are numbered: 2 before 10, as they were given.
    whole = tt.Calibrator(bins=bins).fit([s for s, _ in given], [r for _, r in given])
    numbered = tt.Calibrator(bins=bins)
    for k in orders[2]:
        numbered.partial_fit(*given[k], case=str(k))
    assert numbered.map_ == whole.map_
    choice = choose_bins([whole.tallies_[str(k)] for k in range(12)], "mhr", 0, 5, 0)
    assert bins != "auto" or whole.bin_choice_ == choice


def test_reading_while_others_add():
    given = parts(200)
    calibrator = tt.Calibrator(bins=5).partial_fit(*given[0], case="0")
    problems = []
    done = threading.Event()

    def read():
        while not done.is_set():
            try:
                bins, voxels = (
                    calibrator.bins_,
                    sum(tally.voxels for tally in calibrator.tallies_.values()),
                )
                copied = pickle.loads(pickle.dumps(calibrator))
                whole = sum(tally.voxels for tally in copied.tallies_.values())
                assert bins.count.sum() % 50 == voxels % 50 == 0
                assert copied.n_voxels_ == copied.bins_.count.sum() == whole
                assert copied.n_cases_ == len(copied.tallies_)
                assert copy.copy(calibrator).n_voxels_ % 50 == 0
            except Exception as error:
                problems.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    at_once(
        lambda item: calibrator.partial_fit(*item[1], case=str(item[0])), list(enumerate(given))[1:]
    )
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert calibrator.n_voxels_ == 200 * 50


def test_a_map_is_made_of_one_moment(monkeypatch):
    given = [tt.ScoreTally(3).update(*part) for part in parts(2)]
    calibrator = tt.Calibrator(bins=5).add_tally(given[0], "A")
    total = CaseTallies.total

    def meanwhile(cases):
        found = total(cases)
        calibrator._cases.add_tally(given[1], "B")
        return found

    monkeypatch.setattr(CaseTallies, "total", meanwhile)
    assert (calibrator.n_cases_, calibrator.n_voxels_) == (1, 50)


def test_cases_are_tallied_in_parallel():
    """One case's voxels wait for another's to be counted: a lock held meanwhile would never end."""
    met = threading.Barrier(2)

    cases = CaseTallies()
    update = tt.ScoreTally.add_parts

    def meeting(tally, *arguments):
        met.wait(timeout=20)
        return update(tally, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tt.ScoreTally, "add_parts", meeting)
        at_once(
            lambda item: cases.add_voxels(open_parts(*item[1]), item[0], "all"),
            list(zip("AB", parts(2), strict=True)),
        )
    assert cases.cases == 2


def test_what_could_not_be_added_leaves_no_case():
    (score, raters), (other, others) = parts(2)
    broken = score.copy()
    broken[3] = np.nan
    calibrator = tt.Calibrator("hard", bins=5).partial_fit(score, raters, case="A")
    before = calibrator.map_
    for case in ("A", "B", None):
        with pytest.raises(ValueError, match=r"score\[3\] is nan"):
            calibrator.partial_fit(broken, raters, case=case)
    with pytest.raises(ValueError, match="it has 2 raters but the cases before it have 3"):
        calibrator.partial_fit(other, others[:2], case="B")
    with pytest.raises(ValueError, match="it has 2 raters"):
        calibrator.add_tally(tt.ScoreTally(2), "B")
    assert list(calibrator.tallies_) == ["A"]
    assert calibrator.map_ is before
    assert calibrator.partial_fit(other, others, case="B").n_cases_ == 2


def test_cases_of_fewer_raters_count_with_those_of_more():
    """Whoever they are: the response of a voxel is out of the raters that its case has."""
    (score, raters), (other, others) = parts(2)
    one = tt.Calibrator(bins=5).fit([score, other], [raters, others[:2]])
    named = tt.Calibrator(bins=5).fit([score, other], [raters, [*others[:2], None]])
    assert one.n_raters_ == named.n_raters_ == 3
    assert one.map_ == named.map_


def test_a_fit_meanwhile_begins_anew(monkeypatch):
    """What was begun before it does not come into it, and its exact cuts stay."""
    (score, raters), (other, others) = parts(2)
    calibrator = tt.Calibrator(bins=5, exact=True).partial_fit(score, raters, case="A")
    update = tt.ScoreTally.add_parts

    def meanwhile(tally, *arguments):
        monkeypatch.setattr(tt.ScoreTally, "add_parts", update)
        calibrator.fit(other, others)
        return update(tally, *arguments)

    monkeypatch.setattr(tt.ScoreTally, "add_parts", meanwhile)
    calibrator.partial_fit(score, raters, case="B")
    assert calibrator.map_ == tt.Calibrator(bins=5, exact=True).fit(other, others).map_
    assert list(calibrator.tallies_) == ["0"]


def test_tallies_that_are_read_are_copies():
    calibrator = tt.Calibrator(bins=5).partial_fit(*parts(1)[0], case="A")
    before = calibrator.map_
    calibrator.tallies_["A"].update(*parts(2)[1])
    assert calibrator.tallies_["A"].voxels == calibrator.n_voxels_ == 50
    assert calibrator.map_ is before


def test_clones_and_copies_have_locks_of_their_own():
    calibrator = tt.Calibrator(bins=5).partial_fit(*parts(1)[0], case="A")
    for made in (clone(calibrator), copy.deepcopy(calibrator)):
        made.partial_fit(*parts(2)[1], case="B")
        check_is_fitted(made)
        assert made._lock is not calibrator._lock
    assert list(calibrator.tallies_) == ["A"]


class Derived(tt.Calibrator):
    """A class of a user's."""


def test_derived_classes_stream_too():
    assert Derived(bins=5).partial_fit(*parts(1)[0]).map_ == (
        tt.Calibrator(bins=5).partial_fit(*parts(1)[0]).map_
    )
    derived = pickle.loads(pickle.dumps(Derived(bins=5).partial_fit(*parts(1)[0])))
    assert derived.partial_fit(*parts(2)[1]).n_voxels_ == 100


# --- sums of several cases ------------------------------------------------------------------------


def tallies(number, raters=3):
    return [tt.ScoreTally(raters).update(*part) for part in parts(number, 400, raters)]


def total(some):
    made = tt.ScoreTally(some[0].raters)
    for tally in some:
        made += tally
    return made


def folded(given, name=None, **parameters):
    """A calibrator that has its cases in three sums."""
    made = tt.Calibrator(**{"bins": "auto", "folds": 3, **parameters})
    for fold in range(3):
        some = given[fold::3]
        made.add_tally(total(some), name and f"{name} {fold}", region="roi", cases=len(some))
    return made


@pytest.mark.parametrize("name", [None, "fold"])
@pytest.mark.parametrize("bins", [20, "auto"])
def test_sums_are_no_cases(name, bins):
    given = tallies(9)
    calibrator = folded(given, name, bins=bins)
    assert (calibrator.n_cases_, calibrator.n_voxels_) == (9, 3600)
    assert calibrator.tallies_ == {None: total(given)}
    with pytest.raises(ValueError, match=r"9 of 9 cases are there in sums.*twintrack fit --band"):
        calibrator.band()
    calibrator.add_tally(given[0], "A")
    assert calibrator.tallies_ == {None: total(given), "A": given[0]}
    with pytest.raises(ValueError, match="9 of 10 cases are there in sums of several alone"):
        calibrator.band()


def test_unnamed_voxels_and_unnamed_sums_are_counted_apart():
    given = tallies(4)
    calibrator = tt.Calibrator(bins=20).add_tally(given[0]).add_tally(total(given[1:]), cases=3)
    assert calibrator.n_cases_ == 4
    assert calibrator.tallies_ == {None: total(given)}
    with pytest.raises(ValueError, match="3 of 4 cases"):
        calibrator.band()
    assert calibrator.add_tally(given[0]).n_cases_ == 4  # more of the unnamed voxels


def test_cross_validation_holds_sums_out_whole():
    given = tallies(9)
    sums = [total(given[fold::3]) for fold in range(3)]
    assert folded(given).bin_choice_ == choose_bins(sums, "mhr", 0, 3, 0)
    with pytest.raises(ValueError, match="all 9 are there in one sum alone: add each case"):
        _ = tt.Calibrator(bins="auto").add_tally(total(given), cases=9).map_


@pytest.mark.parametrize("bins", [20, "auto"])
def test_merged_sums_stay_apart(bins):
    """No case of one cohort is another's: folds of the two are held out one by one."""
    first, second = tallies(18)[:9], tallies(18)[9:]
    merged = folded(first, bins=bins).merge(folded(second, bins=bins))
    assert (merged.n_cases_, merged.n_voxels_) == (18, 18 * 400)
    assert merged.tallies_ == {None: total(first + second)}
    assert merged.region_ == "roi"
    with pytest.raises(ValueError, match="18 of 18 cases"):
        merged.band()
    if bins == "auto":
        sums = [total(some[fold::3]) for some in (first, second) for fold in range(3)]
        assert merged.bin_choice_ == choose_bins(sums, "mhr", 0, 3, 0)
    assert (
        merged.map_ == tt.Calibrator(bins=merged.n_bins_asked).add_tally(total(first + second)).map_
    )
    assert pickle.loads(pickle.dumps(merged)).merge(folded(first, bins=bins)).n_cases_ == 27


def test_names_of_sums_are_not_taken_twice():
    given = tallies(6)
    calibrator = folded(given, "site").add_tally(given[0], "A")
    for name in ("site 0", "A"):
        with pytest.raises(ValueError, match=f"'{name}' is there already: a sum of several cases"):
            calibrator.add_tally(total(given), name, cases=6)
    with pytest.raises(ValueError, match="the sum of several cases 'site 0' is in both"):
        calibrator.merge(folded(given, "site"))
    assert calibrator.n_cases_ == 7
    for cases in (0, -1):
        with pytest.raises(ValueError, match=f"cases is {cases}"):
            calibrator.add_tally(given[0], cases=cases)


def test_merging_is_whole_or_not_at_all():
    given = tallies(3)
    first = tt.Calibrator(bins=5).add_tally(given[0], "A").add_tally(given[1], "B")
    second = tt.Calibrator(bins=5).add_tally(given[2], "C").add_tally(given[1], "B")
    before = first.map_
    with pytest.raises(ValueError, match="case 'B' is in both calibrators"):
        first.merge(second)
    assert list(first.tallies_) == ["A", "B"]
    assert first.map_ is before
    fresh = tt.Calibrator(bins=5).merge(first)
    assert fresh.map_ == before
    third = tt.Calibrator(bins=5).add_tally(given[2], "C", region="roi")
    assert fresh.add_tally(given[2], "D", region="box").merge(third).region_ == "box+roi"


def test_merging_each_with_the_other_at_once():
    given = tallies(2)
    for _ in range(20):
        both = [tt.Calibrator(bins=5).add_tally(t, n) for t, n in zip(given, "AB", strict=True)]

        def merge(k, both=both):
            with contextlib.suppress(ValueError):  # the other has all of this one by then
                both[k].merge(both[1 - k])

        at_once(merge, [0, 1])
        assert sorted(max((c.tallies_ for c in both), key=len)) == ["A", "B"]


def test_sums_of_a_refit_are_not_kept_as_cases():
    given = tallies(4)
    refitted = tt.Calibrator(bins=20).add_tally(total(given), region="roi", cases=4)
    assert refitted.tallies_ == {None: total(given)}
    with pytest.raises(ValueError, match="4 of 4 cases"):
        refitted.band()
