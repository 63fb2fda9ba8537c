from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict

import pytest

from twintrack.files import as_record
from twintrack.runs import stamps
from twintrack.runs.stamps import FileStamp, read_stamp


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(os.urandom(100_000))
    return path


def set_time(path, nanoseconds):
    os.utime(path, ns=(nanoseconds, nanoseconds))


def test_digest_is_that_of_the_standard_library(file, monkeypatch):
    monkeypatch.setattr(stamps, "_PIECE", 1000)  # many pieces, the last one short
    content = file.read_bytes()
    assert read_stamp(file).digest == f"{zlib.crc32(content):08x}{zlib.adler32(content):08x}"


def test_same_bytes_match_whatever_their_time_and_folder(file, tmp_path):
    stamp = read_stamp(file)
    copy = tmp_path / "elsewhere" / file.name
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    set_time(copy, stamp.mtime_ns + 10**9)
    assert stamp.matches(copy)


def test_a_changed_byte_is_seen(file):
    stamp = read_stamp(file)
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    set_time(file, stamp.mtime_ns + 1)
    assert not stamp.matches(file)


def test_unchanged_time_and_size_are_taken_for_unchanged(file, monkeypatch):
    """Otherwise a resumed run would read every finished case again."""
    stamp = read_stamp(file)
    monkeypatch.setattr(stamps, "_digest", lambda path: pytest.fail("read"))
    assert stamp.matches(file)


def test_without_a_time_the_digest_decides(file):
    stamp = read_stamp(file)
    timeless = FileStamp(stamp.name, stamp.size, None, stamp.digest)
    assert timeless.matches(file)
    assert not FileStamp(stamp.name, stamp.size, None, "0" * 16).matches(file)


def test_missing_file_does_not_match(file):
    stamp = read_stamp(file)
    file.unlink()
    assert not stamp.matches(file)


def test_file_that_grows_while_it_is_read_is_refused(file, monkeypatch):
    digest = stamps._digest

    def growing(path):
        found = digest(path)
        with path.open("ab") as stream:
            stream.write(b"more")
        return found

    monkeypatch.setattr(stamps, "_digest", growing)
    with pytest.raises(ValueError, match=r"volume\.nii\.gz: changed while it was read"):
        read_stamp(file)


def test_json_round_trip(file):
    stamp = read_stamp(file)
    assert as_record(json.loads(json.dumps(asdict(stamp))), FileStamp) == stamp
    wrongs = ({"size": "large"}, {"mtime_ns": 0.5}, {"name": 0.5}, {"digest": None})
    for wrong in (*({**asdict(stamp), **wrong} for wrong in wrongs), {}, {"name": "A"}):
        with pytest.raises(ValueError, match="it: "):
            as_record(wrong, FileStamp)


def test_another_file_of_the_same_size_or_time_is_seen(file):
    """As ``cp -p`` or ``rsync -t`` leave it: of the time that the other one had, or older."""
    stamp = read_stamp(file)
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    set_time(file, stamp.mtime_ns)
    assert not stamp.matches(file)
    file.write_bytes(content[::-1])
    for time in (stamp.mtime_ns - 10**9, stamp.mtime_ns + 10**9):
        set_time(file, time)
        assert not stamp.matches(file)


def test_file_that_is_overwritten_while_it_is_read_is_refused(file, monkeypatch):
    digest = stamps._digest

    def overwriting(path):
        found, time = digest(path), path.stat().st_mtime_ns
        path.write_bytes(path.read_bytes()[::-1])
        set_time(path, time + 1)
        return found

    monkeypatch.setattr(stamps, "_digest", overwriting)
    with pytest.raises(ValueError, match="changed while it was read"):
        read_stamp(file)
