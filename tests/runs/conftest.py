from __future__ import annotations

import pytest

from twintrack.cohort import read_manifest


@pytest.fixture
def cases(pristine_cohort):
    return read_manifest(pristine_cohort / "manifest.csv")
