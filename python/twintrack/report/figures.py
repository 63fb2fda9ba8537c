"""Figures of a comparison: maps, reliability, intervals, cases in pairs, and examples.

Every function returns a `matplotlib.figure.Figure` and leaves pyplot and its global state alone.
The same input gives the same bytes: SVG ids are salted, no date is written.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np

from twintrack.errors import InputError
from twintrack.report.cautions import cautions
from twintrack.report.columns import Metric
from twintrack.report.comparison import Comparison
from twintrack.report.examples import Example
from twintrack.report.maps import MapPlot
from twintrack.report.method_results import Reliability
from twintrack.report.tables import flag_legend, flag_of, one_line

try:
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
except ImportError as _error:
    raise ImportError(
        "figures need Matplotlib; install it with: pip install 'twintrack[report]'"
    ) from _error

P = ParamSpec("P")
Axes = Any  # Matplotlib is not typed strictly enough to name its classes here

# M. Okabe and K. Ito, "Color universal design" (2008): told apart with any colour vision. Their
# yellow is left out, it is too faint on white; the reference method gets the blue.
_REFERENCE_COLOUR = "#0072B2"
_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#767676"

# Inches. Narrow enough that 10 pt text is still readable when a phone shrinks the figure.
_WIDTH = 4.6
# Of colours over a grey image.
_OPACITY = 0.6
# More cases than this are drawn as pixels inside the SVG, which would otherwise weigh megabytes.
_VECTOR_CASES = 300


@contextmanager
def _style() -> Iterator[None]:
    # From the defaults, so that a user's own style does not change the bytes.
    settings = mpl.rc_params_from_file(Path(__file__).with_name("figures.mplstyle"))
    with mpl.rc_context({**settings, "backend": "agg"}):
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let a function draw in the style of the report."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _style():
            return draw(*args, **kwargs)

    return drawn


def method_colours(methods: Sequence[str], reference: str | None = None) -> dict[str, str]:
    """Give every method a colour, the reference always the same one."""
    others = [name for name in methods if name != reference]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}
    return {name: colours.get(name, _REFERENCE_COLOUR) for name in methods}


def _markers(methods: Sequence[str]) -> dict[str, str]:
    return {name: _MARKERS[i % len(_MARKERS)] for i, name in enumerate(methods)}


def _label(text: str, width: int = 28, lines: int = 2) -> str:
    """Wrap and shorten a name, and keep Matplotlib from reading commands in it."""
    wrapped = textwrap.wrap(one_line(text).strip(), width) or ["–"]
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: width - 1] + "…"]
    label = "\n".join(wrapped).replace("$", r"\$")  # $…$ would be set as mathematics
    return f"\u200a{label}" if label.startswith("_") else label  # _… would leave the legend


@styled
def map_figure(maps: Sequence[MapPlot]) -> Figure:
    """Draw calibration maps with their bands, and below them the mass of the bins.

    The lower panel shows the voxels in every fiftieth of the score on a logarithmic axis, the mass
    of a bin being spread evenly over its range; the ticks under the map are the bins themselves.
    """
    if not maps:
        raise InputError("no map to draw")
    massive = [plot for plot in maps if plot.bins is not None]
    figure = Figure(figsize=(_WIDTH, 5.6 if massive else 4.6), layout="constrained")
    axes = figure.subplots(
        1 + bool(massive), 1, sharex=True, squeeze=False, height_ratios=[4, 1][: 1 + bool(massive)]
    )[:, 0]
    top = axes[0]
    names = [plot.name for plot in maps]
    colours = method_colours(names, names[0])
    handles = [top.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)[0]]
    labels = ["unchanged"]
    for plot in maps:
        colour = colours[plot.name]
        if plot.band is not None:
            score, low, high = plot.band
            top.fill_between(score, low, high, color=colour, alpha=0.22, linewidth=0)
        # Constant beyond the first and last knot, as the map is applied.
        x = np.concatenate([[0.0], plot.score, [1.0]])
        y = np.concatenate([plot.value[:1], plot.value, plot.value[-1:]])
        handles += top.plot(x, y, color=colour, linewidth=1.8)
        labels.append(_label(plot.name))
    if len(massive) == 1 and massive[0].bins is not None:
        top.vlines(
            massive[0].bins[0], 0, 0.022, transform=top.get_xaxis_transform(), color="#444444",
            linewidth=0.7,
        )  # fmt: skip
    top.legend(handles, labels, loc="upper left")
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="Expected fraction of raters", aspect="equal")
    for plot in massive:
        mass, edges = plot.mass()
        axes[1].stairs(mass, edges, color=colours[plot.name], fill=len(massive) == 1, baseline=0.5)
    if massive:
        _count_axis(axes[1])
    axes[-1].set_xlabel("Score of the ensemble")
    return figure


def _count_axis(axes: Axes) -> None:
    axes.set(yscale="log", ylabel="Voxels")
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())


@styled
def reliability_figure(curves: Mapping[str, Reliability], reference: str | None = None) -> Figure:
    """Draw the mean human response against the mean score of each bin, and the voxels below.

    A line is broken where a bin is empty. The diagonal is perfect calibration.
    """
    if not curves:
        raise InputError("no reliability curve to draw")
    figure = Figure(figsize=(_WIDTH, 6.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1.25])
    colours, markers = method_colours(list(curves), reference), _markers(list(curves))
    handles = [top.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)[0]]
    for name, curve in curves.items():
        used = curve.bin_count > 0
        x, y = (np.where(used, means, np.nan) for means in (curve.mean_score, curve.mean_mhr))
        look = {"color": colours[name], "linewidth": 1.3, "zorder": 3 if name == reference else 2.5}
        handles += top.plot(
            x, y, marker=markers[name], markersize=4.2, markeredgecolor="white",
            markeredgewidth=0.4, clip_on=False, **look,
        )  # fmt: skip
        edges = np.linspace(0, 1, used.size + 1)
        bottom.stairs(np.where(used, curve.bin_count, np.nan), edges, baseline=None, **look)
    labels = ["perfect calibration", *(_label(name) for name in curves)]
    top.legend(handles, labels, loc="upper left", handlelength=1.6)
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="Mean human response", aspect="equal")
    _count_axis(bottom)
    bottom.set_xlabel("Mean score of the bin")
    return figure


@styled
def interval_figure(
    comparison: Comparison, metrics: Sequence[Metric] | None = None, columns: int = 1
) -> Figure:
    """Draw Table 2: mean and interval of every method, a panel per metric.

    The dashed line is the mean of the reference; arrows, † and ‡ as in the tables. A figure of all
    metrics says below what the signs mean.
    """
    names = comparison.methods
    colours, markers = method_colours(names, comparison.reference), _markers(names)
    result = comparison.intervals
    figure, panels = _panels(comparison, metrics, columns, height=0.95 + 0.33 * len(names))
    for metric, axes in panels:
        j = comparison.metrics.index(metric)
        reference = result.mean[names.index(comparison.reference), j]
        axes.axvline(reference, color=_GREY, linestyle="--", linewidth=0.9, zorder=1)
        for i, name in enumerate(names):
            low, mean, high = result.low[i, j], result.mean[i, j], result.high[i, j]
            axes.plot(
                [low, high], [i, i], color=colours[name], linewidth=2.2, solid_capstyle="butt"
            )
            axes.plot(mean, i, markers[name], color=colours[name], markersize=6.5)
            flag = flag_of(comparison, i, j)
            axes.text(1.01, i, flag, transform=axes.get_yaxis_transform(), va="center")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.06)
    if metrics is None:
        text = one_line(" ".join([flag_legend(comparison), *cautions(comparison)]))
        lines = textwrap.wrap(text.replace("$", r"\$"), int(15 * figure.get_figwidth()))
        figure.set_figheight(figure.get_figheight() + 0.16 * len(lines))
        figure.supxlabel("\n".join(lines), fontsize=8)
    return figure


@styled
def paired_figure(
    comparison: Comparison, metrics: Sequence[Metric] | None = None, columns: int = 1
) -> Figure:
    """Draw every case as a line from method to method, a panel per metric, medians as bars.

    The axis is logarithmic, and says so, where all values are positive and span a factor over 50.
    """
    names = comparison.methods
    colours = method_colours(names, comparison.reference)
    cases = len(comparison.cases)
    pixels = cases > _VECTOR_CASES
    look = {"colors": "#888888", "linewidths": 0.6, "alpha": float(np.clip(30 / cases, 0.08, 0.5))}
    figure, panels = _panels(comparison, metrics, columns, height=0.8 + 0.45 * len(names))
    for metric, axes in panels:
        values = comparison.values[:, :, comparison.metrics.index(metric)]
        # Methods without the metric keep their place, so that panels can be compared.
        at = np.flatnonzero(~np.isnan(values).all(axis=0))
        shown = values[~np.isnan(values[:, at]).any(axis=1)][:, at]
        lines = np.stack([shown, np.broadcast_to(at, shown.shape)], axis=-1)
        axes.add_collection(LineCollection(list(lines), zorder=1.5, rasterized=pixels, **look))
        for i, column in zip(at, shown.T, strict=True):
            colour = colours[names[i]]
            axes.plot(
                column, np.full(len(column), i), "o", color=colour, markersize=3, alpha=0.6,
                markeredgewidth=0, zorder=2, rasterized=pixels,
            )  # fmt: skip
            bar = [np.median(column)] * 2, [i - 0.3, i + 0.3]
            axes.plot(*bar, color="white", linewidth=4.5, zorder=3)
            axes.plot(*bar, color=colour, linewidth=2.6, zorder=4)
        if shown.min() > 0 and shown.max() > 50 * shown.min():
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("logarithmic axis")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


@styled
def qualitative_figure(
    examples: Sequence[Example], levels: Sequence[float] = (0.1, 0.5, 0.9)
) -> Figure:
    """Draw a row per example: mean human response, score and, if there is one, calibrated score.

    Values in [0, 1] are coloured over the grey image with one colour bar for all panels, and
    outlined in white at `levels`. Without an image the values alone are shown.
    """
    if not examples:
        raise InputError("no example to draw")
    panels = ["mhr", "score"] + ["calibrated"] * any(e.calibrated is not None for e in examples)
    titles = {"mhr": "Raters (MHR)", "score": "Score", "calibrated": "Calibrated score"}
    side = 1.5
    figure = Figure(
        figsize=(side * len(panels) + 0.7, side * len(examples) + 1.1), layout="compressed"
    )
    grid = figure.subplots(len(examples), len(panels), squeeze=False)
    colours = mpl.colormaps["viridis"]
    outline = [withStroke(linewidth=1.6, foreground="black")]
    for example, row in zip(examples, grid, strict=True):
        height, width = example.spacing
        for panel, axes in zip(panels, row, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            values = getattr(example, panel)
            if values is None:
                axes.text(0.5, 0.5, "not available", ha="center", transform=axes.transAxes)
                continue
            shown = {"interpolation": "nearest", "aspect": height / width}
            if example.background is None:
                axes.imshow(values, cmap=colours, vmin=0, vmax=1, **shown)
            else:
                axes.imshow(example.background, cmap="gray", vmin=0, vmax=1, **shown)
                # Transparent where nothing is expected; the same opacity from 0.05 up.
                opacity = np.clip(values / 0.05, 0, 1) * _OPACITY
                axes.imshow(values, cmap=colours, vmin=0, vmax=1, alpha=opacity, **shown)
            if values.min() < max(levels) and values.max() > min(levels) and min(values.shape) > 1:
                contours = axes.contour(values, levels=levels, colors="white", linewidths=0.8)
                contours.set_path_effects(outline)
            if example.radiological:
                axes.text(
                    0.03, 0.5, "R", transform=axes.transAxes, color="white", fontsize=8,
                    va="center", path_effects=outline,
                )  # fmt: skip
        row[0].set_ylabel(f"{_label(example.case, 22)}\n{example.slice_name}", fontsize=9)
    for panel, axes in zip(panels, grid[0], strict=True):
        axes.set_title(titles[panel], loc="center")
    if all(example.background is not None for example in examples):
        # As the values look on middle grey, so that a colour in a panel is found in the bar.
        blended = _OPACITY * colours(np.linspace(0, 1, 256)) + (1 - _OPACITY) * 0.5
        blended[:, 3] = 1
        colours = ListedColormap(blended)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), colours), ax=grid, location="bottom", aspect=40, pad=0.02
    )
    bar.set_label("Fraction of raters, or probability")
    for level in levels:
        bar.ax.axvline(level, color="white", linewidth=1, path_effects=outline)
    return figure


def _panels(
    comparison: Comparison, metrics: Sequence[Metric] | None, columns: int, height: float
) -> tuple[Figure, list[tuple[Metric, Axes]]]:
    """Make a figure with an axes per metric, `columns` to a row, and a row in it per method."""
    chosen = comparison.metrics if metrics is None else tuple(metrics)
    if not chosen:
        raise InputError("no metric to draw")
    names = comparison.methods
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    width = _WIDTH if columns == 1 else 3.3 * columns
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height * rows), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, axes in enumerate(grid):
        if place >= len(chosen):
            axes.set_visible(False)
            continue
        named = place % columns == 0
        axes.set_yticks(range(len(names)), [_label(name, 20) if named else "" for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_title(_label(chosen[place].heading, 30, 1))
    return figure, list(zip(chosen, grid, strict=False))


def svg(figure: Figure) -> bytes:
    """Render as SVG, text as outlines, so that it looks the same everywhere."""
    return _rendered(figure, "svg", metadata={"Date": None})


def png(figure: Figure, dpi: float = 200) -> bytes:
    """Render as PNG."""
    return _rendered(figure, "png", dpi=dpi)


def _rendered(figure: Figure, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    with _style(), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the tables have it in full.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        # Constrained layout moves a little with every drawing: settle it once, so that a figure has
        # the same bytes however often, and in whatever formats, it was rendered before.
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=kind, **settings)
    return buffer.getvalue()
