"""``twintrack study``: answers in a sentence, a page, CSVs and figures; the same bytes twice."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser

import pytest
from folders import content
from study_stores import names, write_store

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

PICTURES = ("bins", "learning", "sizes")
TABLES = ("methods", "bins", "learning", "transfer", "regions", "sizes")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder / "<b>A", *names(32), regions=("all", "roi"))
    write_store(folder / "other", *names(24, 16), slope=1.0, shift=0.0)
    write_store(folder / "roi", *names(16), regions=("roi",))
    return folder


def study(twintrack, output, *stores, status=0):
    named = [part for store in stores for part in ("--tallies", store)]
    code, out, err = twintrack("study", *named, "-o", output, "--splits", 2)
    assert code == status, err
    return out, err


def test_two_cohorts(twintrack, stores, tmp_path):
    out, err = study(twintrack, tmp_path / "a", stores / "<b>A", f"B={stores / 'other'}")
    assert "ece" in err  # what the region cannot give
    files = content(tmp_path / "a")
    assert set(files) == {
        "study.html",
        *(f"{key}.csv" for key in TABLES),
        *(f"figures/{key}.{kind}" for key in PICTURES for kind in ("svg", "png")),
    }
    page = files["study.html"].decode()
    assert "<b>A" not in page
    assert "&lt;b&gt;A" in page
    for title in ("Which method?", "How many bins?", "How many patients are enough?"):
        line = next(line for line in out.splitlines() if line.startswith(title))
        assert line.removeprefix(title).strip() in page
    rows = list(csv.DictReader(files["transfer.csv"].decode().splitlines()))
    assert [row["measured on: map"] for row in rows[2:4]] == [
        "<b>A: map of B",
        "<b>A: map of B, updated by 5 patients of <b>A",
    ]
    assert all(0 < float(row["brier"]) < 1 for row in rows)
    study(twintrack, tmp_path / "b", stores / "<b>A", f"B={stores / 'other'}")
    assert content(tmp_path / "b") == files


def test_the_page_has_every_figure_of_the_tables(twintrack, stores, tmp_path):
    study(twintrack, tmp_path, stores / "<b>A")

    class Cells(HTMLParser):
        def __init__(self, text):
            super().__init__()
            self.found, self.inside = [], False
            self.feed(text)

        def handle_starttag(self, tag, attrs):
            self.inside = tag in ("td", "th")

        def handle_data(self, data):
            if self.inside:
                self.found.append(data)

    cells = Cells((tmp_path / "study.html").read_text(encoding="utf-8")).found
    rows = list(csv.DictReader((tmp_path / "methods.csv").read_text().splitlines()))
    for row in rows:
        at = cells.index(row["method"])
        assert float(cells[at + 1]) == pytest.approx(1e3 * float(row["brier"]), rel=0.01, abs=0.1)
    more = rows[-1]
    assert more["method"] == "One more rater"
    assert more["tdsc"] == ""
    assert cells[cells.index("One more rater") + 2] == "–"


def test_an_earlier_study_with_more_to_show_is_cleared_away(twintrack, stores, tmp_path):
    study(twintrack, tmp_path, stores / "<b>A", stores / "other")
    out, err = study(twintrack, tmp_path, stores / "roi")
    assert not (tmp_path / "transfer.csv").exists()
    assert not (tmp_path / "figures/sizes.png").exists()
    assert "not answered: name a second store" in out
    assert "tdsc" in err
    head = (tmp_path / "methods.csv").read_text().splitlines()[0].split(",")
    assert "brier" in head
    assert "tdsc" not in head


def test_json_lines_have_the_answers(twintrack, stores, tmp_path):
    code, out, err = twintrack(
        "study", "--tallies", stores / "roi", "-o", tmp_path, "--log-json", "--splits", 1
    )
    result = next(one for one in map(json.loads, err.splitlines()) if one["event"] == "result")
    assert (code, out) == (0, "")
    assert set(result["answers"]) == {"methods", "bins", "learning"}


def test_what_cannot_be_studied(twintrack, stores, tmp_path):
    three = [stores / name for name in ("<b>A", "other", "roi")]
    _, err = study(twintrack, tmp_path / "out", *three, status=2)
    assert "--tallies is given 3 times" in err
    _, err = study(twintrack, tmp_path / "out", stores / "<b>A", stores / "roi", status=2)
    assert "--region" in err
    _, err = study(twintrack, tmp_path / "out", stores / "none", status=2)
    assert "no such folder" in err
    assert not (tmp_path / "out").exists()


def test_chosen_cases_and_patients_by_name(twintrack, stores, tmp_path):
    arguments = ("study", "--tallies", stores / "roi", "-o", tmp_path, "--splits", 1)
    code, _, err = twintrack(*arguments, "--only", "c00*", "--without", "c009")
    assert code == 0, err
    assert "9 cases of 5 patients" in (tmp_path / "study.html").read_text(encoding="utf-8")
    code, _, err = twintrack(*arguments, "--only", "c000")
    assert (code, "needs at least" in err) == (2, True)
