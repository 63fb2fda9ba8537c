"""Options from a command's parameters, with their texts from docstrings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import typer

from twintrack import cli
from twintrack.cli.groups import spread, summary_of, texts_of


@dataclass(frozen=True)
class Base:
    """What both have.

    Attributes
    ----------
    name
        Its name,
        on two lines.
    """

    name: str = "a"


@dataclass(frozen=True)
class Group(Base):
    """More.

    Attributes
    ----------
    deep_look
        Whether to look deeply.
    """

    panel: ClassVar[str] = "Panel"

    deep_look: bool = False
    bare: Annotated[int, typer.Option("-b", help="Says itself.")] = 1


def command(place: Annotated[str, typer.Option("-p")], *, group: Group) -> None:
    """Do it.

    In two
    paragraphs.

    Parameters
    ----------
    place
        Where.
    """
    raise typer.Exit(len(f"{place}{group.name}{group.bare}") + 10 * group.deep_look)


def test_texts_come_from_the_docstrings_of_all_bases():
    assert texts_of(Group) == {
        "name": "Its name, on two lines.",
        "deep_look": "Whether to look deeply.",
    }
    assert texts_of(command) == {"place": "Where."}
    assert summary_of(command) == "Do it.\n\nIn two paragraphs."


def test_groups_are_spread_into_options_and_put_together_again():
    app = typer.Typer()
    app.command()(spread(command))
    with pytest.raises(SystemExit) as ended:
        app(["-p", "xy", "--name", "abc", "--deep-look", "-b", "20"])
    assert ended.value.code == 7 + 10
    with pytest.raises(SystemExit) as ended:
        app(["-p", "xy", "--no-deep-look"])  # what is not asked for need not be refused
    assert ended.value.code == 2


def test_no_option_of_a_command_is_without_a_text():
    for name in (
        "apply",
        "audit",
        "compare",
        "demo",
        "evaluate",
        "fit",
        "info",
        "merge",
        "phantom",
        "study",
    ):
        found = typer.main.get_command(cli.command_app(name))
        silent = [one.name for one in found.params if not getattr(one, "help", None)]
        assert silent == [], name
