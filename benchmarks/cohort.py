"""The command line on a phantom cohort: four methods fitted, evaluated and compared, twice.

    python benchmarks/cohort.py                       # 64 test cases, 16 calibration cases

Prints Tables 1 and 2, the seconds of every command, and whether evaluating and comparing again, in
other folders and from nothing, gives the same bytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

TARGETS = ("none", "single", "hard", "mhr")
TWINTRACK = [sys.executable, "-m", "twintrack"]


def run(*arguments: object) -> str:
    """Run a command of twintrack, print its time and return what it says."""
    start = time.perf_counter()
    done = subprocess.run(
        [*TWINTRACK, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    print(f"{time.perf_counter() - start:7.1f} s  twintrack {arguments[0]}", file=sys.stderr)
    return done.stdout


def evaluate_and_compare(manifest: Path, maps: Path, output: Path) -> dict[Path, bytes]:
    """Return the files, by their names under `output`, that users look at."""
    for target in TARGETS:
        run("evaluate", "-q", "-i", manifest, "-m", maps / f"{target}.json", "-o", output / target)
    run("compare", *(output / target for target in TARGETS), "-o", output / "report")
    return {
        path.relative_to(output): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and "store" not in path.parts
    }


def main() -> None:
    """Make the cohorts, fit, evaluate and compare twice, and compare the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=64, help="test cases")
    parser.add_argument("--calibration-cases", type=int, default=16)
    parser.add_argument("--shape", default="128,128,64", help="voxels along x, y, z")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept")
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        common = ("--shape", given.shape, "-q")
        run("phantom", "-o", folder / "test", "--cases", given.cases, *common)
        calibration = ("--cases", given.calibration_cases, "--first", 100_000)
        run("phantom", "-o", folder / "calibration", *calibration, *common)
        for target in TARGETS:
            fit = ("-i", folder / "calibration" / "manifest.csv", "-o", folder / f"{target}.json")
            run("fit", "-q", *fit, "--target", target)
        test = folder / "test" / "manifest.csv"
        once = evaluate_and_compare(test, folder, folder / "once")
        again = evaluate_and_compare(test, folder, folder / "again")
        for table in ("table1.md", "table2.md"):
            print((folder / "once" / "report" / table).read_text(encoding="utf-8"))
        differ = sorted(
            str(name) for name in once.keys() | again.keys() if once.get(name) != again.get(name)
        )
        print(f"{len(once)} files, the second time: {', '.join(differ) or 'the same bytes'}")
        if differ:
            sys.exit(1)


if __name__ == "__main__":
    main()
