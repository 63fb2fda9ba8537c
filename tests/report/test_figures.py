"""Figures: they show the numbers they are given, on honest axes, and never touch pyplot."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from twintrack.report import Example, MapPlot, MethodResults, Reliability, compare_methods

mpl = pytest.importorskip("matplotlib")
from twintrack.report import figures as f  # noqa: E402


def data(line):
    return np.column_stack(line.get_data())


@pytest.fixture
def comparison(methods):
    return compare_methods(methods, resamples=100)


def test_reliability_shows_the_curve_and_breaks_at_empty_bins(methods):
    curves = {name: results.reliability for name, results in methods.items()}
    top, bottom = f.reliability_figure(curves, "MHR").axes
    diagonal, first, *_ = top.lines
    np.testing.assert_array_equal(data(diagonal), [[0, 0], [1, 1]])
    curve = curves["None"]
    np.testing.assert_array_equal(data(first)[:47, 1], curve.mean_mhr[:47])
    assert np.isnan(data(first)[47:]).all()
    # Both axes from 0 to 1, equally long: else the diagonal would mislead.
    assert top.get_xlim() == top.get_ylim() == (0, 1)
    assert top.get_aspect() == 1
    assert bottom.get_yscale() == "log"
    assert bottom.get_ylim()[0] < 1
    for stairs, curve in zip(bottom.patches, curves.values(), strict=True):
        counts, edges, _ = stairs.get_data()
        np.testing.assert_array_equal(counts[:47], curve.bin_count[:47])
        assert np.isnan(counts[47:]).all()
        np.testing.assert_allclose(edges, np.arange(51) / 50)
    labels = [text.get_text() for text in top.get_legend().get_texts()]
    assert labels == ["perfect calibration", *methods]


def test_intervals_show_table_2(comparison):
    j = [metric.key for metric in comparison.metrics].index("crps")
    (axes,) = f.interval_figure(comparison, [comparison.metrics[j]]).axes
    bars = [
        line
        for line in axes.lines
        if len(line.get_xdata()) == 2 and len(set(line.get_ydata())) == 1
    ]
    shown = np.array([line.get_xdata() for line in bars])
    np.testing.assert_array_equal(shown[:, 0], comparison.intervals.low[:, j])
    np.testing.assert_array_equal(shown[:, 1], comparison.intervals.high[:, j])
    points = np.array([data(line)[0] for line in axes.lines if len(line.get_xdata()) == 1])
    np.testing.assert_array_equal(points[:, 0], comparison.intervals.mean[:, j])
    np.testing.assert_array_equal(points[:, 1], range(4))
    (dashed,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert set(dashed.get_xdata()) == {comparison.intervals.mean[3, j]}  # of the reference, MHR
    # The first method is at the top, as in the table.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    flags = [text.get_text() for text in axes.texts]
    assert flags == [
        {"worse": "†", "better": "‡", "equal": "", None: ""}[comparison.verdict(i, j)]
        * (1 + comparison.holds_among(i, j))
        for i in range(4)
    ]


def test_pairs_show_every_case_and_the_medians(comparison):
    j = [metric.key for metric in comparison.metrics].index("vi_PORTA")
    (axes,) = f.paired_figure(comparison, [comparison.metrics[j]]).axes
    values = comparison.values[:, :, j]
    complete = values[~np.isnan(values).any(axis=1)]
    assert len(complete) == 13
    lines = np.array(axes.collections[0].get_segments())
    np.testing.assert_array_equal(lines[:, :, 0], complete)
    np.testing.assert_array_equal(lines[0, :, 1], range(4))
    medians = {line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 2.6}
    assert medians == set(np.median(complete, axis=0))
    assert axes.get_xscale() == "linear"


def test_pairs_are_logarithmic_only_for_positive_values_of_a_wide_range(methods):
    methods["None"].values["crps"][0] = 1.0
    comparison = compare_methods(methods, resamples=20)
    scale_of = {
        metric.key: axes.get_xscale()
        for metric, axes in zip(
            comparison.metrics, f.paired_figure(comparison, columns=3).axes, strict=False
        )
    }
    assert scale_of["crps"] == "log"
    assert scale_of["tdsc"] == scale_of["vi_PORTA"] == "linear"


def test_a_method_without_a_metric_keeps_its_row(methods):
    del methods["None"].values["crps"]
    comparison = compare_methods(methods, resamples=20)
    metric = next(metric for metric in comparison.metrics if metric.key == "crps")
    for draw in (f.paired_figure, f.interval_figure):
        figure = draw(comparison, [metric])
        assert f.svg(figure)
        labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert labels == list(methods)


def test_map_is_constant_beyond_its_knots_and_its_mass_adds_up():
    score, value = np.array([0.01, 0.2, 0.6, 0.9]), np.array([0.0, 0.1, 0.4, 0.8])
    voxels = np.array([1000, 500, 500, 250])
    grid = np.linspace(0, 1, 11)
    plot = MapPlot("MHR", score, value, (grid, grid * 0.8, grid), (score, voxels))
    top, bottom = f.map_figure([plot]).axes
    line = data(top.lines[1])
    np.testing.assert_array_equal(line[0], [0, 0])
    np.testing.assert_array_equal(line[-1], [1, 0.8])
    assert top.get_xlim() == top.get_ylim() == (0, 1)
    (band,) = (found for found in top.collections if found.get_alpha() == 0.22)
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert {(x, x) for x in grid} | {(x, x * 0.8) for x in grid} <= corners
    assert bottom.patches[0].get_data().values.sum() == pytest.approx(voxels.sum())
    assert bottom.get_yscale() == "log"
    assert len(f.map_figure([MapPlot("MHR", score, value)]).axes) == 1


def test_bins_meet_halfway_between_their_mean_scores():
    knots = np.array([0.0, 1.0])
    plot = MapPlot("m", knots, knots, bins=(np.array([0.2, 0.6]), np.array([1000, 300])))
    mass, edges = plot.mass(10)
    np.testing.assert_allclose(mass, [250] * 4 + [50] * 6)
    np.testing.assert_allclose(edges, np.arange(11) / 10)


def test_a_map_that_makes_no_sense_is_refused():
    knots = np.array([0.1, 0.2])
    with pytest.raises(ValueError, match="knots of map 'm': shapes"):
        MapPlot("m", knots, knots[:1])
    with pytest.raises(ValueError, match="bins of map 'm': scores are not ascending"):
        MapPlot("m", knots, knots, bins=(knots[::-1], np.array([1, 2])))


def test_examples_share_one_colour_bar_from_0_to_1(example):
    plain = replace(example, background=None, calibrated=None)
    figure = f.qualitative_figure([example, plain])
    *panels, bar = figure.axes
    assert len(panels) == 6
    assert bar.get_xlim() == (0, 1)
    overlays = [axes.images[-1] for axes in panels if axes.images]
    assert {image.get_clim() for image in overlays} == {(0, 1)}
    np.testing.assert_array_equal(overlays[0].get_array(), example.mhr)
    # The image shows through where raters and score expect nothing.
    alpha = overlays[0].get_alpha()
    assert alpha[example.mhr == 0].max() == 0
    assert panels[0].get_aspect() == pytest.approx(0.8)
    assert panels[5].texts[0].get_text() == "not available"
    assert f.png(figure, dpi=30)[:4] == b"\x89PNG"


def test_flat_examples_can_be_drawn():
    # No contour exists in a constant image, nor in one of a single row.
    flat = np.zeros((1, 5), np.float32)
    assert f.svg(f.qualitative_figure([Example("a", "z", flat, flat + 1, (1.0, 1.0))]))
    square = np.zeros((4, 4), np.float32)
    assert f.svg(f.qualitative_figure([Example("a", "z", square, square + 1, (1.0, 1.0))]))


def test_svg_is_well_formed_undated_and_the_same_twice(comparison):
    first, again = (f.svg(f.paired_figure(comparison, comparison.metrics[:2], 2)) for _ in range(2))
    assert first == again
    ElementTree.fromstring(first)
    assert b"<dc:date>" not in first
    pixels = [
        f.png(f.interval_figure(comparison, comparison.metrics[:1]), dpi=50) for _ in range(2)
    ]
    assert pixels[0] == pixels[1]


def test_names_are_drawn_as_they_are():
    # $ starts mathematics, _ hides from legends, and some scripts are not in the font.
    names = [r"$\frac{1}{0$", "_hidden", "多名专家", "a\nb", "x" * 300, ""]
    curve = Reliability(np.array([5, 5]), np.array([0.2, 0.8]), np.array([0.1, 0.9]))
    figure = f.reliability_figure(dict.fromkeys(names, curve), "_hidden")
    assert f.svg(figure)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(labels) == 7
    assert max(len(label) for label in labels) < 70
    values = {"tdsc": np.array([0.1, 0.5, 0.2])}
    methods = {name: MethodResults(("a", "b", "c"), values) for name in names}
    assert f.svg(f.paired_figure(compare_methods(methods, "_hidden", resamples=10)))


def test_many_cases_do_not_make_a_heavy_svg():
    rng = np.random.default_rng(0)
    cases = tuple(f"c{i}" for i in range(2000))
    methods = {n: MethodResults(cases, {"tdsc": rng.random(2000)}) for n in ("a", "b")}
    assert len(f.svg(f.paired_figure(compare_methods(methods, resamples=10)))) < 500_000


def test_colours_are_distinct_and_the_reference_keeps_its_own():
    names = ["a", "b", "c", "d", "e", "f", "g"]
    colours = f.method_colours(names, "c")
    assert len(set(colours.values())) == 7
    assert colours["c"] == f.method_colours(["c", "x"], "c")["c"]


def test_nothing_to_draw_is_refused(comparison):
    for draw in (f.map_figure, f.qualitative_figure, lambda x: f.interval_figure(comparison, x)):
        with pytest.raises(ValueError, match="to draw"):
            draw([])
    with pytest.raises(ValueError, match="to draw"):
        f.reliability_figure({})


def test_settings_of_the_user_are_left_alone_and_do_not_matter(comparison):
    metric = comparison.metrics[:1]
    plain = f.svg(f.interval_figure(comparison, metric))
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert f.svg(f.interval_figure(comparison, metric)) == plain
        assert dict(mpl.rcParams) == before


def test_pyplot_is_never_imported():
    code = (
        "import sys, numpy as np; from twintrack.report import figures, Reliability as R; "
        "c = R(np.array([1]), np.array([.5]), np.array([.5])); "
        "figures.png(figures.reliability_figure({'a': c})); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
