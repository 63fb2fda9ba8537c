"""Groups of options: a parameter of a command that stands for several options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command as typer wants it: the fields of dataclasses as options of their own.

    The command itself gets the dataclasses, made of what typer has read.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: one.annotation for name, one in parameters.items() if is_dataclass(one.annotation)
    }
    members = {
        name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()
    }
    options = [
        option.replace(kind=option.KEYWORD_ONLY)
        for name, parameter in parameters.items()
        for option in (members[name].values() if name in groups else [parameter])
    ]

    def spread_out(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{option: given.pop(option) for option in members[name]})
        command(**given)

    spread_out.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    spread_out.__annotations__ = {option.name: option.annotation for option in options}
    return spread_out
