"""From compressed files to metrics, beside the time that inflating the files takes."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from measure import cores
from suite.inputs import ct_case, scored_everywhere, write_case

from rows.row import CaseRow, Setting, Sizes
from twintrack import evaluate
from twintrack.cohort import Case
from twintrack.runs.engine import Settings
from twintrack.runs.evaluate import EvaluateJob, Evaluation, evaluate_cohort

ONE_CORE = "isal, one core"
ALL_CORES = "isal, all cores"
_PIECE = 1 << 18  # bytes, which stay in the cache
_FIGURES = ("tdsc", "ece", "crps")


class Files(NamedTuple):
    """Cases in a folder, and what their arrays in memory give."""

    folder: Path
    cases: list[Case]
    nbytes: int
    expected: dict[str, dict[str, float]]

    def paths(self) -> list[Path]:
        """All files that are read."""
        return [
            path
            for case in self.cases
            for path in (case.score, *case.raters, case.vessels)
            if path is not None
        ]


class CohortFiles(CaseRow):
    """What `twintrack evaluate` does: read, check, evaluate with vessels, store the result.

    Peers only inflate the same files and forget what comes out. Both have the files in the system's
    cache. The difference is that of ours from the same arrays evaluated in memory.
    """

    packages: ClassVar[tuple[str, ...]] = ("isal", "nibabel")
    work: ClassVar[str]
    peer_names: ClassVar[Sequence[str]]

    def prepare(self, setting: Setting) -> Files:
        folder = Path(tempfile.mkdtemp(prefix="twintrack-bench-"))
        cases, expected, nbytes = [], {}, 0
        for index in range(setting["cases"]):
            case = ct_case(setting["shape"], index)
            if setting["everywhere"]:
                case = scored_everywhere(case)
            cases.append(write_case(folder, case))
            found = evaluate(case.score, case.raters, case.vessels)
            expected[case.name] = {
                **{name: getattr(found, name) for name in _FIGURES},
                **{f"vi_{name}": value for name, value in found.vascular_invasion.items()},
            }
            nbytes += case.score.nbytes + case.vessels.nbytes
            nbytes += sum(mask.nbytes for mask in case.raters)
        return Files(folder, cases, nbytes, expected)

    def describe(self, setting: Setting) -> str:
        where = "score everywhere" if setting["everywhere"] else "score in the ROI"
        return f"{setting['cases']} × {super().describe(setting)}, {where}"

    def ours(self) -> Mapping[str, Callable[[Files], Evaluation]]:
        return {self.work: evaluate_files}

    def peers(self) -> Mapping[str, Callable[[Files], Any]]:
        known = {
            ONE_CORE: lambda files: sum(map(inflate, files.paths())),
            ALL_CORES: inflate_all,
        }
        return {name: known[name] for name in self.peer_names}

    def traffic(self, ours: str, inputs: Files) -> int:  # noqa: ARG002
        return inputs.nbytes

    def limit(self, ours: str, inputs: Files) -> float:  # noqa: ARG002
        from measure import measure

        return measure(lambda: inflate_all(inputs), 3).seconds

    def difference(self, inputs: Files, ours: Evaluation, theirs: Any) -> Mapping[str, float]:  # noqa: ARG002
        gaps = [
            abs(expected - found)
            for name, figures in inputs.expected.items()
            for expected, found in _pairs(figures, ours.rows[name])
        ]
        return {"figures": max(gaps)}

    def close(self, inputs: Files) -> None:
        shutil.rmtree(inputs.folder, ignore_errors=True)


class CaseFiles(CohortFiles):
    """One case."""

    goals: ClassVar[Mapping[str, str]] = {ONE_CORE: "≤ 1.5×"}
    work: ClassVar[str] = "a case, from .nii.gz"
    peer_names: ClassVar[Sequence[str]] = (ONE_CORE, ALL_CORES)

    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        return _both(super().settings(sizes), 1)

    def ratio(self, ours: float, theirs: float) -> str:
        return f"{ours / theirs:.2f}× its time"


class Cohort(CohortFiles):
    """Several cases at the same time."""

    goals: ClassVar[Mapping[str, str]] = {ALL_CORES: "≥ 80%"}
    work: ClassVar[str] = "a cohort, from .nii.gz"
    peer_names: ClassVar[Sequence[str]] = (ALL_CORES,)

    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        return _both(super().settings(sizes), sizes.cases)

    def ratio(self, ours: float, theirs: float) -> str:
        return f"{theirs / ours:.0%} of its speed"


def _both(settings: Iterable[Setting], cases: int) -> list[Setting]:
    """Scores that are 0 outside of the ROI inflate at the speed of memory; others do not."""
    return [
        {**setting, "cases": cases, "everywhere": everywhere}
        for setting in settings
        for everywhere in (False, True)
    ]


def evaluate_files(files: Files) -> Evaluation:
    """All of it, whatever an earlier run has stored."""
    store = files.folder / "store"
    found = evaluate_cohort(files.cases, EvaluateJob(), store, settings=Settings(force=True))
    if found.failures:
        raise RuntimeError(f"a case failed: {found.failures[0]}")
    return found


def inflate_all(files: Files) -> int:
    """Inflate as many files at a time as there are cores, large ones first."""
    paths = sorted(files.paths(), key=lambda path: path.stat().st_size, reverse=True)
    with ThreadPoolExecutor(cores()) as pool:
        return sum(pool.map(inflate, paths))


def inflate(path: Path) -> int:
    """Inflate a gzip file piece by piece, keep nothing, return the bytes."""
    from isal import igzip_lib

    data = path.read_bytes()
    stream = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
    total = 0
    while not stream.eof:
        total += len(stream.decompress(data, _PIECE))
        data = b""
    return total


def _pairs(expected: dict[str, float], found: Mapping[str, Any]) -> Iterable[tuple[float, float]]:
    for name, value in expected.items():
        if not (math.isnan(value) and np.isnan(found[name])):
            yield value, found[name]
