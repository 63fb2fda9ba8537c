from __future__ import annotations

import pytest

from twintrack.cli import main, reporting


@pytest.fixture
def twintrack(capfd, monkeypatch):
    """Run the command line in this process: exit status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capfd.readouterr()
        return ended.value.code, told.out, told.err

    yield run
    reporting._tell.update(tracebacks=False, json=False)


@pytest.fixture
def fit(twintrack, tmp_path):
    def fit(*arguments, name="c.json"):
        output = tmp_path / name
        return (*twintrack("fit", "-o", output, *arguments), output)

    return fit
