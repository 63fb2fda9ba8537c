"""What a run tells while it works: a bar, lines of text, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    from twintrack.runs.engine import Outcome
    from twintrack.runs.records import Failure

_LINE_EVERY = 10.0  # seconds


class Progress:
    """Receives what happens in a run, stages from several threads; tells nothing of it."""

    def start(self, work: str, cases: int, nbytes: int) -> None:
        """Tell what is done ("Tallying"), for how many cases with how large files."""

    def stage(self, text: str) -> None:
        """Tell what is done now, of cases that take minutes each."""

    def case(self, outcome: Outcome) -> None:
        """Tell that a case is finished, was finished before, or failed."""

    def warn(self, message: str) -> None:
        """Tell what the user should know."""

    def stop(self) -> None:
        """Tell that the run is over, also when it was interrupted."""


_PATIENCE = 2.0  # seconds before there is a bar


@contextmanager
def once_it_takes_long(
    progress: Progress, work: str, cases: int
) -> Iterator[Callable[[Outcome], None]]:
    """Give what is told of each case of some work; `progress` hears of it after two seconds."""
    waiting: list[Outcome] = []
    begin, shown = time.monotonic(), False

    def tell(outcome: Outcome) -> None:
        nonlocal shown
        waiting.append(outcome)
        if not shown and time.monotonic() - begin > _PATIENCE:
            shown = True
            progress.start(work, cases, 0)
        while shown and waiting:
            progress.case(waiting.pop(0))

    try:
        yield tell
    finally:
        if shown:
            progress.stop()


class Rates:
    """Adds up what is done; cases that a store already had do not count for the speed."""

    def __init__(self, cases: int, nbytes: int) -> None:
        self.cases = cases
        self.left_bytes: int = nbytes
        self.finished: int = 0
        self.stored: int = 0
        self.failed: int = 0
        self.voxels: int = 0
        self.nbytes: int = 0
        self._start = self._working_since = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Count a case."""
        self.finished += 1
        self.left_bytes -= outcome.nbytes
        if outcome.state == "stored" and not self.nbytes:
            self._working_since = time.monotonic()  # looking up is over before the work begins
        self.stored += outcome.state == "stored"
        self.failed += outcome.state == "failed"
        if outcome.state == "done":
            self.voxels += outcome.voxels
            self.nbytes += outcome.nbytes

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._start

    @property
    def voxel_rate(self) -> float:
        """Voxels per second."""
        return self.voxels / self._working_seconds

    @property
    def byte_rate(self) -> float:
        """Bytes of input files, as stored, per second."""
        return self.nbytes / self._working_seconds

    @property
    def _working_seconds(self) -> float:
        return max(time.monotonic() - self._working_since, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Time left at the speed so far, by the size of the files; None while it is not known."""
        if self.finished == self.cases:
            return 0.0
        return max(self.left_bytes, 0) / self.byte_rate if self.nbytes else None

    def __str__(self) -> str:
        return f"{scaled(self.voxel_rate)}voxels/s  {scaled(self.byte_rate)}B/s"


class Quiet(Progress):
    """Tells errors alone."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # Standard error is looked up when it is needed: no stream can be sent to another process.
        self._stream = stream

    def case(self, outcome: Outcome) -> None:
        """Print a failure."""
        if outcome.failure is not None:
            _print_failure(outcome.failure, self._stream or sys.stderr)


class Bar(Progress):
    """A bar in a terminal, with failures and warnings as lines above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None

    def start(self, work: str, cases: int, nbytes: int) -> None:
        """Show the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self.stop()
        self._rates = Rates(cases, nbytes)
        self._bar = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("[dim]cases[/]"),
            TextColumn("{task.fields[rates]}"),
            TextColumn("{task.fields[left]}", justify="right"),
            console=self._console,
            expand=True,
        )
        self._work = work
        self._task = self._bar.add_task(work, total=cases, rates="", left="")
        self._bar.start()

    def stage(self, text: str) -> None:
        """Show it before the bar."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._work} [dim]{_plain(text)}[/]")

    def case(self, outcome: Outcome) -> None:
        """Move the bar; a failure gets a line."""
        assert self._bar is not None  # noqa: S101 - start comes first
        self._rates.add(outcome)
        if outcome.failure is not None:
            self._console.print(
                f"[red]✗ {_plain(outcome.case)}[/] {_plain(outcome.failure.message)}",
                soft_wrap=True,
            )
        rates, left = "", self._rates.seconds_left
        if self._rates.nbytes:
            rates = f"[cyan]{self._rates}[/]"
        elif self._rates.stored:
            rates = "[dim]finished before[/]"
        over = self._rates.finished == self._rates.cases
        time_left = f"in {_duration(self._rates.seconds)}" if over else ""
        if not over and left is not None:
            time_left = f"{_duration(left)} left"
        self._bar.update(self._task, advance=1, rates=rates, left=time_left)
        if over:
            self._bar.update(self._task, description=self._work)

    def warn(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(f"[yellow]! {_plain(message)}[/]", soft_wrap=True)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines(Progress):
    """Plain lines for logs: a line now and then, one for every failure, and one at the end."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rates: Rates | None = None

    def start(self, work: str, cases: int, nbytes: int) -> None:
        """Print what is done."""
        self._work, self._rates, self._printed = work, Rates(cases, nbytes), 0.0
        self._print(f"{work}: {cases} cases, {scaled(nbytes)}B of files")

    def stage(self, text: str) -> None:
        """Print a line when the last one is some seconds old."""
        if self._rates is not None and self._rates.seconds - self._printed >= _LINE_EVERY:
            self._printed = self._rates.seconds
            self._print(f"{self._work}: {text}")

    def case(self, outcome: Outcome) -> None:
        """Print a failure, and a line when the last one is some seconds old."""
        assert self._rates is not None  # noqa: S101 - start comes first
        self._rates.add(outcome)
        if outcome.failure is not None:
            _print_failure(outcome.failure, self._stream)
        if self._rates.seconds - self._printed >= _LINE_EVERY:
            self._printed = self._rates.seconds
            left = self._rates.seconds_left
            self._print(
                f"{self._work}: {self._rates.finished}/{self._rates.cases} cases, {self._rates}"
                + ("" if left is None else f", {_duration(left)} left")
            )

    def warn(self, message: str) -> None:
        """Print a line."""
        self._print(f"warning: {message}")

    def stop(self) -> None:
        """Print the sums."""
        if self._rates is not None:
            r = self._rates
            self._print(
                f"{self._work}: {r.finished}/{r.cases} cases in {_duration(r.seconds)}, {r}, "
                f"{r.stored} finished before, {r.failed} failed"
            )
            self._rates = None

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class JsonLines(Progress):
    """One JSON object a line, for batch systems.

    ``event`` is "start", "case", "warning", "end" or, from the command line, "result" and "error";
    ``seconds`` counts from the start of the run.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rates: Rates | None = None
        self._begin = time.monotonic()

    def start(self, work: str, cases: int, nbytes: int) -> None:
        """Write the event "start"."""
        self._rates = Rates(cases, nbytes)
        self.event("start", work=work, cases=cases, bytes=nbytes)

    def case(self, outcome: Outcome) -> None:
        """Write the event "case"."""
        assert self._rates is not None  # noqa: S101 - start comes first
        self._rates.add(outcome)
        left = self._rates.seconds_left
        failure = {} if outcome.failure is None else asdict(outcome.failure)
        self.event(
            "case",
            **failure | {"case": outcome.case},
            state=outcome.state,
            voxels=outcome.voxels,
            bytes=outcome.nbytes,
            case_seconds=round(outcome.seconds, 3),
            finished=self._rates.finished,
            seconds_left=None if left is None else round(left, 1),
        )

    def warn(self, message: str) -> None:
        """Write the event "warning"."""
        self.event("warning", message=message)

    def stop(self) -> None:
        """Write the event "end"."""
        if self._rates is not None:
            r = self._rates
            self.event(
                "end",
                cases=r.cases,
                finished=r.finished,
                stored=r.stored,
                failed=r.failed,
                voxels_per_second=round(r.voxel_rate),
                bytes_per_second=round(r.byte_rate),
            )
            self._rates = None

    def event(self, event: str, **fields: Any) -> None:
        """Write any event."""
        seconds = round(time.monotonic() - self._begin, 3)
        line = {"event": event, "seconds": seconds, **fields}
        print(json.dumps(line, allow_nan=False), file=self._stream, flush=True)


def _print_failure(failure: Failure, stream: TextIO) -> None:
    print(f"{failure.case}: failed: {failure.message}", file=stream, flush=True)


def scaled(value: float) -> str:
    """Return a number with three digits and a prefix, such as ``1.23 G``."""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 999.5 or prefix == "T":
            exact = prefix == "" and value == int(value)
            digits = 0 if exact else 2 - (value >= 9.995) - (value >= 99.95)
            return f"{value:.{digits}f} {prefix}"
        value /= 1000
    raise AssertionError("the last prefix takes everything")


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _plain(text: str) -> str:
    """Keep brackets in names and messages from being taken for markup."""
    from rich.markup import escape

    return escape(text)
