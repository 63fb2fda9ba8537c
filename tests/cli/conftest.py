from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from twintrack.cli import main, reporting
from twintrack.datasets.phantom import PhantomSpec, write_cohort


@pytest.fixture(scope="session")
def pristine_cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, PhantomSpec(shape=(24, 24, 20), raters=3, seed=3), 6)
    return folder


@pytest.fixture
def cohort(pristine_cohort, tmp_path) -> Path:
    """Folder of a phantom cohort that may be damaged."""
    return Path(shutil.copytree(pristine_cohort, tmp_path / "cohort"))


@pytest.fixture
def twintrack(capfd, monkeypatch):
    """Run the command line in this process: exit status, stdout and stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capfd.readouterr()
        return ended.value.code, told.out, told.err

    yield run
    reporting._tell.update(tracebacks=False, json=False)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def command() -> list[str]:
    """What starts the command line in another process."""
    return [sys.executable, "-c", "from twintrack.cli import main; main()"]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment in which another process finds this very package."""
    import twintrack

    return {**os.environ, "PYTHONPATH": str(Path(twintrack.__file__).parents[1])}
