"""A method whose map was fitted on cases that are compared: warned of, and marked where it is."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from twintrack.cli.compare import compare
from twintrack.report import build_report, compare_methods, read_results
from twintrack.report import tables as t

ON_TWO = {"same_case": ("case_03",), "other_score": ("case_05", "not compared")}
NAME_OF = {"md": "MHR §", "tex": r"MHR \textsection{}"}

app = typer.Typer()
app.command()(compare)


def with_fitted(methods, name, fitted_on):
    return {**methods, name: replace(methods[name], fitted_on=fitted_on)}


def test_the_page_warns_first_and_marks_the_method_everywhere(tiny, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    methods = with_fitted(tiny, "MHR", ON_TWO)
    comparison = build_report(methods, tmp_path, reference="None", resamples=50)
    assert comparison.fitted_on == {"MHR": {"same_case": ("case_03",), "other_score": ("case_05",)}}
    (warning,) = comparison.warnings()
    assert warning.startswith("MHR: the map was fitted on 1 of these 14 cases (case_03); on cases ")
    page = (tmp_path / "report.html").read_text()
    assert f'<p class="warning"><strong>Warning.</strong> {warning}</p>' in page
    assert page.index(warning) < page.index("What came out")
    rows = '<tr><th scope="row">MHR'
    assert page.count(rows) == page.count(f"{rows} §</th>") == 3  # Tables 1 and 2, differences
    assert '<th scope="col">MHR §</th>' in page  # case by case
    assert "<strong>MHR §</strong> is" in page
    for table in ("table1", "table2"):
        for kind, name in NAME_OF.items():
            text = (tmp_path / f"{table}.{kind}").read_text()
            assert name in text
            assert (
                "fitted on some of these 14 cases, which makes figures too good: MHR on 2" in text
            )
            assert name.replace("MHR", "None") not in text
    with (tmp_path / "table1.csv").open(newline="") as file:
        fitted = {row["method"]: row["cases fitted on"] for row in csv.DictReader(file)}
    assert fitted == {"None": "0", "MHR": "2"}


@pytest.mark.parametrize("fitted_on", [{}, {"same_case": ("not compared",)}])
def test_nothing_is_marked_where_there_is_nothing(methods, fitted_on):
    plain = compare_methods(methods, resamples=20)
    comparison = compare_methods(with_fitted(methods, "MHR", fitted_on), resamples=20)
    assert comparison.warnings() == []
    assert t.markdown(t.mean_table(comparison)) == t.markdown(t.mean_table(plain))
    assert "§" not in t.markdown(t.mean_table(comparison))


def test_what_is_not_known_is_said(tiny, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    comparison = build_report(with_fitted(tiny, "MHR", None), tmp_path, resamples=50)
    assert comparison.warnings() == []
    page = (tmp_path / "report.html").read_text()
    assert "MHR: the calibrator file does not say on which cases the map was fitted" in page
    assert "§" not in page
    with (tmp_path / "table1.csv").open(newline="") as file:
        assert [row["cases fitted on"] for row in csv.DictReader(file)] == ["0", ""]


def write_folder(folder, **summary):
    folder.mkdir()
    (folder / "cases.csv").write_text("case,tdsc\na,0.5\n'-b,0.25\n")
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_the_command_warns(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    folder = write_folder(tmp_path / "ours", method="ours", fitted_on={"same_case": ["'-b"]})
    given = [str(folder), "-o", str(tmp_path / "report"), "--resamples", "10"]
    result = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "warning: ours: the map was fitted on 1 of these 2 cases ('-b). Figures" in result.output
    assert "ours §" in result.output


def test_what_a_folder_says_is_checked(tmp_path):
    known = write_folder(tmp_path / "known", fitted_on={"same_score": ["a"]})
    assert read_results(known)[1].fitted_on == {"same_score": ("a",)}
    assert read_results(known)[1].provenance == {}
    assert read_results(write_folder(tmp_path / "null", fitted_on=None))[1].fitted_on is None
    assert read_results(write_folder(tmp_path / "earlier"))[1].fitted_on == {}
    with pytest.raises(ValueError, match=r"summary\.json: fitted_on must be null or an object"):
        read_results(write_folder(tmp_path / "wrong", fitted_on=["a"]))
