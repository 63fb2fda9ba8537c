from __future__ import annotations

import pytest

from twintrack.runs.merge import merge_stores
from twintrack.runs.records import Entry, Failure
from twintrack.runs.stamps import read_stamp
from twintrack.runs.store import Store

OPTIONS = {"region": "box"}


@pytest.fixture
def part(tmp_path):
    def part(name, cohort, finished, failed=()):
        """A store in which some cases are finished, each made from a text, and some have failed."""
        store = Store(tmp_path / name, "score-tally", OPTIONS)
        with store.writing(cohort):
            for case, text in finished.items():
                score, place = tmp_path / "score.nii", store.tally_path(case)
                score.write_text(text)
                store.staged(place.name).write_text(f"tally of {text}")
                outputs = {"tally": store.stamp_staged(place.name, place)}
                entry = Entry(case, {"score": read_stamp(score)}, 7, {}, outputs)
                store.save(entry, {store.staged(place.name): place})
            for case in failed:
                store.save_failure(Failure(case, "read", "score", "is broken"))
        return tmp_path / name

    return part


def test_a_case_that_failed_in_one_part_and_is_finished_in_another_is_finished(part, tmp_path):
    """As after a second try on another machine; what it found must not be thrown away."""
    one = part("one", "AB", {"A": "a"}, failed="B")
    two = part("two", "AB", {"B": "b"}, failed="A")
    for parts in ([one, two], [two, one]):
        merged = merge_stores(parts, tmp_path / parts[0].name / "merged", "score-tally")
        assert merged.complete() == (["A", "B"], [])
        assert merged.failures() == []
        assert [merged.tallied(case).case for case in "AB"] == ["A", "B"]


def test_cases_of_earlier_cohorts_are_left_where_they_are(part, tmp_path):
    """They may be of files that have changed since."""
    part("one", "AZ", {"A": "a", "Z": "old"})
    part("two", "BZ", {"B": "b", "Z": "new"})
    one, two = part("one", "A", {}), part("two", "B", {})
    merged = merge_stores([one, two], tmp_path / "merged", "score-tally")
    assert merged.cases() == merged.cohort() == ["A", "B"]
    assert merged.complete() == (["A", "B"], [])
