"""What runs on a device needs no package that reads files: they may be missing there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ON_DEVICE = [  # as GPU_TESTS of the Makefile: they take the fixture
    path
    for path in sorted(TESTS.glob("**/test_*.py"))
    if re.search(r"^def .*\(.*\blibrary\b", path.read_text(encoding="utf-8"), re.MULTILINE)
]
BLOCKED = (
    "nibabel",
    "isal",
    "SimpleITK",
    "distributed",
    "pylidc",
    "sklearn",
    "matplotlib",
    "msgspec",
)


def run(code):
    block = f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + code],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_tests_on_a_device_are_collected():
    assert "test_device.py" in {path.name for path in ON_DEVICE}
    files = [str(path) for path in ON_DEVICE if path.parent.name != "nnunet"]
    found = run(
        f"import pytest\nsys.exit(pytest.main(['--collect-only', '-q', '-m', 'gpu', *{files}]))",
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "test_tally_is_the_cpus[torch on a device" in found.stdout


@pytest.mark.parametrize("program", ["gpu", "measure", "suite.inputs"])
def test_benchmark_on_a_device_imports(program):
    pytest.importorskip("scipy")
    found = run(f"sys.path.insert(0, 'benchmarks')\nimport {program}")
    assert found.returncode == 0, found.stderr
