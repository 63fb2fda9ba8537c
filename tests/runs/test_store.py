from __future__ import annotations

import contextlib
import errno
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from folders import content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twintrack.runs import store as stores
from twintrack.runs.records import Entry, Failure
from twintrack.runs.staging import StoreError
from twintrack.runs.stamps import read_stamp
from twintrack.runs.store import Store, open_stores

OPTIONS = {"region": "box", "tumour": [1]}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "score.nii.gz"
    path.write_bytes(b"a score")
    return path


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "score-tally", OPTIONS)


def finish(store, case, source, tally=b"a tally", result=None):
    """Record a case as the engine does."""
    place = store.tally_path(case)
    store.staged(place.name).write_bytes(tally)
    outputs = {"tally": store.stamp_staged(place.name, place)}
    entry = Entry(case, {"score": read_stamp(source)}, 7, result or {"tdsc": 0.1}, outputs)
    store.save(entry, {store.staged(place.name): place})
    return entry


def test_finished_case_is_found_with_all_its_figures(store, source):
    result = {"tdsc": 0.1 + 0.2, "ece": None, "voxels": 2**60}
    with store.writing(["A"]):
        entry = finish(store, "A", source, result=result)
    again = Store(store.folder.parent, "score-tally", OPTIONS)
    assert again.find("A") == entry
    assert again.find("A").result == result
    assert again.find("A").made_from({"score": source})
    assert again.find("B") is None


def test_other_inputs_or_options_are_other_work(store, source, tmp_path):
    with store.writing(["A"]):
        finish(store, "A", source)
    assert Store(tmp_path / "store", "score-tally", {**OPTIONS, "region": "roi"}).find("A") is None
    assert Store(tmp_path / "store", "evaluation", OPTIONS).find("A") is None
    found = store.find("A")
    assert not found.made_from({"score": source, "rater_1": source})
    assert not found.made_from({})  # a file less, such as the vessels, is another case too
    source.write_bytes(b"another")
    assert not found.made_from({"score": source})


def test_options_are_the_same_in_any_order(tmp_path, store):
    """Else a version that lists them otherwise would do everything again."""
    turned = dict(reversed(OPTIONS.items()))
    assert Store(tmp_path / "store", "score-tally", turned).folder == store.folder


def test_equal_work_leaves_equal_bytes(tmp_path, source):
    for name in ("one", "two"):
        with Store(tmp_path / name, "score-tally", OPTIONS).writing(["A", "B"]) as store:
            finish(store, "A", source)
            store.save_failure(Failure("B", "read", "score", "is broken"))
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_nothing_unfinished_is_left(store, source):
    def run():
        with store.writing(["A"]):
            finish(store, "A", source)
            store.staged("B.npz").write_bytes(b"half a")
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert not list(store.folder.glob("staging-*"))
    assert store.cases() == ["A"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\0" * 500,
        b'{"format_version": 1}',
        b'{"format_version": 1, "inputs": 3, "outputs": {}, "voxels": 1, "result": {}}',
        b'{"format_version": 1, "inputs": {"score": {}}, "outputs": {}, "voxels": 1, "result": {}}',
        b'{"format_version": 1, "inputs": {}, "outputs": {}, "voxels": null, "result": {}}',
        b"[" * 100_000,
    ],
)
def test_damaged_record_counts_as_not_done(store, source, damage):
    """Power may fail before the bytes of a renamed file reach the disk."""
    with store.writing(["A"]):
        finish(store, "A", source)
    (store.folder / "cases" / "A.json").write_bytes(damage)
    assert store.find("A") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
STAMP = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("name", "size", "mtime_ns", "digest"), JSON)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "format_version": st.just(1) | JSON,
            "inputs": st.dictionaries(st.text(max_size=5), STAMP) | JSON,
            "outputs": st.dictionaries(st.text(max_size=5), STAMP) | JSON,
            "voxels": st.integers() | JSON,
            "result": st.dictionaries(st.text(max_size=5), JSON) | JSON,
        },
    )
)
def test_any_record_is_read_or_counts_as_not_done(store, tmp_path, content):
    """Records come from other versions, other machines and damaged disks."""
    path = store.folder / "cases" / "A.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    version = content.get("format_version")
    if isinstance(version, int) and version > 1:
        with pytest.raises(ValueError, match="update TwinTrack"):
            store.find("A")
    else:
        found = store.find("A")
        assert found is None or not found.made_from({"score": tmp_path / "none"})


def test_newer_record_is_refused(store, source):
    with store.writing(["A"]):
        finish(store, "A", source)
    path = store.folder / "cases" / "A.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(ValueError, match=r"A\.json: format_version is 2.*update TwinTrack"):
        store.find("A")


@pytest.mark.parametrize("renames", range(4))
def test_a_record_never_promises_what_is_not_there(store, source, tmp_path, monkeypatch, renames):
    """Killed between two renames: the tally comes before its record, the volume after it."""
    replace, left = Path.replace, renames

    def killed(self, target):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return replace(self, target)

    tally, volume = store.tally_path("A"), tmp_path / "A.nii.gz"
    with store.writing(["A"]):
        files = {store.staged(place.name): place for place in (volume, tally)}
        outputs = {}
        for (staged, place), role in zip(files.items(), ("volume", "tally"), strict=True):
            staged.write_bytes(b"of " + role.encode())
            outputs[role] = store.stamp_staged(staged.name, place)
        entry = Entry("A", {"score": read_stamp(source)}, 7, {}, outputs)
        monkeypatch.setattr(Path, "replace", killed)
        with contextlib.suppress(KeyboardInterrupt):
            store.save(entry, files)
        monkeypatch.undo()
    there = [tally.exists(), store.find("A") is not None, volume.exists()]
    assert there == [k < renames for k in range(3)]
    if store.find("A") is not None:
        store.tallied("A")


def test_success_takes_the_place_of_failure(store, source):
    with store.writing(["A", "B"]):
        store.save_failure(Failure("A", "read", "score", "is broken"))
        store.save_failure(Failure("B", "read", "rater_2", "is broken"))
        finish(store, "A", source)
    assert store.failures() == [Failure("B", "read", "rater_2", "is broken")]
    finished, failed = store.complete()
    assert finished == ["A"]
    assert [failure.case for failure in failed] == ["B"]


def test_failure_takes_the_place_of_an_earlier_success(store, source):
    # Else a merge or a refit would take the figures of files that are not there any more.
    with store.writing(["A", "B"]):
        finish(store, "A", source)
        finish(store, "B", source)
        store.save_failure(Failure("A", "read", "score", "is broken"))
    finished, failed = store.complete()
    assert finished == ["B"]
    assert [failure.case for failure in failed] == ["A"]
    assert not store.tally_path("A").exists()


def test_only_the_cohort_of_the_last_run_counts(store, source):
    """A case that was left out since, and a failure that a killed run did not clear away."""
    with store.writing(["A", "B"]):
        finish(store, "B", source)
        store.save_failure(Failure("A", "read", "score", "is broken"))
        left = store.folder / "failures" / "A.json"
        told = left.read_bytes()
        finish(store, "A", source)
        left.write_bytes(told)
    assert store.complete() == (["A", "B"], [])
    with store.writing(["A"]):
        pass
    assert store.complete() == (["A"], [])
    assert store.cases() == ["A", "B"]


def test_unfinished_cohort_is_noticed(store, source):
    """Else results of a part that died would silently be missing from a merged cohort."""
    with store.writing(["A", "B", "C"]):
        finish(store, "A", source)
    with pytest.raises(ValueError, match=r"2 of 3 cases are missing \(B, C\)"):
        store.complete()
    with store.writing(["A"]):
        pass
    assert store.complete() == (["A"], [])


def test_full_disk_is_named_and_leaves_the_store_whole(store, source, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with store.writing(["A", "B"]):
        finish(store, "A", source)
        before = content(store.folder)
        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(StoreError, match=r"No space left on device; [\d,]+ bytes are free"):
            finish(store, "B", source)
        monkeypatch.undo()
    after = content(store.folder)
    assert store.cases() == ["A"]
    assert store.find("B") is None
    assert {name: after[name] for name in before if "staging" not in name} == {
        name: text for name, text in before.items() if "staging" not in name
    }


def test_staging_folders_of_killed_runs_are_removed_and_those_of_living_ones_kept(
    store, environment
):
    script = (
        "import sys, os, signal; from pathlib import Path; from twintrack.runs.store import Store\n"
        "with Store(Path(sys.argv[1]), 'score-tally', {'region': 'box', 'tumour': [1]})"
        ".writing([]) as s:\n"
        "    s.staged('huge').write_bytes(b'x'); print(s.staged(''), flush=True)\n"
        "    sys.stdin.readline() or os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    def other():
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(store.folder.parent)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return process, Path(process.stdout.readline().strip())

    living, kept = other()
    killed, abandoned = other()
    killed.kill()
    killed.communicate()
    assert abandoned.is_dir()
    with store.writing([]):
        assert not abandoned.exists()
        assert (kept / "huge").exists()
    living.communicate("\n")
    assert not kept.exists()


def test_two_runs_share_a_folder(tmp_path, source):
    """Threads with stores of their own stand for processes: they share nothing but files."""
    cases = [f"case_{k}" for k in range(40)]
    failures = []

    def run():
        try:
            with Store(tmp_path / "store", "score-tally", OPTIONS).writing(cases) as store:
                for case in cases:
                    finish(store, case, source)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Store(tmp_path / "alone", "score-tally", OPTIONS).writing(cases) as alone:
        for case in cases:
            finish(alone, case, source)
    assert content(tmp_path / "store") == content(tmp_path / "alone")


def test_copying_a_case_checks_its_tally(tmp_path, store, source):
    with store.writing(["A", "B"]):
        finish(store, "A", source)
        finish(store, "B", source)
    store.tally_path("B").write_bytes(b"others'")
    with Store(tmp_path / "copy", "score-tally", OPTIONS).writing(["A", "B"]) as copy:
        copy.copy_from(store, "A")
        with pytest.raises(ValueError, match=r"B\.npz: not the tally that its record names"):
            copy.copy_from(store, "B")
    assert copy.find("A") == store.find("A")
    assert copy.cases() == ["A"]


def test_stores_are_found_by_their_folder(tmp_path, store, source):
    with store.writing(["A"]):
        finish(store, "A", source)
    (found,) = open_stores(tmp_path / "store")
    assert (found.kind, found.options, found.cases()) == ("score-tally", OPTIONS, ["A"])
    (itself,) = open_stores(found.folder)
    assert itself.folder == found.folder
    with pytest.raises(ValueError, match="holds no finished work of kind evaluation"):
        open_stores(tmp_path / "store", "evaluation")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_stores(tmp_path / "nowhere")
    described = store.folder / "options.json"
    described.write_text(json.dumps({"format": stores.FORMAT, "format_version": 99}))
    with pytest.raises(ValueError, match="format_version is 99"):
        open_stores(tmp_path / "store")


def test_a_store_can_be_moved(tmp_path, store, source):
    with store.writing(["A"]):
        finish(store, "A", source)
    assert str(tmp_path).encode() not in b"".join(content(store.folder).values())
    (tmp_path / "store").rename(tmp_path / "moved")
    assert Store(tmp_path / "moved", "score-tally", OPTIONS).find("A") is not None
