"""Figures: what a tally alone tells, of a case or of the sum of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.errors import InputError
from twintrack.metrics.brier import Murphy, brier, murphy
from twintrack.metrics.contested import contested_error, disagreement
from twintrack.metrics.ece import (
    average_error,
    expected_error,
    expected_error_per_rater,
    mean_of_raters,
)
from twintrack.metrics.rater_noise import noise_of
from twintrack.metrics.tdsc import tdsc

if TYPE_CHECKING:
    from twintrack.metrics.case_tally import CaseTally

Protocol = Literal["official", "corrected"]


def check_protocol(protocol: str) -> None:
    """Raise ValueError unless a protocol is one of the two."""
    if protocol not in get_args(Protocol):
        raise InputError("it must be official or corrected", argument="protocol", value=protocol)


@dataclass(frozen=True, eq=False)
class Figures(ByValue):
    """Figures of all voxels of a tally.

    What is not a sum over voxels is missing, as it is not there for several cases: the CRPS of the
    volume and the vascular invasion, which `evaluate` measures of a case.

    Attributes
    ----------
    tdsc : float
        Thresholded Dice score, in [0, 1]; more is better.
    ece : float
        Top-label calibration error, mean over raters, in [0, 1]; less is better, as of all errors.
    ece_per_rater : (N,) float64
        Over the voxels that a rater looked at; NaN for one who looked at none.
    ece_probability : float
        Calibration error of the tumour probability per rater, averaged (paper, Appendix B).
    ece_mhr : float
        Calibration error of the tumour probability against the MHR.
    ace : float
        Average calibration error against the MHR.
    brier : float
        Mean of (p - MHR)².
    murphy : Murphy
        Decomposition of the Brier score over raters' answers.
    predicted_volume : float
        Sum of the scores × voxel volume.
    rater_volumes : (N,) float64
        Voxels that each rater marked × voxel volume; NaN for one who looked at none.
    brier_excess : float
        `brier` beyond the noise of an MHR of few raters (`rater_noise`), which no score can remove;
        NaN where a voxel was looked at by one rater alone.
    rater_brier : float
        What one more rater would have in place of `brier`: each, left out, against the others.
    disagreement : float
        Share of the marked voxels that not all raters marked, in [0, 1]: a property of the raters.
    contested_error : float
        Share of TDSC's thresholds between p and the MHR of these voxels, in [0, 1].
    """

    tdsc: float
    ece: float
    ece_per_rater: NDArray[np.float64]
    ece_probability: float
    ece_mhr: float
    ace: float
    brier: float
    murphy: Murphy
    predicted_volume: float
    rater_volumes: NDArray[np.float64]
    brier_excess: float
    rater_brier: float
    disagreement: float
    contested_error: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, which JSON can hold.

        Numbers are floats, arrays are lists of floats, `murphy` and `vascular_invasion` are dicts
        by part and by vessel, `notes` is a list. Figures that are undefined stay NaN, which
        ``json.dumps`` writes as NaN. `calibration`, a tally, is left out: it has a `save`.
        """
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _plain(value) for name, value in named.items() if name != "calibration"}


def figures_of(tally: CaseTally, protocol: Protocol, voxel_volume: float = 1.0) -> Figures:
    """Return the figures of a tally; `CaseTally.figures` says how."""
    check_protocol(protocol)
    confidence = tally.confidence_bins
    per_rater = expected_error_per_rater(
        confidence if protocol == "official" else confidence.closed()
    )
    all_scores = tally.score_bins
    score = all_scores.closed()
    volumes = score.votes.sum(axis=0) * np.float64(voxel_volume)
    if tally.voxels:
        volumes[score.count_of.sum(axis=0) == 0] = np.nan
    votes = [sums.votes for sums in tally.by_set().values()]
    noise = noise_of(table.sum(axis=0) for table in votes)
    known = noise.voxels == tally.voxels > 0
    error = brier(tally)
    return Figures(
        tdsc=tdsc(votes),
        ece=mean_of_raters(per_rater),
        ece_per_rater=per_rater,
        ece_probability=mean_of_raters(expected_error_per_rater(score)),
        ece_mhr=expected_error(score),
        ace=average_error(score),
        brier=error,
        murphy=murphy(score),
        predicted_volume=float(all_scores.total.sum()) * voxel_volume,
        rater_volumes=volumes,
        brier_excess=error - noise.noise if known else np.nan,
        rater_brier=noise.one_more if known else np.nan,
        disagreement=disagreement(votes),
        contested_error=contested_error(votes),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Murphy):
        return value._asdict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
