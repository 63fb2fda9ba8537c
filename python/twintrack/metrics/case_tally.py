"""CaseTally: everything the metrics need of a case, gathered in one pass over the voxels."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack import _core
from twintrack.arrays.backend import cuda_module
from twintrack.arrays.bounds import warn_of, with_roundings
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.case import DeviceCase, OpenCase, open_case
from twintrack.arrays.numbers import number_between, whole_number
from twintrack.errors import InputError
from twintrack.files import naming
from twintrack.metrics.bins import Bins
from twintrack.metrics.figures import Figures, Protocol, figures_of
from twintrack.metrics.tdsc import THRESHOLDS

BINS = 50
"""Equally wide bins of the benchmark's calibration error."""

KIND = "case tally"
# What a file holds, in the order of the core's own sums.
_PARTS = ("votes", "score_bins", "confidence_bins", "squares", "rater_scores")
_LARGEST_FILE = 64 << 20  # bytes; 255 raters and 5000 bins take 31 million


@dataclass(frozen=True, eq=False)
class CaseOverview(ByValue):
    """What a look at a whole case tells besides its sums.

    Attributes
    ----------
    marked : tuple of (int, int)
        The range in which raters marked something: first index along each axis and one past the
        last; empty if nothing is marked.
    scored : (B,) uint8 or None
        Whether each 1024 voxels, in the order of the score's memory, may hold a score other than
        0. None for a score that is not contiguous, or on a device.
    """

    marked: tuple[tuple[int, int], ...]
    scored: NDArray[np.uint8] | None


class CaseTally:
    """Integer sums from which TDSC, calibration errors, Brier scores and volumes are computed.

    The same bits for any chunking, number of threads, memory order and order of addition; tallies
    of parts, or of cases, add up. Counts are exact, scores are rounded to multiples of 2^-46.

    Parameters
    ----------
    raters : int
        Number of raters N, 1 to 255.
    bins : int
        Number of equally wide bins of [0, 1]. A value of exactly 1 has a further bin for itself, as
        in the official evaluator; `Bins.closed` joins it to the last.

    Notes
    -----
    Several threads may add to one tally. Tallies can be pickled, copied and, as plain arrays,
    saved: 9 kB for five raters.
    """

    def __init__(self, raters: int, bins: int = BINS) -> None:
        self._tally = _core.CaseTally(
            whole_number(raters, "raters", 1), whole_number(bins, "bins", 1)
        )

    @property
    def raters(self) -> int:
        """Number of raters."""
        return int(self._tally.raters)

    @property
    def bins(self) -> int:
        """Number of bins of [0, 1]."""
        return int(self._tally.bins)

    def update(
        self, score: ArrayLike, raters: ArrayLike, region: ArrayLike | None = None
    ) -> CaseTally:
        """Add the voxels of a case; arguments and errors as in `ScoreTally.update`.

        Arrays in CUDA memory are tallied there; some kilobytes of sums come back at once.
        """
        found, count = with_roundings(
            lambda bounded: self.add_case(open_case(bounded, raters, region)), score
        )
        warn_of(count)
        return found

    def add_case(self, case: OpenCase) -> CaseTally:
        """Add the voxels of a case whose arrays are converted; raises as `update`."""
        if isinstance(case, DeviceCase):
            self._add_on_device(case)
        else:
            self._tally.update(case.score, case.raters, case.region)
        return self

    def add_and_overview(self, case: OpenCase) -> CaseOverview:
        """Add all voxels of a case, also those outside its region; tell what was seen besides."""
        scored = None
        if isinstance(case, DeviceCase):
            ranges = self._add_on_device(case, overview=True)
        else:
            ranges, blocks = self._tally.update_and_overview(case.score, case.raters)
            scored = blocks if case.score.flags.forc else None
        return CaseOverview(tuple((int(first), int(end)) for first, end in ranges), scored)

    def _add_on_device(self, case: DeviceCase, overview: bool = False) -> list[tuple[int, int]]:
        if len(case.raters) != self.raters:
            raise InputError(
                f"raters has {len(case.raters)} masks but the tally was made for {self.raters}"
            )
        score, raters, region = case.compiled()
        if overview:
            region = None
        sums, marked = cuda_module().case_sums(
            score, raters, region, self.bins, overview, case.device, case.stream
        )
        self._tally += _with_sums(self.raters, self.bins, sums)
        ranges: list[tuple[int, int]] = marked
        return ranges

    def figures(self, protocol: Protocol = "official", *, voxel_volume: float = 1.0) -> Figures:
        """Return the figures of all voxels of the tally, which may be those of several cases.

        Parameters
        ----------
        protocol : {"official", "corrected"}
            Of `evaluate`. They differ here in the ECE alone: where a confidence of 1 belongs.
        voxel_volume : float
            Volumes are in voxels by default; give mm³ per voxel to have them in mm³.

        Returns
        -------
        Figures
            NaN where there are no voxels. CRPS and vascular invasion are not among them: a sum of
            cases has neither a volume to be right about nor contacts.

        Raises
        ------
        ValueError
            The protocol is neither, or the volume not positive.
        """
        return figures_of(self, protocol, number_between(voxel_volume, "voxel_volume", 0))

    def __copy__(self) -> CaseTally:
        """Return a tally of its own: voxels added to one do not come into the other."""
        return copy.deepcopy(self)

    def __iadd__(self, other: CaseTally) -> CaseTally:
        self._tally += other._tally
        return self

    def __add__(self, other: CaseTally) -> CaseTally:
        total = CaseTally(self.raters, self.bins)
        total += self
        total += other
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CaseTally):
            return NotImplemented
        mine, theirs = self._tally.__getstate__(), other._tally.__getstate__()
        return mine[:2] == theirs[:2] and np.array_equal(mine[2], theirs[2])

    def __repr__(self) -> str:
        return f"CaseTally(raters={self.raters}, bins={self.bins}): {self.voxels} voxels"

    def save(self, path: str | Path) -> None:
        """Write the tally to an npz file, whole or not at all.

        The file holds ``format``, ``format_version``, ``bins`` and the core's integer sums:
        ``votes``, ``score_bins``, ``confidence_bins``, ``squares`` and ``rater_scores``, uint64.
        """
        from twintrack.volumes.tally_files import write_tally  # nibabel takes its time

        sums = {name: getattr(self._tally, name) for name in _PARTS}
        write_tally(Path(path), KIND, bins=self.bins, **sums)

    @classmethod
    def load(cls, path: str | Path) -> CaseTally:
        """Read a tally that `save` wrote.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It is no tally, is damaged, or comes from a newer version; names the file.
        """
        from twintrack.volumes.tally_files import read_tally

        path = Path(path)
        found = read_tally(path, KIND, ("bins", *_PARTS), _LARGEST_FILE)
        with naming(path):
            raters, bins = len(found["rater_scores"]), int(found["bins"])
            # Before a tally of this size is made: its arrays are there.
            expected = {
                "votes": (len(THRESHOLDS) + 1, raters + 1),
                "score_bins": (bins + 1, raters + 3),
                "confidence_bins": (2, bins + 1, raters + 3),
                "squares": (2,),
                "rater_scores": (raters, 2),
            }
            for name, shape in expected.items():
                part = found[name]
                if part.dtype != np.uint64 or part.shape != shape:
                    raise InputError(
                        f"its {name} are {part.dtype} of shape {part.shape}, not uint64 of {shape}"
                    )
            tally = cls(raters, bins)
            sums = np.concatenate([found[name].ravel() for name in _PARTS])
            tally._tally = _with_sums(raters, bins, sums)
            return tally

    @property
    def votes(self) -> NDArray[np.uint64]:
        """Voxels by number of thresholds exceeded and number of votes: (7, N + 1)."""
        return self._tally.votes

    @property
    def voxels(self) -> int:
        """Number of voxels tallied."""
        return int(self.votes.sum())

    @property
    def score_bins(self) -> Bins:
        """Voxels by bin of the score; votes are marks."""
        rows = self._tally.score_bins
        return Bins(rows[:, 0], _fixed(rows[:, 1], rows[:, 2]), rows[:, 3:])

    @property
    def confidence_bins(self) -> Bins:
        """Voxels by bin of the confidence in the predicted class; votes are agreements with it."""
        background, tumour = self._tally.confidence_bins
        return Bins(
            background[:, 0] + tumour[:, 0],
            _fixed(background[:, 1], background[:, 2]) + _fixed(tumour[:, 1], tumour[:, 2]),
            (background[:, :1] - background[:, 3:]) + tumour[:, 3:],
        )

    @property
    def predicted_voxels(self) -> float:
        """Sum of the scores: the predicted volume in voxels."""
        return float(self.score_bins.total.sum())

    @property
    def rater_voxels(self) -> NDArray[np.uint64]:
        """Voxels that each rater marked: (N,)."""
        return np.asarray(self.score_bins.votes.sum(axis=0))

    @property
    def squared_scores(self) -> float:
        """Sum of the squared scores."""
        whole, fraction = self._tally.squares
        return float(_fixed(whole, fraction))

    @property
    def rater_scores(self) -> NDArray[np.float64]:
        """Sum of the scores of the voxels that each rater marked: (N,)."""
        rows = self._tally.rater_scores
        return _fixed(rows[:, 0], rows[:, 1])


def _with_sums(raters: int, bins: int, sums: NDArray[np.uint64]) -> _core.CaseTally:
    made = _core.CaseTally.__new__(_core.CaseTally)
    made.__setstate__((raters, bins, sums))
    return made


def _fixed(whole: NDArray[np.uint64], fraction: NDArray[np.uint64]) -> NDArray[np.float64]:
    one: int = _core.FIXED_SUM_ONE
    return np.asarray(whole, np.float64) + np.asarray(fraction, np.float64) / one
