"""MapFacts: what a fitted map can reach, and whether its bins have misled it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.equal_mass import EqualMassBins
from twintrack.calibration.map_fit import Target, fitted_knots

LARGEST_THRESHOLD = 0.8  # of the benchmark's TDSC
_LOW_SCORE = 0.01  # knots above it are those that are left to the tumour
_FAR, _SHARE = 0.05, 0.01  # a map is wrong that is so far off at scores with that share of votes
_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_POINTS = 33

_HELP = "--bins cells, more bins or a smaller region (--region) help"


@dataclass(frozen=True)
class MapFacts:
    """Facts of a fitted map, from the tally that it was fitted to.

    Attributes
    ----------
    top : float
        The largest value of the map.
    last_bin_votes : float
        Share of all votes that lie in the bin of the highest scores: what the map cannot tell
        apart at the top.
    knots_above : int
        Knots of the map at scores above 0.01.
    off_cells : float
        Share of all votes at scores where the map is more than 0.05 from that of ``bins="cells"``.
    votes, votes_at_zero : int
        Votes of all raters, and those at scores that the map sends to exactly 0. A map of the mean
        response has none of its own: they show in other cases (`BinChoice.zero_votes`).
    log_score : float
        Mean over voxels of -[MHR log m + (1 - MHR) log(1 - m)] of the map's own data; infinite
        where votes meet an exact 0, or voxels without all votes an exact 1.
    line : str
        The map as block characters: its values at 33 equally spaced scores from 0 to 1.
    warnings : tuple of str
        What the bins have made of the map that they should not, and what helps.
    """

    top: float
    last_bin_votes: float
    knots_above: int
    off_cells: float
    votes: int
    votes_at_zero: int
    log_score: float
    line: str
    warnings: tuple[str, ...]

    @property
    def share_at_zero(self) -> float:
        """Share of all votes at scores that the map sends to exactly 0."""
        return self.votes_at_zero / self.votes if self.votes else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON has them: a log score of None is infinite."""
        content = {**self.__dict__, "warnings": list(self.warnings)}
        content["log_score"] = self.log_score if math.isfinite(self.log_score) else None
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MapFacts:
        """Return the facts that `to_dict` made this of."""
        known = {name: content[name] for name in cls.__annotations__}
        if known["log_score"] is None:
            known["log_score"] = math.inf
        return replace(cls(**known), warnings=tuple(known["warnings"]))


def map_facts(
    fitted: CalibrationMap,
    unbounded: CalibrationMap,
    bins: EqualMassBins,
    cells: EqualMassBins,
    target: Target,
    rater: int,
    chosen: bool = False,
    has_bins: bool = True,
) -> MapFacts:
    """Return the facts of a map.

    Parameters
    ----------
    fitted, unbounded : CalibrationMap
        The map, and what it is without floor and ceiling: bins are judged by that.
    bins, cells : EqualMassBins
        What it was fitted on, and a bin for every cell that occurs.
    target, rater
        What it was fitted to.
    chosen
        Whether cross-validation has chosen the number of bins: it is not advised again then.
    has_bins
        Whether there are bins, that may have misled the map.
    """
    votes = cells.votes.sum(axis=1).astype(np.float64)
    # Interpolated by NumPy: what makes a map fast for many scores takes longer than these do.
    at = cells.mean_score
    m, binned = (np.interp(at, one.x, one.y) for one in (fitted, unbounded))
    is_free = has_bins and bins.asked == cells.asked
    free = binned if is_free else np.interp(at, *fitted_knots(cells, target, rater))
    off_cells = _share(np.abs(binned - free) > _FAR, votes)
    told = _cap_warning(float(unbounded.y[-1]), free, votes, chosen) if has_bins else []
    if off_cells >= _SHARE and not has_bins:
        told.append(
            f"at scores that hold {off_cells:.0%} of the votes the map is more than {_FAR} from "
            "what isotonic regression finds there: --kind isotonic helps"
        )
    elif off_cells >= _SHARE:
        told.append(
            f"{len(bins)} bins may be too few: at scores that hold {off_cells:.0%} of the votes "
            f"the map is more than {_FAR} from what it is without bins; {_help(chosen)}"
        )
    return MapFacts(
        top=float(fitted.y[-1]),
        last_bin_votes=float(bins.votes[-1].sum()) / max(float(votes.sum()), 1.0),
        knots_above=int(np.count_nonzero(fitted.x > _LOW_SCORE)),
        off_cells=off_cells,
        votes=int(cells.votes.sum()),
        votes_at_zero=int(cells.votes[m == 0].sum()),
        log_score=_log_score(m, cells, votes),
        line=block_line(fitted),
        warnings=tuple(told),
    )


def block_line(fitted: CalibrationMap) -> str:
    """Return the map as a line of block characters, at equally spaced scores from 0 to 1."""
    values = np.interp(np.linspace(0, 1, _POINTS), fitted.x, fitted.y)
    return "".join(_BLOCKS[min(int(8 * value), 7)] for value in values)


def line_for(line: str, encoding: str | None) -> str:
    """Return a line of block characters as an output can show it, in ASCII if need be."""
    try:
        line.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return line.translate(str.maketrans(_BLOCKS, _ASCII))
    return line


def _log_score(m: NDArray[Any], cells: EqualMassBins, votes: NDArray[np.float64]) -> float:
    answers = cells.answered
    with np.errstate(divide="ignore"):
        # Where nobody answers so, the logarithm does not count, infinite or not.
        yes = votes * np.where(votes > 0, np.log(m), 0)
        no = (answers - votes) * np.where(answers > votes, np.log1p(-m), 0)
    # Logarithms differ in their last bits from one machine to the next.
    return float(f"{-(yes.sum() + no.sum()) / answers.sum():.9g}")


def _share(where: NDArray[np.bool_], votes: NDArray[np.float64]) -> float:
    return float(votes[where].sum()) / max(float(votes.sum()), 1.0)


def _cap_warning(
    top: float, free: NDArray[Any], votes: NDArray[np.float64], chosen: bool
) -> list[str]:
    """Say that the map ends below the largest threshold, and why; `free` is without bins."""
    # What a share of the votes would get: the highest scores by themselves are too few to count.
    above = np.cumsum(votes[::-1])[::-1]
    reach = float(free[above >= _SHARE * above[0]].max())
    bins_help = reach - top > _FAR or reach >= LARGEST_THRESHOLD
    # A single score has the highest value: it cannot be split, however many bins there are.
    tie = np.count_nonzero(free == reach) == 1
    if top >= LARGEST_THRESHOLD or (tie and not bins_help):
        return []
    why = (
        f"it would reach {reach:.3f} without bins; {_help(chosen)}"
        if bins_help
        else "more bins would not change it, for at the highest scores the raters agree no more; "
        "another region or another score may"
    )
    return [
        f"the map's largest value is {top:.3f}, so that no voxel reaches {LARGEST_THRESHOLD}, the "
        f"largest threshold of the benchmark's TDSC: {why}"
    ]


def _help(chosen: bool) -> str:
    return ("" if chosen else "--bins auto, ") + _HELP
