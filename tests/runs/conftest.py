from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from twintrack.cohort import read_manifest
from twintrack.datasets.phantom import PhantomSpec, write_cohort

CASES = 6


def pytest_configure(config):
    config.addinivalue_line("markers", "dask: needs distributed")


@pytest.fixture(scope="session")
def pristine_cohort(tmp_path_factory) -> Path:
    """Folder of a phantom cohort; tests that change files take `cohort`, a copy."""
    folder = tmp_path_factory.mktemp("cohort")
    spec = PhantomSpec(shape=(24, 24, 20), raters=3, seed=3)
    write_cohort(folder, spec, CASES)
    return folder


@pytest.fixture
def cohort(pristine_cohort, tmp_path) -> Path:
    return Path(shutil.copytree(pristine_cohort, tmp_path / "cohort"))


@pytest.fixture
def cases(pristine_cohort):
    return read_manifest(pristine_cohort / "manifest.csv")


@pytest.fixture(scope="session")
def command() -> list[str]:
    """What starts the command line in another process."""
    return [sys.executable, "-c", "from twintrack.cli import main; main()"]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment in which another process finds this very package."""
    import twintrack

    here = str(Path(twintrack.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": here}
