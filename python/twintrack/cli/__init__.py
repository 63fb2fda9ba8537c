"""The command line: ``twintrack COMMAND``.

Each command is a function in a module of its name, which is imported only when the command is
given, so that ``twintrack --help`` answers at once whatever the commands need.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NamedTuple, NoReturn

import typer

from twintrack.cli.groups import spread, summary_of
from twintrack.cli.reporting import print_error
from twintrack.cli.spelling import as_spelled
from twintrack.version import __version__

__all__ = ["command_app", "main"]


class Command(NamedTuple):
    """What the overview says of a command."""

    panel: str
    summary: str


COMMANDS = {
    "demo": Command("Start here", "Calibrate real outlines of four radiologists."),
    "phantom": Command("Start here", "Write a synthetic cohort to try the others on."),
    "fit": Command("Calibrate", "Fit a calibrator to a cohort with several raters."),
    "apply": Command("Calibrate", "Apply a calibrator to score volumes."),
    "evaluate": Command("Evaluate", "Measure scores against several raters."),
    "compare": Command("Evaluate", "Compare methods: tables, figures, HTML report."),
    "audit": Command("Evaluate", "Say from few new cases whether a map is still right."),
    "study": Command("Evaluate", "How many cases, which bins, region, method: from tallies."),
    "prepare": Command("Networks", "Make nnU-Net training data with regions."),
    "train": Command("Networks", "Train the members of an ensemble."),
    "predict": Command("Networks", "Run an ensemble and calibrate its score."),
    "share": Command("Runs", "Copy tallies without names, to be sent to another site."),
    "merge": Command("Runs", "Join what parts of a run have finished."),
    "info": Command("Runs", "Show versions, processor and GPU support, or a calibrator."),
}


class Interrupted(BaseException):
    """The user or the batch system wants the process to end; no library catches it by mistake."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    The exit status is 0 if all went well, 1 if some cases failed (and the others are finished), 2
    if the command could not be carried out, 128 + signal if it was stopped by one.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a sign shows another
        sys.stdout.reconfigure(errors="replace")
    before = {n: signal.signal(n, _interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        if arguments and arguments[0] in _available():
            name = arguments[0]
            command = typer.main.get_command(command_app(name))
            options = {one for param in command.params for one in param.opts}
            command(args=as_spelled(arguments[1:], options), prog_name=f"twintrack {name}")
        _overview()(args=arguments, prog_name="twintrack")
    except Interrupted as interruption:
        print_error("interrupted; what is finished is kept, run the same command to go on")
        _leave(128 + interruption.number)
    except Exception as error:
        print_error(error)
        sys.exit(2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    sys.exit(0)


def command_app(name: str) -> typer.Typer:
    """Return the application of one command."""
    function = getattr(importlib.import_module(f"twintrack.cli.{name}"), name)
    app = _app()
    app.command(name, help=summary_of(function))(spread(function))
    return app


def _overview() -> typer.Typer:
    """Return what answers ``--help``, ``--version`` and commands that do not exist."""
    app = _app(no_args_is_help=True)
    for name in _available():
        command = COMMANDS[name]
        app.command(name, help=command.summary, rich_help_panel=command.panel)(lambda: None)

    @app.callback()
    def twintrack(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
        ] = False,
    ) -> None:
        """Calibrate segmentation scores to expert disagreement, and measure the result exactly."""

    return app


def _app(no_args_is_help: bool = False) -> typer.Typer:
    return typer.Typer(
        no_args_is_help=no_args_is_help,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit status: 0 all went well; 1 some cases failed and the others are finished; "
        "2 the command could not be carried out.",
    )


def _available() -> list[str]:
    return [name for name in COMMANDS if importlib.util.find_spec(f"twintrack.cli.{name}")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"twintrack {__version__}")
        raise typer.Exit


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    raise Interrupted(number)


def _leave(status: int) -> NoReturn:
    """End at once: threads are not waited for; the files they were writing were not in place."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
