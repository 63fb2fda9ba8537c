"""Figures of a study: what few patients cost, what bins do, and what pooling hides."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure

from twintrack.report.figures import styled
from twintrack.runs.study_table import StudyTable

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#767676"
_SIZE = (7.4, 3.0)


@styled
def learning_figure(table: StudyTable) -> Figure:
    """Draw how far maps of few patients are from that of all, on average and in the worst draw."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    panels = [
        ("brier_difference", "brier_worst", 100.0, "Brier score above that of all, %"),
        ("tdsc_difference", "tdsc_worst", 1.0, "TDSC against all"),
    ]
    keys = {column.key for column in table.columns}
    panels = [panel for panel in panels if panel[0] in keys]
    for axes, (key, worst, scale, label) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        patients = [int(name) for name in table.names]
        for column, colour, marker, name in (
            (key, _BLUE, "o", "mean of the draws"),
            (worst, _ORANGE, "^", "worst draw"),
        ):
            values = [scale * value for value in table.column(column)]
            axes.plot(patients, values, color=colour, marker=marker, markersize=4.5, label=name)
        axes.axhline(0, color=_GREY, linestyle="--", linewidth=0.9)
        axes.set_xscale("log")
        axes.set_xticks(patients, [str(n) for n in patients])
        axes.minorticks_off()
        axes.set(xlabel="Patients fitted to", ylabel=label)
        axes.legend()
    return figure


@styled
def bins_figure(table: StudyTable) -> Figure:
    """Draw Brier score, TDSC and top of the map by the number of bins, without a map left out."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    shown = [c for c in table.columns if c.key in ("brier", "tdsc", "top")]
    at = [k for k, name in enumerate(table.names) if name != "no map"]
    names = ["none" if table.names[k] == "without bins" else table.names[k] for k in at]
    for axes, column in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        values = [column.scale * table.column(column.key)[k] for k in at]
        axes.plot(range(len(at)), values, color=_BLUE, marker="o", markersize=4.5)
        axes.set_xticks(range(len(at)), names, rotation=45)
        axes.set_ylim(bottom=0)
        axes.set_title(column.label)
        axes.set_xlabel("Bins")
    return figure


@styled
def sizes_figure(table: StudyTable) -> Figure:
    """Draw volume ratios by quarter of the predicted size."""
    figure = Figure(figsize=(_SIZE[0] / 2, _SIZE[1]), layout="constrained")
    axes: Any = figure.subplots()
    ratios = table.column("volume_ratio")
    drawn = [0.0 if math.isnan(ratio) else ratio for ratio in ratios]
    colours = [_BLUE] * (len(ratios) - 1) + [_GREY]
    axes.bar(range(len(ratios)), drawn, color=colours)
    axes.axhline(1, color="black", linestyle="--", linewidth=0.9)
    axes.set_xticks(range(len(ratios)), [name.replace(" ", "\n") for name in table.names])
    axes.set_ylabel("Predicted / marked volume")
    axes.grid(visible=False, axis="x")
    return figure
