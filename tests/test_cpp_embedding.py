"""The core inside a C++ program: find_package works, and the program gives Python's bits.

The program is examples/embed, compiled once, against the installed package if there is one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import twintrack as tt

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "embed"
# Tools of the environment that the tests run in come first; a sanitizer is not for compilers.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
ENVIRONMENT["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
CMAKE = shutil.which("cmake", path=ENVIRONMENT["PATH"])
COMPILER = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++"))), None)

pytestmark = [
    pytest.mark.skipif(CMAKE is None or COMPILER is None, reason="needs CMake and a C++ compiler"),
    pytest.mark.skipif(
        "asan" in os.environ.get("LD_PRELOAD", ""), reason="the program is not sanitized"
    ),
]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def run_well(*command: object) -> str:
    finished = run(*command)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """The core as ``cmake --install`` lays it down, without Python."""
    build, prefix = tmp_path_factory.mktemp("core"), tmp_path_factory.mktemp("prefix")
    run_well(CMAKE, "-S", ROOT, "-B", build, "-D", "TWINTRACK_PYTHON=OFF")
    run_well(CMAKE, "--install", build, "--prefix", prefix)
    return prefix


@pytest.fixture(scope="module")
def program(tmp_path_factory, request) -> Path:
    """examples/embed, compiled."""
    packaged = run(sys.executable, "-m", "twintrack", "--cmake-dir")
    if packaged.returncode == 0:
        config = Path(packaged.stdout.strip())
    else:
        assert "this is a source tree" in packaged.stderr
        config = request.getfixturevalue("prefix") / "share/cmake/twintrack"
    build = tmp_path_factory.mktemp("embed")
    # -O1 compiles in a third of the time of -O3, to the same results.
    flags = ["-D", "CMAKE_BUILD_TYPE=None", "-D", "CMAKE_CXX_FLAGS=-O1"]
    run_well(CMAKE, "-S", EXAMPLE, "-B", build, "-D", f"twintrack_DIR:PATH={config}", *flags)
    assert f"twintrack_DIR:PATH={config}" in (build / "CMakeCache.txt").read_text()
    run_well(CMAKE, "--build", build)
    return build / "embed"


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    """Scores with both ends, ties and subnormals, and three raters who follow them loosely."""
    rng = np.random.default_rng(7)
    score = rng.random(200_003, dtype=np.float32)
    score[::5] = 0
    score[1::97] = 1
    score[2::31] = np.float32(0.25)
    score[3::53] *= np.float32(1e-40)
    return score, (rng.random((3, score.size)) < score**2).astype(np.uint8)


def test_an_installed_prefix_is_found(prefix, tmp_path):
    assert (prefix / "include/twintrack/calibration/calibrator_file.hpp").is_file()
    found = run_well(
        CMAKE, "-S", EXAMPLE, "-B", tmp_path, "-D", f"CMAKE_PREFIX_PATH={prefix}", "-LA"
    )
    assert f"twintrack_DIR:PATH={prefix}/share/cmake/twintrack" in found


def test_another_minor_version_is_not_taken(prefix, tmp_path):
    """Before 1.0 a minor version may change what it gives: asking for another one must fail."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\n"
        "project(other LANGUAGES CXX)\n"
        "find_package(twintrack 0.0 REQUIRED)\n"
    )
    build = tmp_path / "build"
    finished = run(CMAKE, "-S", tmp_path, "-B", build, "-D", f"CMAKE_PREFIX_PATH={prefix}")
    assert finished.returncode != 0
    assert 'compatible with requested version "0.0"' in " ".join(finished.stderr.split())


@pytest.mark.parametrize(
    "flag",
    ["-ffast-math", "-Ofast", "-ffinite-math-only", "-funsafe-math-optimizations", None],
)
def test_fast_arithmetic_is_refused(tmp_path, flag):
    source = tmp_path / "program.cpp"
    source.write_text('#include "twintrack/calibration/calibrator_file.hpp"\n')
    flags = ["-std=c++20", "-fsyntax-only", f"-I{ROOT / 'cpp' / 'include'}"]
    compiled = run(COMPILER, *flags, *filter(None, [flag]), source)
    if flag is None:
        assert compiled.returncode == 0, compiled.stderr
    elif "clang" in run(COMPILER, "--version").stdout and "unsafe" in flag:
        pytest.skip("Clang does not tell")
    else:
        assert compiled.returncode != 0
        assert "TwinTrack needs IEEE 754: compile without -ffast-math" in compiled.stderr


@pytest.mark.parametrize(
    "flags",
    ["-Ofast", "-O3 -ffast-math -g", "-freciprocal-math", "-fp-model=fast", "-fassociative-math"],
)
def test_cmake_names_the_flag_of_fast_arithmetic(tmp_path, flags):
    options = ["-D", "TWINTRACK_PYTHON=OFF", "-D", f"CMAKE_CXX_FLAGS={flags}"]
    # A compiler that is not run: some refuse flags of others.
    options += ["-D", "CMAKE_CXX_COMPILER_WORKS=1"]
    configured = run(CMAKE, "-S", ROOT, "-B", tmp_path, *options)
    assert configured.returncode != 0
    flag = next(part for part in flags.split() if part not in {"-O3", "-g"})
    said = " ".join(configured.stderr.split())
    assert f"TwinTrack cannot be compiled with {flag}:" in said
    assert "Take the flag out of CMAKE_CXX_FLAGS" in said


def test_a_calibrator_file_gives_the_same_bits(program, case, tmp_path):
    score, raters = case
    fitted = tt.Calibrator(bins=60).fit(score, raters)
    fitted.save(tmp_path / "calibrator.json")
    score.tofile(tmp_path / "score.f32")
    said = run_well(
        program, "apply", tmp_path / "out", tmp_path / "score.f32", tmp_path / "calibrator.json"
    )
    assert (tmp_path / "out").read_bytes() == fitted.transform(score).tobytes()
    assert "target mhr, fitted to 1 cases of 3 raters" in said
    assert f"a map of {len(fitted.X_thresholds_)} knots" in said


@pytest.mark.parametrize("target", ["mhr", "single", "hard"])
def test_a_map_fitted_there_gives_the_same_bits(program, case, tmp_path, target):
    score, raters = case
    score.tofile(tmp_path / "score.f32")
    files = [tmp_path / f"rater_{k}.u8" for k in range(len(raters))]
    for file, marked in zip(files, raters, strict=True):
        marked.tofile(file)
    run_well(program, "fit", tmp_path / "out", tmp_path / "score.f32", target, 60, *files)
    expected = tt.Calibrator(target, bins=60).fit(score, raters).transform(score)
    assert (tmp_path / "out").read_bytes() == expected.tobytes()


def test_a_score_out_of_range_is_refused_there_too(program, tmp_path):
    tt.Calibrator("none").fit(np.zeros(3), np.zeros((1, 3))).save(tmp_path / "calibrator.json")
    np.array([0, 0.5, 1.5], np.float32).tofile(tmp_path / "score.f32")
    finished = run(
        program, "apply", tmp_path / "out", tmp_path / "score.f32", tmp_path / "calibrator.json"
    )
    assert finished.returncode == 1
    assert "score" in finished.stderr
    assert "1.5" in finished.stderr
    assert not (tmp_path / "out").exists()


def edited(**changes: object) -> str:
    content = {
        "format": "twintrack-calibrator",
        "format_version": 1,
        "knots": {"x": [0.0, 0.5, 1.0], "y": [0.0, 0.25, 1.0]},
        "target": "mhr",
        "rater": None,
        "raters": 3,
        "cases": 1,
        "voxels": 10,
        "region": "all",
        "bins": None,
        "ensemble": None,
        "fitted_on": [{"case": "0a", "score": "1f-20", "patient": "2b", "site": 1}],
    }
    return json.dumps({**content, **changes})


# What breaks a file, and what the message says; True where it is the same message to the letter.
BROKEN = {
    "empty": ("", "not a JSON file (", False),
    "cut off": (edited()[:-9], "not a JSON file (", False),
    "trailing comma": (edited()[:-1] + ",}", "not a JSON file (", False),
    "not UTF-8": ('"\udcff"', "not a JSON file (", False),
    "nested": ("[" * 100_000, "not a JSON file (", False),
    "list": ("[]", "its format is not 'twintrack-calibrator'", True),
    "other format": (edited(format="x"), "its format is not 'twintrack-calibrator'", True),
    "newer": (edited(format_version=2), "this TwinTrack reads up to 1: update TwinTrack", True),
    "version 0": (edited(format_version=0), "format_version is 0; it must be", True),
    "version text": (edited(format_version="1"), "it must be a positive number", False),
    "no knots": (edited(knots=None), "knots must hold the lists of numbers x and y", True),
    "text in knots": (edited(knots={"x": ["0"], "y": [0]}), "knots must hold the lists", True),
    "truth in knots": (edited(knots={"x": [False], "y": [0]}), "knots must hold the lists", True),
    "empty knots": (edited(knots={"x": [], "y": []}), "broken: the map has no knots", True),
    "lengths": (edited(knots={"x": [0, 1], "y": [0]}), "has 2 x values but 1 y values", True),
    "falling x": (edited(knots={"x": [0.5, 0.5], "y": [0, 1]}), "x[1] is 0.5, not above", True),
    "falling y": (edited(knots={"x": [0, 1], "y": [0.5, 0.1]}), "y[1] is 0.1, below", True),
    "outside": (edited(knots={"x": [0, 1], "y": [0, 1.5]}), "y[1] is 1.5, not in [0, 1]", True),
    "target": (edited(target="mean"), "it must be one of mhr, single, hard, majority, none", False),
    "negative": (edited(raters=-1), "raters is -1; it must be a whole number", True),
    "fraction": (edited(cases=1.5), "cases is 1.5; it must be a whole number", True),
    "truth": (edited(cases=True), "it must be a whole number", False),
    "cases": (
        edited(fitted_on=["A"]),
        "fitted_on must be null or a list of objects with case and score",
        True,
    ),
    "score": (edited(fitted_on=[{"case": "0a", "score": 7}]), "fitted_on must be null or", True),
    "patient": (
        edited(fitted_on=[{"case": "0a", "patient": 7}]),
        "fitted_on must be null or",
        True,
    ),
    "bins": (edited(bins=250), "bins ", False),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_as_in_python(program, tmp_path, name):
    text, why, same = BROKEN[name]
    path = tmp_path / "calibrator.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match="calibrator.json: ") as refused:
        tt.load_calibrator(path)
    assert why in str(refused.value)
    np.zeros(1, np.float32).tofile(tmp_path / "score.f32")
    finished = run(program, "apply", tmp_path / "out", tmp_path / "score.f32", path)
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"{path}: ")
    assert why in finished.stderr
    if same:
        assert finished.stderr == f"{refused.value}\n"


def test_a_file_that_is_not_there_is_named(program, tmp_path):
    np.zeros(1, np.float32).tofile(tmp_path / "score.f32")
    path = tmp_path / "absent.json"
    finished = run(program, "apply", tmp_path / "out", tmp_path / "score.f32", path)
    assert finished.returncode == 1
    assert "No such file or directory" in finished.stderr
    assert str(path) in finished.stderr
