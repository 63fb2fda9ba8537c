"""What commands print: progress and messages on stderr, results on stdout, one line per error."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from twintrack.runs.progress import JsonLines, Progress

# How errors are told; set by the options of the command that runs.
_tell = {"tracebacks": False, "json": False}

_EXPECTED = (ValueError, OSError, ImportError, MemoryError)


class Report:
    """Tells the user of a command what happens and what came out.

    Parameters
    ----------
    quiet
        Only results and errors.
    log_json
        Everything as JSON lines on stderr, nothing on stdout.
    verbose
        Errors with their traceback.
    """

    def __init__(self, quiet: bool = False, log_json: bool = False, verbose: bool = False) -> None:
        from twintrack.runs.progress import Bar, JsonLines, Lines, Quiet

        _tell.update(tracebacks=verbose, json=log_json)
        self._json: JsonLines | None = JsonLines() if log_json else None
        self._quiet = quiet
        self.progress: Progress
        if self._json is not None:
            self.progress = self._json
        elif quiet:
            self.progress = Quiet()
        elif sys.stderr.isatty():
            self.progress = Bar(_console(stderr=True))
        else:
            self.progress = Lines()

    def warn(self, message: str) -> None:
        """Tell what the user should know."""
        self.progress.warn(message)

    def warn_of_notes(self, notes: Mapping[str, Sequence[str]]) -> None:
        """Tell what was noted of cases that were used: of the first three, and how many more."""
        for case in list(notes)[:3]:
            self.warn(f"{case}: {'; '.join(notes[case])}")
        more = len(notes) - 3
        if more > 0:
            self.warn(f"such notes on {more} more case{'s' * (more > 1)} are left out here")

    def result(self, title: str, rows: Iterable[tuple[str, Any]], **fields: Any) -> None:
        """Tell a result: rows of label and text, or the fields as a JSON line."""
        if self._json is not None:
            self._json.event("result", **fields)
        elif not self._quiet:
            from rich.markup import escape

            console = _console()
            told = [(label, str(text)) for label, text in rows]
            width = max((len(label) for label, _ in told), default=0)
            if title:
                console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
            for label, text in told:
                # Not wrapped: paths and commands are there to be copied.
                console.print(f"[dim]{label:{width}}[/]  {escape(text)}", soft_wrap=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], **fields: Any
    ) -> None:
        """Tell a table whose first column is text and whose others are numbers."""
        if self._json is not None:
            self._json.event("table", **fields)
        elif not self._quiet:
            from rich.markup import escape
            from rich.table import Table

            table = Table(title=title, title_justify="left", title_style="bold", box=None)
            for number, column in enumerate(columns):
                table.add_column(column, justify="right" if number else "left", overflow="fold")
            for row in rows:
                table.add_row(*map(escape, row))
            _console().print(table)


def print_error(error: Exception | str) -> None:
    """Print an error on one line, or as a JSON line; with its traceback if that is wanted."""
    message = _message(error) if isinstance(error, Exception) else error
    if _tell["json"]:
        print(json.dumps({"event": "error", "message": message}), file=sys.stderr)
        return
    if _tell["tracebacks"] and isinstance(error, Exception):
        traceback.print_exception(error)
    if sys.stderr.isatty():
        from rich.markup import escape

        console = _console(stderr=True)
        console.print(f"[bold red]twintrack:[/] {escape(message)}", soft_wrap=True, highlight=False)
    else:
        print(f"twintrack: {message}", file=sys.stderr)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = str(error) or type(error).__name__
    if not isinstance(error, _EXPECTED):
        message = f"{type(error).__name__}: {message} (--verbose shows where)"
    return message


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)
