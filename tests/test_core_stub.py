"""The stubs of the compiled modules name the arguments and defaults that the modules have.

`make lint` compares the names of functions and classes; it cannot see arguments, which pybind11
writes into docstrings only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from device_libraries import emulated_module

from twintrack import _core


def functions(module: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function and method of the stub, properties aside, by its dotted name."""
    stub = ast.parse(files("twintrack").joinpath(f"{module}.pyi").read_text())
    for node in stub.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, ast.FunctionDef) and not member.decorator_list:
                yield prefix + member.name, member


def described(function: Any) -> list[str]:
    """Arguments in a pybind11 docstring, as "name" or "name = default"."""
    line = function.__doc__.splitlines()[0]
    arguments = line[line.index("(") + 1 : line.rindex(") ->")]
    parts = re.split(r", (?=\w+: )", arguments) if arguments else []
    return [re.sub(r": .*?( = .*)?$", r"\1", part) for part in parts]


def declared(function: ast.FunctionDef) -> list[str]:
    names = [argument.arg for argument in function.args.args]
    defaults = [f" = {ast.unparse(default)}" for default in function.args.defaults]
    return [
        name + default
        for name, default in zip(names, [""] * (len(names) - len(defaults)) + defaults, strict=True)
    ]


def parameters(module: str) -> list[Any]:
    return [pytest.param(*pair, id=pair[0]) for pair in functions(module)]


def check_arguments_and_defaults(module, name, stub):
    bound: Any = module
    for part in name.split("."):
        bound = getattr(bound, part)
    expected = described(bound)
    if stub.name.startswith("__") and stub.name != "__init__":
        assert len(declared(stub)) == len(expected)  # operators have no names for their operands
    else:
        assert declared(stub) == expected


@pytest.mark.parametrize(("name", "stub"), parameters("_core"))
def test_arguments_and_defaults(name, stub):
    check_arguments_and_defaults(_core, name, stub)


@pytest.mark.parametrize(("name", "stub"), parameters("_cuda"))
def test_arguments_and_defaults_of_the_cuda_module(name, stub):
    check_arguments_and_defaults(emulated_module(), name, stub)
