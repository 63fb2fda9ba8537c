from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from twintrack.runs.engine import Outcome
from twintrack.runs.progress import Bar, JsonLines, Lines, Quiet, Rates, scaled
from twintrack.runs.records import Failure

DONE = Outcome("A", "done", 4_000_000, 0.5, 10_000_000)
STORED = Outcome("B", "stored", 4_000_000, 0.01, 10_000_000)
FAILED = Outcome(
    "[red]C", "failed", 2_000_000, 0.1, failure=Failure("[red]C", "read", "score", "s: cut [/] off")
)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("twintrack.runs.progress.time.monotonic", clock)
    return clock


def test_speed_and_time_left_come_from_what_was_worked_on(clock):
    """Cases that were finished before take no time; counting them would promise too much."""
    rates = Rates(4, 14_000_000)
    clock.now += 3
    rates.add(STORED)
    assert rates.seconds_left is None
    clock.now += 2
    rates.add(DONE)
    assert rates.voxel_rate == pytest.approx(5e6)
    assert rates.byte_rate == pytest.approx(2e6)
    assert rates.seconds_left == pytest.approx(6_000_000 / 2e6)
    rates.add(FAILED)
    rates.add(DONE)
    assert rates.seconds_left == 0
    assert (rates.finished, rates.stored, rates.failed) == (4, 1, 1)
    assert rates.seconds == pytest.approx(5)


def test_quiet_tells_failures_and_nothing_else():
    """A run that ends with status 1 or 2 says why."""
    stream = io.StringIO()
    progress = Quiet(stream)
    progress.start("Fitting", 3, 10_000_000)
    for outcome in (DONE, STORED, FAILED):
        progress.case(outcome)
    progress.warn("no matter")
    progress.stop()
    assert stream.getvalue() == "[red]C: failed: s: cut [/] off\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0, "0 "), (999, "999 "), (999.6, "1.00 k"), (1234, "1.23 k"), (12.34e6, "12.3 M")],
        *[(123.4e6, "123 M"), (9.996e9, "10.0 G"), (5.5e15, "5500 T"), (0.25, "0.25 ")],
    ],
)
def test_numbers_have_three_digits(value, text):
    assert scaled(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0.04, "0.0 s"), (9.94, "9.9 s"), (10.4, "10 s"), (119.4, "119 s"), (125, "2 min")],
        *[(119 * 60, "119 min"), (7500, "2 h 05 min"), (100 * 3600 - 60, "99 h 59 min")],
    ],
)
def test_durations_have_the_unit_of_their_size(clock, seconds, text):
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("Tallying", 1, 1)
    clock.now += seconds
    lines.stop()
    assert f"cases in {text}, " in stream.getvalue()


def tell(progress):
    progress.start("Tallying", 3, 10_000_000)
    for outcome in (STORED, DONE, FAILED):
        progress.case(outcome)
    progress.warn("largest bin")
    progress.stop()
    progress.stop()  # a second time, as after an interruption, tells nothing more


def test_lines(clock):
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("Tallying", 3, 10_000_000)
    clock.now += 11
    lines.case(DONE)
    lines.case(FAILED)
    lines.stop()
    assert stream.getvalue().splitlines() == [
        "Tallying: 3 cases, 10.0 MB of files",
        "Tallying: 1/3 cases, 909 kvoxels/s  364 kB/s, 16 s left",
        "[red]C: failed: s: cut [/] off",
        "Tallying: 2/3 cases in 11 s, 909 kvoxels/s  364 kB/s, 0 finished before, 1 failed",
    ]


def test_json_lines_are_json(clock):
    stream = io.StringIO()
    tell(JsonLines(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == [
        *("start", "case", "case", "case", "warning", "end")
    ]
    assert events[2]["case"] == "A"
    assert events[3]["message"] == "s: cut [/] off"
    assert (events[5]["stored"], events[5]["failed"], events[5]["finished"]) == (1, 1, 3)


def test_bar_shows_names_as_they_are():
    """Names with brackets must not be taken for markup."""
    stream = io.StringIO()
    tell(Bar(Console(file=stream, force_terminal=True, width=100, color_system=None)))
    text = stream.getvalue()
    assert "✗ [red]C s: cut [/] off" in text
    assert "! largest bin" in text
    assert "3/3" in text


def test_stages_of_a_long_case(clock):
    stream, quiet = io.StringIO(), io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=100, color_system=None))
    told = (bar, Lines(quiet), Quiet(quiet), JsonLines(quiet))
    for progress in told:
        progress.start("Predicting", 1, 10)
        clock.now += 11
        progress.stage("[red]C: member 2 of 3")
        progress.stage("[red]C: member 3 of 3")
        progress.stop()
    assert "Predicting [red]C: member 3 of 3" in stream.getvalue()
    # Of lines in a log not one for each; nothing for programs.
    assert "Predicting: [red]C: member 2 of 3\n" in quiet.getvalue()
    assert quiet.getvalue().count("member") == 1
