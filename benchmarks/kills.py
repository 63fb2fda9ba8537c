"""Kills an evaluation at random moments and shows that resuming it ends with the same bytes.

    python benchmarks/kills.py                      # 50 kills, then 5 of a Dask worker
    python benchmarks/kills.py --kills 4 --workers-killed 1 --seed 7

Every round begins with an empty folder, is killed (SIGKILL) after a random share of the time that
the cases take, and is repeated until it ends by itself; every second round is killed twice. Then
cases.csv, summary.json, failures.csv and every file of the store are compared with those of a run
that nobody disturbed. Moments are drawn with a seed; how far a run had got by then is the machine's
affair, and is printed: cases finished, and whether files were being written.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

from twintrack.cohort import read_manifest
from twintrack.datasets.phantom import PhantomSpec, write_cohort
from twintrack.runs.engine import Outcome, Settings
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort
from twintrack.runs.progress import Quiet

COMMAND = [sys.executable, "-c", "from twintrack.cli import main; main()"]


def start(manifest: Path, output: Path) -> subprocess.Popen[bytes]:
    arguments = ["evaluate", "-i", str(manifest), "-o", str(output), "-npp", "2", "-q"]
    return subprocess.Popen([*COMMAND, *arguments])


def wait_for_store(process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until the run begins with its cases: starting Python is most of a short run."""
    while process.poll() is None and not (output / "store").exists():
        time.sleep(0.002)


def finish(manifest: Path, output: Path) -> float:
    """Run to the end and return the seconds that the cases took."""
    process = start(manifest, output)
    wait_for_store(process, output)
    started = time.perf_counter()
    status = process.wait()
    if status != 0:
        sys.exit(f"a run that nobody killed ended with status {status}")
    return time.perf_counter() - started


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_once(manifest: Path, output: Path, after: float) -> tuple[bool, int, int]:
    """Whether the run was killed before it ended, cases finished by then, and files begun."""
    process = start(manifest, output)
    wait_for_store(process, output)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    records = len(list(output.glob("store/*/cases/*.json")))
    begun = [path for path in output.glob("store/*/staging-*/*") if path.name != "lock"]
    return killed, records, len(begun)


def compare(name: str, expected: dict[str, bytes], found: dict[str, bytes]) -> None:
    if found == expected:
        return
    different = {path for path, data in found.items() if expected.get(path) != data}
    different |= expected.keys() - found.keys()
    sys.exit(f"{name}: not the files of an undisturbed run: {', '.join(sorted(different)[:5])}")


def kill_runs(manifest: Path, folder: Path, kills: int, rng: random.Random) -> None:
    whole = folder / "whole"
    # The second run finds everything in the page cache, as the killed ones do.
    seconds = [finish(manifest, whole)]
    expected = content(whole)
    shutil.rmtree(whole)
    seconds.append(finish(manifest, whole))
    compare("a second undisturbed run", expected, content(whole))
    done = late = writing = 0
    reached: collections.Counter[int] = collections.Counter()
    while done < kills:
        output = folder / "killed"
        for _ in range(min(1 + done % 2, kills - done)):
            after = rng.random() * min(seconds)
            killed, records, begun = kill_once(manifest, output, after)
            if not killed:
                late += 1
                break
            done += 1
            reached[records] += 1
            writing += begun > 0
        finish(manifest, output)
        compare(f"after kill {done}", expected, content(output))
        shutil.rmtree(output)
    cases = len(read_manifest(manifest))
    print(f"{done} kills of an evaluation of {cases} cases, {late} came too late and do not count;")
    shown = ", ".join(f"{records}: {times}" for records, times in sorted(reached.items()))
    print(f"kills by number of finished cases: {shown}; {writing} while a file was being written.")
    print(f"All resumed runs ended with the same {len(expected)} files, byte for byte.")


class KillsWorker(Quiet):
    """Kills one of the workers after some number of cases."""

    def __init__(self, client: object, after: int) -> None:
        self.client, self.after, self.killed = client, after, 0

    def case(self, outcome: Outcome) -> None:  # noqa: ARG002
        self.after -= 1
        if self.after == 0:
            workers = sorted(self.client.run(os.getpid).values())
            os.kill(workers[0], signal.SIGKILL)
            self.killed += 1


def kill_workers(manifest: Path, folder: Path, rounds: int, rng: random.Random) -> None:
    from twintrack.runs.cluster import dask_cluster

    cases = read_manifest(manifest)
    job = EvaluateJob()
    evaluate_cohort(cases, job, folder / "here" / "store").write(folder / "here", "none")
    expected = content(folder / "here")
    killed = 0
    for number in range(rounds):
        with dask_cluster(workers=2) as cluster:
            progress = KillsWorker(cluster.client, rng.randint(1, max(1, len(cases) // 2)))
            output = folder / f"there-{number}"
            settings = Settings(cluster=cluster, progress=progress, memory=1 << 30)
            evaluate_cohort(cases, job, output / "store", settings=settings).write(output, "none")
        killed += progress.killed
        found = content(output)
        # A worker that is killed leaves its staging folder; the next run on the store removes it.
        compare(
            f"Dask run {number}",
            expected,
            {path: data for path, data in found.items() if "/staging-" not in path},
        )
    print(
        f"{killed} Dask workers killed in {rounds} runs: the same {len(expected)} files each time."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers-killed", type=int, default=5)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(measure.machine(["twintrack", "distributed"]))
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_cohort(
            folder / "cohort", PhantomSpec(shape=(96, 96, 64), raters=3, seed=3), given.cases
        )
        if given.kills:
            kill_runs(manifest, folder, given.kills, rng)
        if given.workers_killed:
            kill_workers(manifest, folder, given.workers_killed, rng)


if __name__ == "__main__":
    main()
