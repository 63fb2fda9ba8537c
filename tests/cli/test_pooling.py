"""Two hospitals fit one map: ``twintrack share``, and ``fit`` with several ``--tallies``."""

from __future__ import annotations

import csv
import dataclasses
import json

import pytest

from twintrack.calibration.fitted_on import FittedCase
from twintrack.cohort import read_manifest, write_manifest


@pytest.fixture(scope="module")
def hospitals(pristine_cohort, tmp_path_factory):
    """Stores of two hospitals that number cases alike, of both together, and a copy of one."""
    from twintrack.cli import main

    folder = tmp_path_factory.mktemp("hospitals")
    cases = read_manifest(pristine_cohort / "manifest.csv")
    for name, some in (("ulm", cases[:3]), ("graz", cases[3:])):
        alike = [dataclasses.replace(case, name=f"case{k}") for k, case in enumerate(some)]
        write_manifest(folder / f"{name}.csv", alike)
        write_manifest(folder / f"{name} renamed.csv", some)
    write_manifest(folder / "both.csv", cases)
    for name in ("ulm", "graz", "ulm renamed", "graz renamed", "both"):
        with pytest.raises(SystemExit, match="0"):
            main(
                ["fit", "-q", "-i", str(folder / f"{name}.csv"), "-o", str(folder / f"{name}.json")]
            )
    with pytest.raises(SystemExit, match="0"):
        main([
            "share", "-q", str(folder / "graz.tallies"), "-o", str(folder / "from graz"),
            "--site", "GRAZ",
        ])  # fmt: skip
    return folder


def stores(folder, *given):
    found = []
    for text in given:
        name, sign, store = text.rpartition("=")
        found += ["--tallies", f"{name}{sign}{folder / store}"]
    return found


def run(twintrack, *arguments):
    status, out, err = twintrack(*arguments)
    assert status == 0, err
    return out, err


def knots(path):
    return json.loads(path.read_text())["knots"]


def test_the_pooled_map_is_that_of_all_cases(twintrack, hospitals, tmp_path):
    made = (tmp_path / "c.json", tmp_path / "others", tmp_path / "b.csv")
    options = ("--bins", "auto", "--leave-one-out", made[1], "--band", made[2], "-o", made[0])
    given = stores(hospitals, "ulm renamed.tallies", "graz renamed.tallies")
    run(twintrack, "fit", *given, *options)
    pooled = [made[0].read_bytes(), made[2].read_bytes()]
    pooled += [path.read_bytes() for path in sorted(made[1].iterdir())]
    assert len(pooled) == 8
    run(twintrack, "fit", *stores(hospitals, "both.tallies"), *options)
    whole = [made[0].read_bytes(), made[2].read_bytes()]
    assert pooled == whole + [path.read_bytes() for path in sorted(made[1].iterdir())]


def test_names_tell_hospitals_apart(twintrack, hospitals, tmp_path):
    given = stores(hospitals, "ulm.tallies", "graz.tallies")
    status, _, err = twintrack("fit", *given, "-o", tmp_path / "c.json")
    assert status == 2
    assert "case 'case0': it is in" in err
    assert f"--tallies A={hospitals / 'ulm.tallies'}" in err.replace("\n", "")
    given = stores(hospitals, "ulm=ulm.tallies", "graz=graz.tallies")
    others = tmp_path / "others"
    run(twintrack, "fit", *given, "-o", tmp_path / "c.json", "--leave-one-out", others)
    assert knots(tmp_path / "c.json") == knots(hospitals / "both.json")
    assert sorted(p.relative_to(others).as_posix() for p in others.rglob("*.json")) == [
        f"{name}/case{k}.json" for name in ("graz", "ulm") for k in range(3)
    ]
    only = ("--only", "ulm/*", "-o", tmp_path / "ulm.json")
    run(twintrack, "fit", *given, *only)
    assert knots(tmp_path / "ulm.json") == knots(hospitals / "ulm.json")
    # Each hospital is warned when it measures the map on its own cases.
    for name, kinds in (("ulm", {"same_case"}), ("graz", {"same_case"})):
        out = tmp_path / f"measured at {name}"
        source = ("-i", hospitals / f"{name}.csv", "-m", tmp_path / "c.json")
        run(twintrack, "evaluate", *source, "-o", out)
        assert set(json.loads((out / "summary.json").read_text())["fitted_on"]) == kinds


def test_a_copy_without_names_is_as_good(twintrack, hospitals, tmp_path):
    given = stores(hospitals, "ulm.tallies", "from graz")
    run(twintrack, "fit", *given, "-o", tmp_path / "c.json")
    assert knots(tmp_path / "c.json") == knots(hospitals / "both.json")
    with (hospitals / "from graz.key.csv").open(newline="") as file:
        key = {row["name"]: row["shared"] for row in csv.DictReader(file)}
    known = {one["case"] for one in json.loads((tmp_path / "c.json").read_text())["fitted_on"]}
    assert known >= {FittedCase.named(shared).case for shared in key.values()}
    # At home they are known again by their scores.
    source = ("-i", hospitals / "graz.csv", "-m", tmp_path / "c.json", "-o", tmp_path / "out")
    _, err = run(twintrack, "evaluate", *source)
    assert "on the scores of 3 of these 3 cases, under other names" in " ".join(err.split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a=ulm.tallies", "a=graz.tallies"), "--tallies a= is given twice"),
        (("ulm.tallies", "b=ulm.tallies"), "ulm.tallies twice"),
        ((".a=ulm.tallies",), "'.a' cannot be used as a file name"),
        (("a=nowhere",), "nowhere: no such folder"),
    ],
)
def test_stores_that_cannot_be_meant(twintrack, hospitals, tmp_path, given, message):
    status, _, err = twintrack("fit", *stores(hospitals, *given), "-o", tmp_path / "c.json")
    assert (status, message in " ".join(err.split())) == (2, True), err


def test_a_folder_whose_name_has_a_sign_of_equality(twintrack, hospitals, tmp_path, monkeypatch):
    (tmp_path / "a=b.tallies").symlink_to(hospitals / "ulm.tallies")
    monkeypatch.chdir(tmp_path)
    run(twintrack, "fit", "--tallies", "a=b.tallies", "-o", "c.json")
    assert knots(tmp_path / "c.json") == knots(hospitals / "ulm.json")
