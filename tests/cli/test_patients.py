"""Patients of several cases, from the manifest or --group to the tables of compare."""

from __future__ import annotations

import csv
import json

import pytest

from twintrack import load_calibrator
from twintrack.calibration.fitted_on import FittedCase, patients_among
from twintrack.cohort import read_manifest, write_manifest

PHANTOMS = [f"PHANTOM_0000{k}" for k in range(6)]


@pytest.fixture(scope="module")
def visits(pristine_cohort, tmp_path_factory):
    """Two manifests of three patients with two cases each: by a column, and by the names alone."""
    import dataclasses

    folder = tmp_path_factory.mktemp("visits")
    cases = read_manifest(pristine_cohort / "manifest.csv")
    named = [
        dataclasses.replace(case, name=f"P{k // 2}_{k % 2}", patient=f"P{k // 2}")
        for k, case in enumerate(cases)
    ]
    write_manifest(folder / "column.csv", named)
    plain = [dataclasses.replace(case, patient=None) for case in named]
    write_manifest(folder / "names.csv", plain)
    return folder


def run(twintrack, *arguments):
    status, out, err = twintrack(*arguments)
    assert status == 0, err
    return out, err


def test_a_pattern_is_as_good_as_a_column(twintrack, visits, tmp_path):
    """All of a fit: the map, its bins, the maps of the other patients, and a refit."""
    fits = {
        "column": ("-i", visits / "column.csv"),
        "names": ("-i", visits / "names.csv", "--group", "{patient}_{k}"),
        "stored": ("--tallies", tmp_path / "column.tallies"),
    }
    more = ("--bins", "auto", "--folds", "3", "--group", "{patient}_*")
    run(twintrack, "fit", "-i", visits / "names.csv", "-o", tmp_path / "without.json")
    fits["by a pattern alone"] = ("--tallies", tmp_path / "without.tallies", *more)
    made = {}
    for name, source in fits.items():
        left_out = tmp_path / f"{name} left out"
        given = (*source, "--leave-one-out", left_out, *more[:4])
        out, _ = run(twintrack, "fit", *dict.fromkeys(given), "-o", tmp_path / f"{name}.json")
        assert "6 of 3 patients" in out
        made[name] = [(tmp_path / f"{name}.json").read_text()]
        made[name] += [path.read_text() for path in sorted(left_out.iterdir())]
        assert len(made[name]) == 7
    assert made["column"] == made["names"] == made["stored"] == made["by a pattern alone"]
    others = load_calibrator(tmp_path / "column left out" / "P1_0.json").fitted_on_
    assert patients_among(others) == 2
    assert all(case.patient != FittedCase.named("P1").case for case in others)


def test_one_patient_is_too_few_for_what_compares_patients(twintrack, visits, tmp_path):
    source = ("-i", visits / "column.csv", "--only", "P0_*", "-o", tmp_path / "c.json")
    for option in (("--bins", "auto"), ("--band", tmp_path / "b"), ("--leave-one-out", tmp_path)):
        status, _, err = twintrack("fit", *source, *option)
        assert status == 2
        assert f"{option[0]}{' auto' * (option[1] == 'auto')} compares patients, so it needs" in err
        assert "at least two, here 1" in " ".join(err.split())
    assert not (tmp_path / "c.tallies").exists()


def test_names_that_do_not_fit_are_told_before_the_work(twintrack, visits, tmp_path):
    for source, group, message in [
        ("names.csv", "{patient}x", "6 of 6 cases do not fit it (P0_0, P0_1, P0_2, …)"[:24]),
        ("column.csv", "{patient}_*", "has a column patient, which tells the patients"),
        ("names.csv", "P*", "group is 'P*'; it needs {patient} once"),
    ]:
        for command in ("fit", "evaluate"):
            given = ("-i", visits / source, "-o", tmp_path / "out", "--group", group)
            status, _, err = twintrack(command, *given, "-q")
            assert (status, message in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_evaluate_warns_and_compare_draws_patients(twintrack, visits, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    fit = ("-i", visits / "column.csv", "--only", "*_0", "-o", tmp_path / "c.json")
    run(twintrack, "fit", *fit)
    model = ("-m", tmp_path / "c.json")
    _, err = run(
        twintrack, "evaluate", "-i", visits / "column.csv", "--only", "*_1", "-o",
        tmp_path / "other visits", *model,
    )  # fmt: skip
    assert "cases of the patients of 3 of these 3 cases (P0_1, P1_1, P2_1)" in " ".join(err.split())
    summary = json.loads((tmp_path / "other visits" / "summary.json").read_text())
    assert summary["fitted_on"] == {"same_patient": ["P0_1", "P1_1", "P2_1"]}

    tables = {}
    for name in ("column", "names"):
        folders = [tmp_path / f"{name} {kind}" for kind in ("none", "map")]
        for folder, more in zip(folders, ((), model), strict=True):
            run(twintrack, "evaluate", "-i", visits / f"{name}.csv", "-o", folder, *more)
        group = ("--group", "{patient}_{k}") if name == "names" else ()
        out, _ = run(
            twintrack, "compare", *folders, "-o", tmp_path / name, "--resamples", "50", *group
        )
        assert "50 resamples of 6 cases of 3 patients" in " ".join(out.split())
        tables[name] = (tmp_path / name / "table2.csv").read_text()
        assert "as here with 3: bootstrap intervals are too narrow" in (
            tmp_path / name / "report.html"
        ).read_text().replace("\n", " ")
    assert tables["column"] == tables["names"]
    rows = list(csv.DictReader(tables["column"].splitlines()))
    assert {(row["cases"], row["patients"]) for row in rows if row["metric"] == "ece"} == {
        ("6", "3")
    }
    # The same results one case by one: other intervals, and no word of patients.
    folders = [tmp_path / f"names {kind}" for kind in ("none", "map")]
    run(twintrack, "compare", *folders, "-o", tmp_path / "cases", "--resamples", "50")
    assert "patients" not in (tmp_path / "cases" / "table2.csv").read_text().splitlines()[0]
    mixed = (tmp_path / "column none", tmp_path / "names map")
    run(twintrack, "compare", *mixed, "-o", tmp_path / "mixed", "--resamples", "50")
    assert (tmp_path / "mixed" / "table2.csv").read_text() == tables["column"]
