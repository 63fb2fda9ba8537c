"""Feeds damaged files to everything that reads files, and reports what breaks its word.

    python fuzz/run.py                                   # 200 inputs for each reader
    python fuzz/run.py --seconds 3600                    # an hour, shared by the readers
    python fuzz/run.py npz calibrator --inputs 100000 --seed 7
    python fuzz/run.py nifti-gz --engine atheris --seconds 600   # guided by coverage
    python fuzz/run.py --replay fuzz/findings/npz-1f2e3d4c

A reader runs in a process of its own, which may take half a GiB of memory beyond what it begins
with and ten seconds for an input; a crash is a finding as an exception that is not documented is.
With --inputs the same seed gives the same inputs. Inputs that led to a new place in the code that
refuses them are mutated further. What is found is kept in fuzz/findings. `targets.py` says what is
read and what is promised.

The engine "atheris" (pip install atheris; Linux, Python 3.11 to 3.13) is libFuzzer on instrumented
Python, with our mutations beside its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDINGS = HERE / "findings"
MEMORY = 1 << 29  # bytes beyond those of the process at its start
SECONDS = 10  # for one input


def main() -> None:
    arguments = parse()
    if arguments.child:
        child(**json.loads(arguments.child))
        return
    from targets import TARGETS

    if arguments.replay:
        for path in arguments.replay:
            target = TARGETS[path.name.rsplit("-", 1)[0]]
            with tempfile.TemporaryDirectory() as folder:
                target.seeds(Path(folder))
                print(f"{path.name}: {target.check(Path(folder), path.read_bytes()) or 'read'}")
        return
    names = arguments.targets or list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        sys.exit(f"there is no reader {unknown[0]!r}; there are {', '.join(TARGETS)}")
    seconds = None if arguments.seconds is None else arguments.seconds / len(names)
    print("| reader | inputs | read | refused | ways to refuse | seconds | findings |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    found = 0
    for name in names:
        result = in_own_process(name, seconds, arguments)
        found += len(result["findings"])
        numbers = ("inputs", "read", "refused", "ways", "seconds")
        line = [
            name,
            *(f"{result.get(key, ''):,}" for key in numbers),
            str(len(result["findings"])),
        ]
        print(f"| {' | '.join(line)} |", flush=True)
        for path, message in result["findings"]:
            print(f"{path}: {message}", file=sys.stderr, flush=True)
    sys.exit(found > 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="reader", help="all by default")
    parser.add_argument("--inputs", type=int, default=200, help="for each reader")
    parser.add_argument("--seconds", type=float, help="for all together, instead of --inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("ours", "atheris"), default="ours")
    parser.add_argument("--replay", nargs="+", type=Path, help="findings to try again")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(name: str, seconds: float | None, arguments: argparse.Namespace) -> dict:
    """Run a reader, again after every crash, and return its counts and findings."""
    total: dict = {"inputs": 0, "read": 0, "refused": 0, "ways": 0, "seconds": 0, "findings": []}
    started = time.monotonic()
    crashes = 0
    while crashes < 10:
        left = None if seconds is None else seconds - (time.monotonic() - started)
        if left is not None and left <= 0:
            break
        with tempfile.TemporaryDirectory() as folder:
            task = {
                "name": name,
                "folder": folder,
                "seconds": left,
                "inputs": arguments.inputs,
                "seed": arguments.seed + crashes,
                "engine": arguments.engine,
            }
            finished = subprocess.run(
                [sys.executable, __file__, "--child", json.dumps(task)],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            told = Path(folder, "told.json")
            counts = json.loads(told.read_text()) if told.exists() else {}
            for key in ("inputs", "read", "refused"):
                total[key] += counts.get(key, 0)
            total["ways"] = max(total["ways"], counts.get("ways", 0))
            total["findings"] += counts.get("findings", [])
            if finished.returncode == 0:
                break
            if not counts:
                sys.exit(f"{name} does not read its own good files:\n{finished.stderr}")
            crashes += 1
            data = Path(folder, "input").read_bytes() if Path(folder, "input").exists() else b""
            why = f"exit status {finished.returncode}"
            if finished.returncode == -signal.SIGALRM:
                why = f"took more than {SECONDS} s"
            last = finished.stderr.strip().splitlines()[-8:]
            total["findings"].append((str(keep(name, data)), "\n".join([why, *last])))
    total["seconds"] = round(time.monotonic() - started)
    return total


def keep(name: str, data: bytes) -> Path:
    FINDINGS.mkdir(exist_ok=True)
    path = FINDINGS / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}"
    path.write_bytes(data)
    return path


# --- in the process of one reader -----------------------------------------------------------------


class Trial:
    """Tries inputs, counts what becomes of them, and stops the process if one takes too long."""

    def __init__(self, name: str, folder: Path) -> None:
        from targets import TARGETS

        from twintrack.arrays.threads import set_max_threads

        set_max_threads(1)  # stacks of threads would count as memory
        self.target = TARGETS[name]
        self.at = folder / "files"
        self.at.mkdir()
        self.input, self.told = folder / "input", folder / "told.json"
        self.seeds = self.target.seeds(self.at)
        self.ways: set[object] = set()
        self.counts: dict = {"inputs": 0, "read": 0, "refused": 0, "ways": 0, "findings": []}
        for data in self.seeds:
            (self.at / self.target.file).write_bytes(data)
            self.target.read(self.at / self.target.file)
        limit_memory()
        self.tell()

    def run(self, data: bytes) -> bool:
        """Try an input; whether it came to an end that no other came to before."""
        from targets import Finding

        self.input.write_bytes(data)
        signal.alarm(SECONDS)  # its default is to end the process, wherever it hangs
        way: object = "read"
        try:
            message = self.target.check(self.at, data)
            self.counts["refused" if message else "read"] += 1
            way = re.sub(r"[\d.]+|'[^']*'|b\"[^\"]*\"", "", message)[:60]
        except Finding as finding:
            way = ("finding", str(finding)[:40], line_of(finding))
            if way not in self.ways and len(self.counts["findings"]) < 20:
                path = keep(self.target.name, data)
                self.counts["findings"].append((str(path), "".join(traceback.format_exc(limit=-4))))
        finally:
            signal.alarm(0)
        self.counts["inputs"] += 1
        new = way not in self.ways
        self.ways.add(way)
        self.counts["ways"] = len(self.ways)
        if new or self.counts["inputs"] % 256 == 0:
            self.tell()
        return new

    def tell(self) -> None:
        self.told.write_text(json.dumps(self.counts))


def line_of(error: BaseException) -> object:
    cause = error.__cause__ or error
    last = traceback.extract_tb(cause.__traceback__)[-1]
    return last.filename, last.lineno


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def child(
    name: str, folder: str, seconds: float | None, inputs: int, seed: int, engine: str
) -> None:
    if engine == "atheris":
        with_atheris(name, Path(folder), seconds or 60, seed)
        return
    from mutate import mutate

    trial = Trial(name, Path(folder))
    rng = random.Random(f"{seed} {name}")
    corpus = list(trial.seeds)
    started = time.monotonic()
    while (
        trial.counts["inputs"] < inputs if seconds is None else time.monotonic() - started < seconds
    ):
        pool = trial.seeds if rng.random() < 0.3 else corpus
        data = mutate(rng.choice(pool), trial.target.form, rng)
        if trial.run(data) and len(corpus) < 2000:
            corpus.append(data)
    trial.tell()


def with_atheris(name: str, folder: Path, seconds: float, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["twintrack", "zipfile", "csv", "json", "nibabel"]):
        import targets  # noqa: F401 - and all that it imports
    from mutate import mutate

    trial = Trial(name, folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(trial.seeds):
        (corpus / str(number)).write_bytes(data)

    def one(data: bytes) -> None:
        trial.run(data)
        if trial.counts["inputs"] % 64 == 0:
            trial.tell()

    def change(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.5:
            return atheris.Mutate(data, most)
        return mutate(data, trial.target.form, rng)[:most]

    flags = [
        f"-max_total_time={max(1, int(seconds))}",
        f"-seed={seed + 1}",
        "-max_len=16384",
        "-rss_limit_mb=0",  # limit_memory
        f"-artifact_prefix={folder}/",
        "-print_final_stats=0",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
