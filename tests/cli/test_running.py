from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from twintrack.cli.running import Running, Sharing
from twintrack.runs.progress import Quiet

REPORT = SimpleNamespace(progress=Quiet())


def test_settings_are_those_of_the_options():
    with Running(npp=3, memory=2.5, force=True).settings(REPORT) as settings:
        assert (settings.workers, settings.memory, settings.force) == (3, 2_500_000_000, True)
        assert settings.progress is REPORT.progress
        assert settings.cluster is None
    with Running().settings(REPORT) as settings:
        assert (settings.workers, settings.memory, settings.force) == (None, None, False)
    both = Running(workers=2, scheduler="tcp://host:8786")
    with pytest.raises(ValueError, match="give one of them"), both.settings(REPORT):
        pass


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_dealt_out_and_nothing_is_left(parts):
    cases = list(range(6))
    dealt = [Sharing(parts=parts, part=part).part_of(cases) for part in range(parts)]
    assert sorted(itertools.chain(*dealt)) == cases
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    with pytest.raises(ValueError, match=f"-part_id is {parts}; parts are counted from 0"):
        Sharing(parts=parts, part=parts).part_of(cases)
