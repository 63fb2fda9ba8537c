"""The whole report: every file, the same bytes twice, and a page that is safe and complete."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from folders import content

from twintrack.report import MapPlot, MethodResults, build_report

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
from twintrack.report import figures

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails where tags do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.cells = [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def page_of(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_every_file_is_written_and_the_same_twice(methods, example, tmp_path):
    methods = {name: methods[name] for name in ("None", "MHR")}
    for results in methods.values():
        for key in ("ece", "crps", "vi_PORTA"):
            del results.values[key]
    knots = np.array([0.1, 0.5, 0.9])
    plot = MapPlot("MHR", knots, knots**2, bins=(knots, np.array([100, 10, 5])))
    folders = tmp_path / "one", tmp_path / "deep" / "two"
    for folder in folders:
        build_report(methods, folder, resamples=50, maps=[plot], examples=[example])
    files = content(folders[0])
    names = {f"table{i}.{kind}" for i in (1, 2) for kind in ("md", "tex", "csv")}
    names |= {"report.html", "table2_further.md", "table2_further.tex"}
    figures = ("reliability", "map", "qualitative", "intervals", "paired")
    names |= {f"figures/{name}.{kind}" for name in figures for kind in ("svg", "png")}
    assert set(files) == names
    assert files == content(folders[1])


def check_that_the_page_stands_alone(page):
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value for name, value in page.attributes if name == "alt")


def test_the_page_says_what_was_compared(methods, tmp_path):
    methods["Hard-label"] = replace(
        methods["Hard-label"], failures={"case_99": "gzip is truncated"}
    )
    comparison = build_report(
        methods,
        tmp_path,
        resamples=50,
        title="LIDC",
        introduction="The ensemble is simulated.\n\nTwo.",
    )
    page = page_of(tmp_path)
    for text in ("LIDC", "The ensemble is simulated.", "protocol: official", "reference: MHR",
                 "gzip is truncated", "no PORTA in the label map", "resamples: 50"):  # fmt: skip
        assert text in page.text
    assert "15 differences were looked at, each by itself: about 0.75 of them" in page.text
    assert "too narrow" not in page.text
    assert "1 of 14 cases do not count (case_05)" in " ".join(page.text.split())
    for name, results in methods.items():
        assert name in page.cells
        assert f"{results.values['tdsc'][3]:.3f}" in page.cells
    check_that_the_page_stands_alone(page)
    crps = comparison.intervals.mean[1, 2]
    assert any(cell.startswith(f"{crps:.0f}") for cell in page.cells)


EVIL = '<script>alert("1")</script>&amp;\'"><img src=x onerror=alert(1)>{{ 7*7 }}'


def test_names_cannot_become_markup(methods, tmp_path):
    case = EVIL + " case"
    results = {
        EVIL: MethodResults(
            (case, "b"),
            {EVIL + "_metric": np.array([1.0, 2.0]), "tdsc": np.array([0.5, 0.25])},
            notes={case: EVIL + " note"},
            failures={EVIL + " failed": EVIL + " reason"},
            provenance={EVIL + " key": EVIL + " value", "list": list(range(50))},
        )
    }
    build_report(
        results, tmp_path, resamples=10, title=EVIL + " title", introduction=EVIL + " intro"
    )
    page = page_of(tmp_path)
    check_that_the_page_stands_alone(page)
    for what in ("case", "note", "failed", "reason", "key", "value", "title", "intro"):
        assert f"{EVIL} {what}" in page.text
    assert "49" not in page.cells
    assert "50 entries" in page.cells


def test_optional_parts_are_left_out(tmp_path):
    results = {"only": MethodResults(("a",), {"tdsc": np.array([0.5])})}
    comparison = build_report(results, tmp_path, resamples=10)
    assert np.isnan(comparison.intervals.low).all()
    page = page_of(tmp_path)
    for heading in ("Calibration", "Examples", "Paired differences", "Further metrics"):
        assert heading not in page.text.replace("Calibration methods compared", "")
    assert "None: every case has every metric" in page.text
    assert not (tmp_path / "figures" / "reliability.svg").exists()


def test_parts_of_an_earlier_report_do_not_stay(tiny, example, tmp_path):
    build_report(tiny, tmp_path, resamples=10, examples=[example])
    assert (tmp_path / "figures" / "qualitative.png").exists()
    (tmp_path / "mine.txt").write_text("keep")
    build_report(tiny, tmp_path, resamples=10)
    names = set(content(tmp_path))
    assert "mine.txt" in names
    assert not {"figures/qualitative.png", "figures/qualitative.svg"} & names


def test_examples_of_the_reference_are_shown_by_default(tiny, example, tmp_path):
    other = replace(example, score=example.mhr)
    tiny["None"] = replace(tiny["None"], examples=[other])
    tiny["MHR"] = replace(tiny["MHR"], examples=[example])
    for reference, shown in (("MHR", example), ("None", other)):
        build_report(tiny, tmp_path, resamples=10, reference=reference)
        drawn = figures.png(figures.qualitative_figure([shown]))
        assert (tmp_path / "figures" / "qualitative.png").read_bytes() == drawn


def test_what_a_fit_noted_of_its_map_is_in_the_report(tiny, tmp_path):
    warning = "250 bins may be too few: <b> & more"
    made_of = {"target": "mhr", "facts": {"top": 0.91, "line": "▁▂█", "warnings": [warning]}}
    tiny["MHR"] = replace(tiny["MHR"], provenance={"calibrator": made_of})
    build_report(tiny, tmp_path, resamples=50)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "MHR: 250 bins may be too few: &lt;b&gt; &amp; more." in page
    assert "▁▂█" in page
    for damaged in ({"facts": None}, {"facts": {"warnings": 3}}, {"facts": {"warnings": [3]}}, 7):
        tiny["MHR"] = replace(tiny["MHR"], provenance={"calibrator": damaged})
        build_report(tiny, tmp_path, resamples=50)
        assert "too few" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_few_cases_are_cautioned(tiny, tmp_path):
    few = {
        name: MethodResults(r.cases[:4], {"tdsc": r.values["tdsc"][:4]}) for name, r in tiny.items()
    }
    build_report(few, tmp_path, resamples=10)
    page = page_of(tmp_path).text
    assert "With fewer than 6 cases, as here with 4: no difference can be flagged." in page
    assert "With fewer than 10 cases, as here with 4: bootstrap intervals are too narrow." in page


def test_long_cohorts_show_the_cases_that_differ_most(tmp_path):
    cases = tuple(f"c{i:04d}" for i in range(700))
    base = np.linspace(0, 0.5, 700)
    other = base + np.where(np.arange(700) >= 300, 0.2, 0.0)
    methods = {n: MethodResults(cases, {"tdsc": v}) for n, v in (("a", base), ("b", other))}
    build_report(methods, tmp_path, resamples=10)
    page = page_of(tmp_path)
    assert "the 500 cases that differ most" in page.text
    assert "c0699" in page.cells
    assert "c0099" in page.cells  # the first of the equal ones fill the rest
    assert "c0299" not in page.cells


def test_nothing_is_written_when_the_methods_cannot_be_compared(methods, tmp_path):
    with pytest.raises(ValueError, match="reference"):
        build_report(methods, tmp_path / "out", reference="nobody")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_named_and_tables_work_without(missing, tmp_path):
    code = f"""
import sys
sys.modules[{missing!r}] = None
import numpy as np
from pathlib import Path
from twintrack.report import MethodResults, build_report, compare_methods
from twintrack.report.tables import markdown, mean_table
methods = {{"a": MethodResults(("x", "y"), {{"tdsc": np.array([0.5, 0.7])}})}}
assert "TDSC" in markdown(mean_table(compare_methods(methods)))
try:
    build_report(methods, Path({str(tmp_path / "out")!r}))
except ImportError as error:
    assert "pip install 'twintrack[report]'" in str(error), error
else:
    raise AssertionError("no ImportError")
assert not Path({str(tmp_path / "out")!r}).exists()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
