"""``twintrack compare`` on result folders as they lie on disk."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from twintrack.cli.compare import compare
from twintrack.report import write_example

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

app = typer.Typer()
app.command()(compare)


def write_folder(folder, name, results, skip=()):
    folder.mkdir(parents=True)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *results.values, "notes"])
        for i, case in enumerate(results.cases):
            if case not in skip:
                row = [repr(float(column[i])) for column in results.values.values()]
                writer.writerow([case, *row, results.notes.get(case, "")])
    curve = results.reliability
    means = {
        key: [None if np.isnan(x) else x for x in getattr(curve, key).tolist()]
        for key in ("mean_score", "mean_mhr")
    }
    summary = {"method": name, "reliability": {"bin_count": curve.bin_count.tolist(), **means}}
    (folder / "summary.json").write_text(json.dumps(summary | dict(results.provenance)))
    if skip:
        (folder / "failures.csv").write_text(f"case,reason\n{skip[0]},truncated\n")


@pytest.fixture
def folders(methods, example, tmp_path):
    methods = {name: methods[name] for name in ("None", "Single-rater", "MHR")}
    for results in methods.values():
        for key in ("crps", "brier"):
            del results.values[key]
    for name, results in methods.items():
        skip = ("case_02",) if name == "None" else ()
        write_folder(tmp_path / name, name, results, skip)
    (tmp_path / "MHR" / "examples").mkdir()
    write_example(tmp_path / "MHR" / "examples" / "case_03.npz", example)
    return [str(tmp_path / name) for name in methods]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_folders_become_a_report(folders, tmp_path):
    out = tmp_path / "out"
    result = run(*folders, "-o", out, "--resamples", 100, "--interval", "bca", "--title", "My run",
                 "--reference", "Single-rater", "--seed", 7, "--rule", "interval")  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in ("TDSC ↑", "Single-rater", "left out: case_02 (None: truncated)", "report.html"):
        assert text in result.output
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("<title>My run</title>", "reference: Single-rater", "seed: 7", "95%, bca"):
        assert text in page
    assert (out / "figures" / "qualitative.svg").exists()
    with (out / "table2.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["cases"] for row in rows} == {"13", "12"}
    assert {row["rule"] for row in rows} == {"interval"}
    assert "the paper's rule alone" in " ".join(result.output.split())


def test_methods_are_called_as_asked_for(folders, tmp_path):
    named = [part for name in "xyz" for part in ("--method", name)]
    result = run(*folders, "-o", tmp_path / "out", "--resamples", 10, *named, "--reference", "y")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "table2.csv").open(encoding="utf-8") as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"x", "y", "z"}


def test_bad_options_are_refused(folders, tmp_path):
    assert run(*folders, "-o", tmp_path / "out", "--resamples", 0).exit_code == 2
    assert run(*folders, "-o", tmp_path / "out", "--interval", "basic").exit_code == 2
    assert run(*folders, "-o", tmp_path / "out", "--rule", "paper").exit_code == 2
    assert run("-o", tmp_path / "out").exit_code == 2
    result = run(tmp_path / "nowhere", "-o", tmp_path / "out")
    assert isinstance(result.exception, FileNotFoundError)
    assert not (tmp_path / "out").exists()
