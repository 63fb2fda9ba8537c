"""Options of a command: its parameters, one by one or in groups, with texts from its docstring."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command as typer wants it.

    The docstring says what a parameter is, in NumPy's style; one that it does not mention has its
    text in its annotation. A dataclass stands for several options, its fields, which the panel that
    it names may hold together; the command gets it made of what typer has read.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: one.annotation for name, one in parameters.items() if is_dataclass(one.annotation)
    }
    members = {name: _members(group) for name, group in groups.items()}
    texts = texts_of(command)
    options: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        if name in groups:
            known, panel = texts_of(groups[name]), getattr(groups[name], "panel", None)
            options += [_option(one, known, panel) for one in members[name]]
        else:
            options.append(_option(parameter, texts))

    def spread_out(**given: Any) -> None:
        given = {name: _as_on_disk(value) for name, value in given.items()}
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in members[name]})
        command(**given)

    spread_out.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    spread_out.__annotations__ = {option.name: option.annotation for option in options}
    return spread_out


def summary_of(command: Callable[..., None]) -> str:
    """Return what the docstring says of a command besides its parameters."""
    text = inspect.cleandoc(command.__doc__ or "").partition("\n\nParameters\n")[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def texts_of(documented: Any) -> dict[str, str]:
    """Return what docstrings say of the parameters of a function, or the attributes of a class."""
    texts: dict[str, str] = {}
    for one in (
        reversed(inspect.getmro(documented)) if inspect.isclass(documented) else [documented]
    ):
        lines = inspect.cleandoc(one.__doc__ or "")
        for section in re.findall(r"(?:Parameters|Attributes)\n-+\n((?:.+\n?)+)", lines):
            for name, text in re.findall(r"^(\w+)\n((?: .+\n?)+)", section, re.MULTILINE):
                texts[name] = " ".join(text.split())
    return texts


def _as_on_disk(value: Any) -> Any:
    """Return what was given, with paths that are there in another spelling of Unicode as there."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_on_disk, value))
    if not isinstance(value, Path) or str(value).isascii():
        return value
    from twintrack.cohort.names import as_on_disk

    return as_on_disk(value)


def _members(group: type) -> list[inspect.Parameter]:
    kinds = get_type_hints(group, include_extras=True)  # each in the module of its class
    parameters = inspect.signature(group).parameters.values()
    return [one.replace(annotation=kinds[one.name]) for one in parameters]


def _option(
    parameter: inspect.Parameter, texts: dict[str, str], panel: str | None = None
) -> inspect.Parameter:
    parameter = parameter.replace(kind=parameter.KEYWORD_ONLY)
    if parameter.name not in texts:
        return parameter
    kind, info = parameter.annotation, typer.Option()
    if get_origin(kind) is Annotated:
        kind, given = get_args(kind)
        info = copy.copy(given)  # other commands may have it, too
    info.help, info.rich_help_panel = texts[parameter.name], panel
    if kind is bool and info.default is ... and not info.param_decls:
        info.param_decls = (f"--{parameter.name.replace('_', '-')}",)  # there is no --no-…
    return parameter.replace(annotation=Annotated[kind, info])
