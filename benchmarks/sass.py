"""Prints what the machine code of every kernel says: registers, memory, instructions a voxel.

    python benchmarks/sass.py                          # compiles cpp/cuda with nvcc for sm_90
    python benchmarks/sass.py build/*.o --json FILE    # reads objects that are compiled

No device is needed, and nothing is timed: a bound is what instructions alone would allow, if none
ever waited. `make sass` installs nvcc, cuobjdump and nvdisasm where they are missing.

The hot loop of a kernel is the largest loop around loads and stores of what is not used again
(`.EF`), which only voxels are, that has no smaller loop around the same ones. Its instructions, for
a case without a region, are counted in three ways:

    least   the shortest way round that loads and stores whole vectors: in the kernels that count,
            four voxels of background
    varied  the shortest of these with the most additions whose former value is looked at: four
            voxels in cells of their own, and no field carries
    all     every instruction of the loop, what is rare included

A warp goes every way that one of its 32 threads goes, so the truth lies between two of them. The
bound is of `varied`, on an H200: 132 multiprocessors, four instructions of 32 threads a clock,
1.98 GHz, as a share of a copy at 4.8 TB/s, what its memory can do at best. Shared memory that is
sized at the launch is not in the table.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "cpp/cuda"
# Those of cmake/cuda.cmake.
FLAGS = ("-O3", "-std=c++20", "-DNDEBUG", "-DTWINTRACK_LINKED", "-fmad=false")
FLAGS += ("--expt-relaxed-constexpr", "-Xcompiler=-ffp-contract=off,-fPIC,-fvisibility=hidden")

# An H200.
THREADS_PER_CLOCK = 132 * 4 * 32
CLOCK = 1.98e9
COPY = 4.8e12

VECTOR_VOXELS = 4  # voxel_vectors.cuh
MAP_LOADS = 4  # calibration_map.cuh
SIZES = {"float16": 2, "bfloat16": 2, "float": 4, "double": 8, "LookUpRule": 2}

LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][A-Z0-9_.]*)\s*([^;]*);")
TARGET = re.compile(r"(?:^|[\s,])0x([0-9a-f]+)\s*$")


@dataclass(frozen=True)
class Instruction:
    """One line of a disassembly."""

    address: int
    predicate: str
    opcode: str
    operands: str

    @property
    def streams(self) -> bool:
        """Whether it loads or stores what is not used again."""
        return self.opcode.startswith(("LDG", "STG")) and ".EF" in self.opcode

    @property
    def counts(self) -> bool:
        """Whether it adds to shared memory and keeps what was there."""
        return self.opcode.startswith("ATOMS.ADD") and not self.operands.startswith("RZ")

    @property
    def counts_globally(self) -> bool:
        return self.opcode.startswith("ATOMG") and ".ADD" in self.opcode

    @property
    def ends(self) -> bool:
        return self.opcode.startswith(("EXIT", "RET")) and not self.predicate

    @property
    def target(self) -> int | None:
        """Where it may jump to. Divergence alone (`BRA.DIV`) is no way of its own."""
        if self.opcode.split(".")[0] != "BRA" or ".DIV" in self.opcode:
            return None
        found = TARGET.search(self.operands)
        return int(found[1], 16) if found else None

    @property
    def always_jumps(self) -> bool:
        return self.target is not None and not self.predicate and "P" not in self.operands


@dataclass(frozen=True)
class Loop:
    """Instructions on the ways round a loop."""

    least: int
    varied: int
    all: int


@dataclass(frozen=True)
class Row:
    """A kernel: registers of a thread, bytes of local and static shared memory, its hot loop."""

    kernel: str
    registers: int
    local: int
    shared: int
    instructions: int
    voxels: int | None = None
    loop: Loop | None = None
    traffic: int | None = None

    def a_voxel(self, instructions: int) -> float:
        assert self.voxels
        return instructions / self.voxels

    @property
    def bound(self) -> float | None:
        """Share of a copy's bandwidth that instructions allow."""
        if self.loop is None or self.voxels is None or self.traffic is None:
            return None
        voxels = THREADS_PER_CLOCK * CLOCK / self.a_voxel(self.loop.varied)
        return min(1.0, voxels * self.traffic / COPY)


def parse(listing: str) -> dict[str, list[Instruction]]:
    """Instructions of each function of a listing by cuobjdump -sass."""
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in listing.splitlines():
        if "Function :" in line:
            current = functions.setdefault(line.split("Function :")[1].strip(), [])
        elif found := LINE.search(line):
            address, predicate, opcode, operands = found.groups()
            current.append(Instruction(int(address, 16), predicate or "", opcode, operands.strip()))
    return functions


def ways(code: list[Instruction]) -> dict[int, list[int]]:
    """The addresses that may come after each. Barriers and calls go on to the next."""
    after: dict[int, list[int]] = {}
    for here, following in zip(code, [*code[1:], None], strict=True):
        on = [] if here.target is None else [here.target]
        if following is not None and not here.always_jumps and not here.ends:
            on.append(following.address)
        after[here.address] = on
    return after


def reached(start: int, along: Mapping[int, list[int]], stop: int) -> set[int]:
    seen = {start}
    left = [start]
    while left:
        here = left.pop()
        if here == stop and here != start:
            continue
        new = set(along.get(here, ())) - seen
        seen |= new
        left += new
    return seen


def loops(code: list[Instruction]) -> list[tuple[int, set[int]]]:
    """The first address and all of every loop, those with one first address taken together."""
    after = ways(code)
    before: dict[int, list[int]] = {here.address: [] for here in code}
    for here, on in after.items():
        for there in on:
            before[there].append(here)
    found: dict[int, set[int]] = {}
    for here, on in after.items():
        for there in on:
            if there <= here and here in (forth := reached(there, after, there)):
                body = forth & reached(here, before, there)
                found[there] = found.get(there, set()) | body
    return sorted(found.items())


def hot_loop(code: list[Instruction]) -> Loop | None:
    """That of a kernel's voxels, or None if it has no loop around streaming loads."""
    streams = {here.address for here in code if here.streams}
    around = [(first, body) for first, body in loops(code) if body & streams]
    innermost = [
        (first, body)
        for first, body in around
        if not any(other < body and other & streams == body & streams for _, other in around)
    ]
    if not innermost:
        return None
    first, body = max(innermost, key=lambda loop: len(loop[1]))
    after = {
        address: [there for there in on if there in body]
        for address, on in ways(code).items()
        if address in body
    }
    counts = {here.address for here in code if here.counts}
    if not counts & body:  # a table in global memory
        counts = {here.address for here in code if here.counts_globally}
    return Loop(
        shortest(first, after, [streams]), shortest(first, after, [counts, streams]), len(body)
    )


def shortest(first: int, after: Mapping[int, list[int]], wanted: list[set[int]]) -> int:
    """Instructions of the shortest way from `first` back to it among those with the most `wanted`.

    The earlier of the wanted come before the later. Inner loops are gone round once.
    """
    order: list[int] = []  # each before what comes after it, reversed
    forward: dict[int, list[int]] = {}
    state = {first: "open"}
    left: list[tuple[int, list[int]]] = [(first, list(after[first]))]
    while left:
        here, on = left[-1]
        if not on:
            state[here] = "done"
            order.append(here)
            left.pop()
            continue
        there = on.pop()
        if state.get(there) == "open" and there != first:
            continue  # once more round an inner loop
        forward.setdefault(here, []).append(there)
        if there not in state:
            state[there] = "open"
            left.append((there, list(after[there])))
    # From each on to the first: how many of the wanted, and instructions as a negative number.
    best: dict[int, tuple[int, ...]] = {}
    for here in order:
        ends = [
            (0,) * (len(wanted) + 1) if there == first else best[there]
            for there in forward.get(here, ())
            if there == first or there in best
        ]
        if ends:
            *found, length = max(ends)
            passed = (more + (here in of) for more, of in zip(found, wanted, strict=True))
            best[here] = (*passed, length - 1)
    return -best[first][-1]


def shape_of(kernel: str) -> tuple[int, int] | None:
    """Voxels of a turn of a kernel's hot loop, and bytes that a voxel must move, by its name."""
    size = next((SIZES[name] for name in SIZES if re.search(rf"\b{name}\b", kernel)), 4)
    if counted := re.search(r"count_(?:scores|case_voxels)<.*?, (\d+)[,>]", kernel):
        return VECTOR_VOXELS, size + int(counted[1])
    if "map_packed" in kernel:
        return MAP_LOADS * 16 // size, 2 * size
    return None


def short_name(demangled: str) -> str:
    """Without namespaces and parameters."""
    name = demangled.replace("twintrack::cuda::", "").replace("twintrack::", "")
    name = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    return name.split("(")[0]


def tool(name: str) -> str:
    """A program of the CUDA toolkit: of CUDA_PATH, PATH, or the packages of this Python."""
    packages = Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin")
    places = [os.environ.get("CUDA_PATH", "") + "/bin", os.environ.get("PATH", "")]
    found = shutil.which(name, path=os.pathsep.join([*places, *map(str, packages)]))
    if found is None:
        sys.exit(f"there is no {name}: make sass installs what is missing")
    return found


def output(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def compiled(source: Path, arch: str, folder: Path) -> Path:
    """The object of a source; prints the seconds that it took."""
    made = folder / (source.stem + ".o")
    begun = time.perf_counter()
    output(
        *(tool("nvcc"), "-c", *FLAGS, f"-gencode=arch=compute_{arch},code=sm_{arch}"),
        *(f"-I{ROOT / 'cpp/include'}", f"-I{ROOT / 'cpp'}", source, "-o", made),
    )
    seconds = time.perf_counter() - begun
    print(f"{source.relative_to(ROOT)}: nvcc took {seconds:.0f} s for sm_{arch}", file=sys.stderr)
    return made


def rows_of(made: Path) -> list[Row]:
    """The kernels of an object."""
    disassembler = str(Path(tool("nvdisasm")).parent)
    path = disassembler + os.pathsep + os.environ.get("PATH", "")
    functions = parse(output(tool("cuobjdump"), "-sass", made, PATH=path))
    usage = output(tool("cuobjdump"), "-res-usage", made, PATH=path)
    names = output("c++filt", *functions).splitlines()
    rows = []
    for (mangled, code), name in zip(functions.items(), names, strict=True):
        used = re.search(
            rf"Function {re.escape(mangled)}:\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage
        )
        if used is None:
            sys.exit(f"cuobjdump says nothing of the registers of {name}")
        registers, local, shared = map(int, used.groups())
        shape = shape_of(short_name(name))
        loop = hot_loop(code) if shape else None
        voxels, traffic = shape if shape and loop else (None, None)
        rows.append(
            Row(short_name(name), registers, local, shared, len(code), voxels, loop, traffic)
        )
    return rows


def table(rows: Iterable[Row]) -> str:
    lines = [
        "| kernel | registers | local | shared | instructions | least | varied | all | bound |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(rows, key=lambda row: row.kernel):
        loop, bound = row.loop, row.bound
        ways_round = ["–"] * 3
        if loop is not None:
            counts = (loop.least, loop.varied, loop.all)
            ways_round = [f"{row.a_voxel(count):.0f}" for count in counts]
        cells = [f"`{row.kernel}`", row.registers, row.local, row.shared, row.instructions]
        cells += [*ways_round, "–" if bound is None else f"{bound:.0%}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="*", type=Path, help="compiled kernels; none: compile")
    parser.add_argument("--arch", default="90", help="compute capability, such as 80 or 90")
    parser.add_argument("--json", type=Path, help="file for the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        objects = arguments.objects
        if not objects:
            sources = sorted(KERNELS.glob("*/*.cu"))
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(
                    pool.map(lambda of: compiled(of, arguments.arch, Path(folder)), sources)
                )
        rows = [row for made in objects for row in rows_of(made)]
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
