"""The tables of a study, made of measured maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from twintrack.runs.study_bench import CLIP, Measured, Trial
from twintrack.runs.study_table import Column, StudyTable

NONE, MHR, CELLS = "No map", "MHR, 250 bins", "MHR, without bins"
THEIRS, UPDATED = "the other cohort's map", "the other cohort's map, updated"
BINS = (20, 30, 40, 100, 250, 1000)
FRESH = 5
"""Patients of one's own cohort that update a map, or replace it."""

LEARNING, TRANSFER = "How many patients are enough?", "Does a map hold for the other cohort?"
REGIONS, SIZES = "Which voxels should a map be fitted to?", "What does pooling hide?"

_ENOUGH_MEAN, _ENOUGH_WORST = 0.03, 0.10
_ENOUGH_BINS = 0.01
_EQUAL = 0.005  # Brier scores that differ by less than that share

_BRIER = Column("brier", "Brier × 10³", "lower", 1e3)
_TDSC = Column("tdsc", "TDSC", "higher")
_CRPS = Column("crps", "CRPS (voxels)", "lower")
_RATIO = Column("volume_ratio", "Volume ratio")
_TOP = Column("top", "Top of the map")

Results = Mapping[Trial, Measured]
Row = Mapping[str, float]


def of_bins(bins: int) -> str:
    """Return the name of a map of so many bins."""
    return f"MHR, {bins} bins"


def of_region(region: str) -> str:
    """Return the name of a map of another region."""
    return f"region {region}"


def of_patients(patients: int) -> str:
    """Return the name of maps of so many patients that are drawn."""
    return f"{patients} patients"


def summary(results: Results, name: str, reference: str = MHR) -> Row | None:
    """Return the figures of a map, means over splits and draws, by the keys of columns.

    None if the map is not there. Differences are paired: from the reference on the same test half.
    """
    trials = sorted(trial for trial in results if trial.name == name)
    pairs = [(results[t], results[Trial(t.split, reference)]) for t in trials]
    if not pairs:
        return None
    own = [one for one, _ in pairs]
    off = [one.brier / other.brier - 1 if other.brier else math.nan for one, other in pairs]
    soft = [one.tdsc - other.tdsc for one, other in pairs]
    return {
        **{
            key: mean(getattr(one, key) for one in own)
            for key in ("brier", "excess_brier", "log_score", "tdsc", "crps", "squared_error")
        },
        **{
            key: mean(getattr(one, key) for one in own)
            for key in ("miscalibration", "volume_ratio", "top")
        },
        "brier_difference": mean(off),
        "brier_spread": _spread(off),
        "brier_worst": max(off),
        "tdsc_difference": mean(soft),
        "tdsc_spread": _spread(soft),
        "tdsc_worst": min(soft),
        "draws": float(len(pairs)),
    }


def methods_table(names: Sequence[str], results: Results) -> StudyTable:
    """Compare methods."""
    columns = (
        _BRIER,
        Column("excess_brier", "Excess × 10³", "lower", 1e3),
        Column("brier_difference", "Brier against MHR, %", None, 100, 1),
        Column("brier_spread", "± %", None, 100, 1),
        Column("log_score", "Log score", "lower"),
        _TDSC,
        Column("tdsc_difference", "TDSC against MHR"),
        Column("tdsc_spread", "±"),
        _CRPS,
        Column("squared_error", "CE² × 10⁶", "lower", 1e6, 1),
        Column("miscalibration", "MCB × 10⁶", "lower", 1e6, 1),
        _RATIO,
    )
    rows = _found({name: summary(results, name) for name in names})
    off = {name: row["brier_difference"] for name, row in rows.items() if name != MHR}
    equal = [name for name, value in off.items() if abs(value) <= _EQUAL]
    lower = sorted(
        (value, name)
        for name, value in off.items()
        if value < -_EQUAL and rows[name]["brier_worst"] < 0
    )
    one_more = mean(one.noise.one_more for trial, one in results.items() if trial.name == MHR)
    told = [f"{name} ({100 * value:+.1f}%)" for value, name in lower]
    answer = (
        f"The Brier score of the MHR map of 250 bins is {_brier(rows[MHR])}, without a map "
        f"{_brier(rows[NONE])}. "
    )
    answer += f"Equal to within {_EQUAL:.1%}: {', '.join(equal)}. " if equal else ""
    answer += (
        f"Lower in every split: {', '.join(told)}."
        if lower
        else "No method is lower in every split by more."
    )
    return _table(
        "methods",
        "Which method?",
        answer,
        "method",
        columns,
        {**rows, "One more rater": {"brier": one_more}},
        "Brier score, log score, CE² and MCB are of all voxels of a test half; TDSC and CRPS are "
        "means over its cases (corrected protocol). All are means over the splits.",
        "Excess: Brier score less the raters' noise. Against MHR: paired difference from the row "
        f"{MHR}, and ± its standard deviation over the splits, which share patients: it is no "
        "standard error, and a difference no finding: twintrack compare has intervals and tests.",
        f"Log score of values clipped to [{CLIP:g}, 1 − {CLIP:g}]. CE²: squared calibration error "
        "of 50 bins without its bias over patients. MCB: CORP's miscalibration.",
        "One more rater: each rater against the mean of the others.",
    )


def bins_table(results: Results) -> StudyTable:
    """Compare numbers of bins."""
    columns = (_BRIER, Column("brier_difference", "against no bins, %", None, 100, 1))
    names = {**{str(m): of_bins(m) for m in BINS}, "without bins": CELLS, "no map": NONE}
    rows = _found({shown: summary(results, name, CELLS) for shown, name in names.items()})
    good = next((m for m in BINS if rows[str(m)]["brier_difference"] <= _ENOUGH_BINS), None)
    answer = (
        f"No number of bins up to {BINS[-1]} comes within {_ENOUGH_BINS:.0%} of the Brier score "
        "without bins: use --bins cells or auto"
        if good is None
        else f"{good} bins are enough: the Brier score is within {_ENOUGH_BINS:.0%} of that "
        "without bins"
    )
    return _table(
        "bins",
        "How many bins?",
        f"{answer}; with {BINS[0]} bins no score comes above {rows[str(BINS[0])]['top']:.2f}.",
        "bins",
        (*columns, _TDSC, _CRPS, _RATIO, _TOP),
        rows,
        "Top of the map: the largest calibrated score of the test half.",
    )


def learning_table(results: Results, sizes: Sequence[int]) -> StudyTable | None:
    """Tell what few patients cost; None if there are too few for any size."""
    columns = (
        Column("brier_difference", "Brier above that of all, %", "lower", 100, 1),
        Column("brier_worst", "worst draw, %", "lower", 100, 1),
        Column("tdsc_difference", "TDSC against all", "higher"),
        Column("tdsc_worst", "worst draw", "higher"),
        Column("draws", "Draws", decimals=0),
    )
    rows = _found({str(size): summary(results, of_patients(size)) for size in sizes})
    if not rows:
        return None
    enough = (
        size
        for size, row in rows.items()
        if row["brier_difference"] <= _ENOUGH_MEAN and row["brier_worst"] <= _ENOUGH_WORST
    )
    least = next(enough, None)
    size = least or list(rows)[-1]
    row = rows[size]
    return _table(
        "learning",
        LEARNING,
        f"{size} patients are {'enough' if least else 'not enough'}: the Brier score is "
        f"{100 * row['brier_difference']:.1f}% above that of a map of all patients of the half "
        f"(worst draw {100 * row['brier_worst']:.1f}%).",
        "patients",
        columns,
        rows,
        "Maps of 250 bins, fitted to patients drawn from a half, against the map of all of them, "
        f"on the same test half. Enough: at most {_ENOUGH_MEAN:.0%} on average and "
        f"{_ENOUGH_WORST:.0%} in the worst draw.",
    )


def transfer_table(names: Sequence[str], results: Sequence[Results]) -> StudyTable:
    """Tell what the map of one cohort does for the other."""
    columns = (
        _BRIER,
        Column("brier_difference", "against own map, %", None, 100, 1),
        Column("brier_worst", "worst, %", None, 100, 1),
    )
    rows: dict[str, Row] = {}
    told = []
    for own, other, measured in zip(names, names[::-1], results, strict=True):
        ways = {
            "no map": NONE,
            "own map": MHR,
            f"map of {other}": THEIRS,
            f"map of {other}, updated by {FRESH} patients of {own}": UPDATED,
            f"map of {FRESH} patients of {own}": of_patients(FRESH),
        }
        found = _found({way: summary(measured, name) for way, name in ways.items()})
        rows |= {f"{own}: {way}": row for way, row in found.items()}
        theirs, none = found[f"map of {other}"], found["no map"]
        told.append(
            f"on {own} the map of {other} is "
            f"{'worse' if theirs['brier'] > none['brier'] else 'better'} than no map (Brier score "
            f"{_brier(theirs)} against {_brier(none)}, own map {_brier(found['own map'])})"
        )
    answer = "; ".join(told)
    return _table(
        "transfer",
        TRANSFER,
        f"{answer[0].upper()}{answer[1:]}.",
        "measured on: map",
        (*columns, _TDSC, _CRPS, _RATIO),
        rows,
        "Patients of both cohorts, known by name, are in the same half of both: no map is measured "
        "on patients it was fitted to.",
        "Updated: log-odds of the map stretched and shifted (Platt scaling of the map).",
    )


def regions_table(region: str, others: Sequence[str], results: Results) -> StudyTable:
    """Compare the regions that maps are fitted to."""
    columns = (_BRIER, Column("brier_difference", f"against {region}, %", None, 100, 1))
    names = {region: MHR, **{one: of_region(one) for one in others}}
    rows = _found({shown: summary(results, name) for shown, name in names.items()})
    lowest = min(rows, key=lambda name: rows[name]["brier"])
    return _table(
        "regions",
        REGIONS,
        f"A map of 250 bins that is fitted to the region {lowest} has the lowest Brier score on "
        f"{region} ({_brier(rows[lowest])}).",
        "fitted to the region",
        (*columns, _TDSC, _CRPS, _RATIO, _TOP),
        rows,
        f"All maps are measured on the voxels of the region {region}.",
    )


def sizes_table(results: Results) -> StudyTable:
    """Tell volumes by predicted size."""
    columns = (
        Column("volume_ratio", "Volume ratio, MHR"),
        Column("volume_ratio_without", "Volume ratio, no map"),
        Column("predicted_share", "Share of the predicted volume, %", None, 100, 1),
    )
    by_size = {
        name: np.mean([_by_size(one) for t, one in results.items() if t.name == name], axis=0)
        for name in (MHR, NONE)
    }
    rows: dict[str, Row] = {}
    for k, quarter in enumerate(("smallest quarter", "second", "third", "largest quarter")):
        (ratio, share), (without, _) = by_size[MHR][k], by_size[NONE][k]
        values = (float(ratio), float(without), float(share))
        rows[quarter] = dict(zip([column.key for column in columns], values, strict=True))
    ratios = [row["volume_ratio"] for row in rows.values()]
    whole = mean(one.volume_ratio for t, one in results.items() if t.name == MHR)
    without = mean(one.volume_ratio for t, one in results.items() if t.name == NONE)
    rows["all cases"] = {
        "volume_ratio": whole,
        "volume_ratio_without": without,
        "predicted_share": 1.0,
    }
    return _table(
        "sizes",
        SIZES,
        f"Over all cases the MHR map predicts {whole:.2f} of the marked volume, by quarter of the "
        f"predicted size from {min(ratios):.2f} to {max(ratios):.2f}.",
        "cases by predicted size",
        columns,
        rows,
        "Predicted volume over marked volume, each summed over the cases of a quarter.",
    )


def _by_size(one: Measured) -> NDArray[np.float64]:
    """Return by quarter of the predicted size the volume ratio, and the share of the volume."""
    found = np.full((4, 2), math.nan)
    order, whole = np.argsort(one.predicted, kind="stable"), one.predicted.sum()
    for k, cases in enumerate(np.array_split(order, 4)):
        predicted, marked = one.predicted[cases].sum(), one.marked[cases].sum()
        found[k] = predicted / marked if marked else math.nan, predicted / whole if whole else 0
    return found


def _table(
    key: str,
    title: str,
    answer: str,
    head: str,
    columns: Sequence[Column],
    rows: Mapping[str, Row],
    *notes: str,
) -> StudyTable:
    """Return a table without the columns of which no row has a value."""
    kept = [
        c for c in columns if not all(math.isnan(row.get(c.key, math.nan)) for row in rows.values())
    ]
    values = {name: tuple(row.get(c.key, math.nan) for c in kept) for name, row in rows.items()}
    return StudyTable(key, title, answer, head, tuple(kept), tuple(values.items()), notes)


def _found(rows: Mapping[str, Row | None]) -> dict[str, Row]:
    return {name: row for name, row in rows.items() if row is not None}


def _brier(row: Row) -> str:
    return f"{1e3 * row['brier']:.3g} × 10⁻³"


def mean(values: Iterable[float]) -> float:
    """Return the mean; NaN of none."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
