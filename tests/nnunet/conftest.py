from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models as tiny


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three trained folders, which no test changes."""
    root = tmp_path_factory.mktemp("models")
    return [tiny.write_model(root / str(seed), seed) for seed in range(3)]
