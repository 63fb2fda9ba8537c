"""What commands show of a calibrator."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twintrack.cli.map_band import band_told
from twintrack.cli.reporting import Report

if TYPE_CHECKING:
    from twintrack.calibration.calibrator import Calibrator

TARGETS = {
    "mhr": "the mean human response",
    "single": "one rater",
    "hard": "hard labels, averaged over raters",
    "majority": "the majority of the raters",
    "none": "nothing (the identity)",
}

_REGIONS = {
    "roi": "inside the roi masks",
    "box": "inside the boxes around all annotations, grown by 20 voxels",
    "all": "in all",
}


def calibrator_rows(calibrator: Calibrator) -> dict[str, str]:
    """Return what a calibrator is and what its map can reach, a text by label."""
    from twintrack.calibration.map_facts import line_for

    made_of, facts = calibrator.provenance_, calibrator.facts_
    rows = {
        "cases": f"{made_of['cases']:,}",
        "raters": f"{made_of['raters']}",
        "voxels": f"{made_of['voxels']:,} {_REGIONS.get(made_of['region'], '')}",
    }
    fits = [
        ", ".join(f"{name} {value:.4g}" for name, value in parameters.items())
        for parameters in made_of.get("parameters", ())
    ]
    if fits:
        rows[made_of["kind"]] = "; ".join(fits)
    update = made_of.get("update")
    if update is not None:
        told = "log-odds × {a:.4g} {b:+.4g}".format(**update)
        rows["updated"] = f"{told}, by {update['cases']} new cases" if update["cases"] else told
    if made_of.get("prevalence") is not None:
        rows["prevalence"] = f"{made_of['prevalence']:.3g} of the voxels"
    bins = made_of["bins"]
    if bins is not None:
        cells = bins.get("rule") == "cells"
        asked = ", one for every cell of the scores" if cells else f" of {bins['asked']} asked for"
        rows["bins"] = f"{bins['made']}{asked}"
        rows["largest bin"] = f"{bins['largest_share']:.2%} of the voxels"
    weighing = made_of.get("case_weight")
    if weighing is not None:
        rows["weights"] = "every patient counts the same" if weighing == "cases" else "by numbers"
    x, y = calibrator.X_thresholds_, calibrator.y_thresholds_
    rows["knots"] = f"{len(x)}" + ("" if facts is None else f", {facts.knots_above} above 0.01")
    rows["map"] = f"{x[0]:.4g} → {y[0]:.4g}  …  {x[-1]:.4g} → {y[-1]:.4g}"
    if facts is not None:
        line = line_for(facts.line, sys.stdout.encoding)
        rows["from 0 to 1"] = f"{line}  largest value {facts.top:.3f}"
        rows["last bin"] = f"{facts.last_bin_votes:.1%} of the votes"
        rows["log score"] = f"{facts.log_score:.6f}"
        rows["at exact 0"] = f"{facts.votes_at_zero:,} votes ({facts.share_at_zero:.2%})"
    if calibrator.thresholds_ is not None:
        rules = {"majority": "majority", "dice": "Dice"}
        found = {told: getattr(calibrator.thresholds_, rule) for rule, told in rules.items()}
        rows["mask at"] = ", ".join(
            f"{value:.3g} ({told})" + ", which no score reaches" * bool(value >= y[-1])
            for told, value in found.items()
            if value is not None
        )
    if calibrator.band_ is not None:
        rows["band"] = band_told(calibrator)
    if made_of.get("bounds") is not None:
        chosen = made_of["bounds"]["auto"]
        for name, value in (("floor", calibrator.floor_), ("ceiling", calibrator.ceiling_)):
            rows[name] = f"{value:.7g}" + (" (auto)" if name in chosen else "")
    return rows


def show_choice(report: Report, choice: Mapping[str, Any]) -> None:
    """Tell the numbers of bins that were tried, with their scores and which was chosen.

    Files of earlier versions have the scores alone.
    """
    best, chosen = choice.get("best"), choice.get("chosen")
    least = min(choice["scores"].values())
    errors, at_zero = choice.get("standard_errors", {}), choice.get("zero_votes", {})
    rows = []
    for bins, score in choice["scores"].items():
        above = f"{score - least:.2e}" if score > least else "best"
        error = f"{errors[bins]:.1e}" if bins in errors and bins != str(best) else ""
        zero = f"{at_zero[bins]:.3%}" if bins in at_zero else ""
        rows.append(
            (
                f"{bins} (chosen)" if bins == str(chosen) else bins,
                f"{score:.6f}",
                above,
                error,
                zero,
            )
        )
    columns = ("bins", "Brier score", "above the best", "± standard error", "votes at exact 0")
    title = f"Bins by {choice['folds']}-fold cross-validation, on the cases held out"
    report.table(title, columns, rows, **choice)


def map_warnings(calibrator: Calibrator) -> Sequence[str]:
    """Return what bins have made of the map that they should not."""
    return () if calibrator.facts_ is None else calibrator.facts_.warnings
