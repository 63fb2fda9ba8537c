from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import twintrack
from twintrack import files
from twintrack.files import check_file_place, check_folder_place, replacing

WRITER = """
import signal, sys, time
from pathlib import Path
from twintrack.files import check_file_place, check_folder_place, replacing
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has written half of a file."""
    environment = {**os.environ, "PYTHONPATH": str(Path(twintrack.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "a.nii")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdout.readline() == b"begun\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def write(path):
    files._cleared.clear()  # as a new process
    with replacing(path) as temporary:
        temporary.write_text("whole")


def test_what_a_killed_process_left_is_removed_by_the_next_one(writer, tmp_path):
    assert len(names(tmp_path)) == 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    (left,) = names(tmp_path)
    assert left.startswith(".")
    assert left.endswith(".a.nii")
    (tmp_path / ".hidden-of-the-user.a.nii").touch()
    elsewhere = tmp_path / f".00000000-{left.split('-', 1)[1]}"  # of another machine
    elsewhere.touch()
    write(tmp_path / "b.nii")
    assert names(tmp_path) == sorted([elsewhere.name, ".hidden-of-the-user.a.nii", "b.nii"])


def test_a_file_that_another_process_is_writing_is_left_alone(writer, tmp_path):
    (before,) = names(tmp_path)
    write(tmp_path / "a.nii")
    assert names(tmp_path) == [before, "a.nii"]


def test_an_interrupt_leaves_nothing(writer, tmp_path):
    writer.send_signal(signal.SIGINT)
    writer.wait()
    assert names(tmp_path) == []


def test_natural_order_is_that_of_numbers_of_any_length():
    names = ["case10", "case2", "case002b", "case2a", "case" + "9" * 5000, "a3", "case1"]
    assert files.natural_order("x07y") == files.natural_order("x7y")
    assert sorted(names, key=files.natural_order) == [
        *("a3", "case1", "case2", "case2a", "case002b", "case10", "case" + "9" * 5000)
    ]


@pytest.mark.parametrize(
    ("check", "place", "message"),
    [
        (check_file_place, "folder", "is a folder; name a file in it"),
        (check_file_place, "none/a.json", "its folder does not exist; create it first"),
        (check_file_place, "file/a.json", "its folder does not exist; create it first"),
        (check_file_place, "/dev/null", "is no regular file; name another"),
        (check_folder_place, "file", "is a file; name a folder"),
        (check_folder_place, "file/a/b", "/file is a file, not a folder"),
        (check_folder_place, "link", "is a file; name a folder"),
        (check_folder_place, "link/a", "/link is a file, not a folder"),
        # Nobody can make files there, the superuser neither.
        (check_file_place, "/proc/a.json", "make /proc writable or name another place"),
        (check_folder_place, "/proc/a/b", "make /proc writable or name another place"),
    ],
)
def test_places_that_cannot_be_written_are_found_before_the_work(tmp_path, check, place, message):
    if place.startswith("/proc") and sys.platform != "linux":
        pytest.skip("a folder that cannot be written is looked for on Linux")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError, match=message) as error:
        check(tmp_path / place)
    assert error.value.filename == str(tmp_path / place)


def test_places_that_can_be_written_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("old")
    for place in (Path("new.json"), tmp_path / "there.json"):
        check_file_place(place)
    for place in (Path(), tmp_path, Path("a/b"), tmp_path / "a" / "b"):
        check_folder_place(place)
    assert names(tmp_path) == ["there.json"]
    assert (tmp_path / "there.json").read_text() == "old"
