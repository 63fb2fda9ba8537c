"""TwinTrack of an earlier commit, to be timed beside what is here: `peers.py --before COMMIT`.

The package of that commit is built once, into build/before/<commit>/, with the tools that are
installed and without a network. A process of its own does each work of ours on it, on inputs made
from the same seeds, in turns with ours.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import measure
import numpy as np
from rows.row import Row, Setting

ROOT = Path(__file__).parents[1]


def build(commit: str) -> Path:
    """Return the folder with the package of a commit, which is built if it is not there."""
    asked = ["git", "rev-parse", "--verify", "--short=12", f"{commit}^{{commit}}"]
    name = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    home = ROOT / "build" / "before" / name.strip()
    site = home / "site"
    if site.is_dir():
        return site
    shutil.rmtree(home, ignore_errors=True)
    source, made = home / "source", home / "made"
    source.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", name.strip()], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    options = ["--no-build-isolation", "-C", "cmake.define.TWINTRACK_CUDA=OFF"]
    subprocess.run([*pip, *options, "--target", made, source], check=True)
    shutil.rmtree(source)
    return made.rename(site)


class Earlier:
    """A row's work on an earlier package; a context manager that ends its process."""

    def __init__(self, site: Path, row: Row, setting: Setting, inputs: Any) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe would fill
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": str(site)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        kind = type(row)
        asked = {"row": [kind.__module__, kind.__name__], "setting": setting}
        self._same_inputs = self._ask(asked) in ({"answer": checksum(inputs)}, None)

    def do(self, work: str, *, memory: bool) -> tuple[float, int | None]:
        """Do a work of ours: seconds, and bytes beyond what the process held if they are asked.

        RuntimeError if it cannot do the work, with what it says about it, or makes other inputs.
        """
        if not self._same_inputs:
            raise RuntimeError("it makes other inputs")
        found = self._ask({"work": work, "memory": memory})
        if found is None:
            self._errors.seek(0)
            raise RuntimeError(self._errors.read().strip().splitlines()[-1])
        if "error" in found:
            raise RuntimeError(found["error"])
        seconds, peak = found["answer"]
        return seconds, peak

    def _ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        # None if the process has ended.
        sent, answers = self._process.stdin, self._process.stdout
        assert sent is not None
        assert answers is not None
        try:
            print(json.dumps(question), file=sent, flush=True)
        except BrokenPipeError:
            return None
        line = answers.readline()
        return json.loads(line) if line else None

    def __enter__(self) -> Earlier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()


def in_turns(
    ours: Callable[[], Any], earlier: Earlier, work: str, runs: int
) -> tuple[measure.Measured, measure.Measured]:
    """Measure both, one run of each after the other."""
    found: list[tuple[float, int | None]] = []

    def theirs() -> None:
        found.append(earlier.do(work, memory=not found))

    measured = measure.measure(ours, runs, between=theirs)
    return measured, measure.Measured.of([seconds for seconds, _ in found], found[0][1])


def checksum(inputs: Any) -> int:
    """Of all arrays among inputs, and in lists among them."""
    found = 0
    for value in inputs:
        if isinstance(value, np.ndarray):
            found = zlib.crc32(np.ascontiguousarray(value).view(np.uint8).reshape(-1), found)
        elif isinstance(value, list):
            found = zlib.crc32(str(checksum(value)).encode(), found)
    return found


def serve() -> None:
    """Answer the questions of an `Earlier`, a line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a work prints is no answer

    def answer(**found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    question = json.loads(sys.stdin.readline())
    module, name = question["row"]
    row: Row = getattr(importlib.import_module(module), name)()
    works = row.ours()
    small = row.prepare(row.warm_up(question["setting"]))
    inputs = row.prepare(question["setting"])
    answer(answer=checksum(inputs))
    warm = set()
    for line in sys.stdin:
        question = json.loads(line)
        work = works[question["work"]]
        try:
            if question["work"] not in warm:
                work(small)
                warm.add(question["work"])
            memory = measure.PeakMemory() if question["memory"] else None
            started = time.perf_counter()
            work(inputs)
            seconds = time.perf_counter() - started
            answer(answer=(seconds, memory and memory.bytes()))
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}")
    row.close(small)
    row.close(inputs)


if __name__ == "__main__":
    serve()
