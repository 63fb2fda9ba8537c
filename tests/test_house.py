"""The house: rooms import one way, files stay short, and few modules lie loose."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python/twintrack"

# A room imports those of earlier rows, never those of its own row or of later ones.
LAYERS = (
    ("errors", "version"),
    ("files",),
    ("arrays",),
    ("volumes", "statistics"),
    ("calibration", "metrics", "ensemble"),
    ("cohort",),
    ("datasets", "runs"),
    ("nnunet",),
    ("report",),
    ("demos",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LOOSE = {"errors", "files", "version"}


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "twintrack":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.removeprefix("twintrack.").split(".")[0])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "twintrack" and len(name) > 1}
    return found & set(LEVEL)


def test_every_room_is_known():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms -= {"__init__", "__main__", "__pycache__"}
    assert rooms == set(LEVEL)
    assert {path.stem for path in PACKAGE.glob("[!_]*.py")} == LOOSE


@pytest.mark.parametrize("room", sorted(LEVEL))
def test_imports_point_one_way(room):
    files = sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
    for path in files:
        for other in imported_rooms(path) - {room}:
            assert LEVEL[other] < LEVEL[room], f"{path.relative_to(PACKAGE)} imports {other}"


def test_files_are_short():
    limits = dict.fromkeys(("python", "cpp", "benchmarks", "fuzz"), 450) | {"tests": 700}
    long = {
        str(path.relative_to(ROOT)): lines
        for folder, limit in limits.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".hpp", ".cpp", ".cuh", ".cu"}
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > limit
    }
    assert long == {}
