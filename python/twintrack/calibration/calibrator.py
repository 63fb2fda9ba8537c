"""Calibrator: fits the map from score to expert agreement, and applies it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.bounds import warn_of, with_roundings
from twintrack.arrays.case_arguments import naming_case, read_cases, read_groups
from twintrack.calibration.band_keeper import BandKeeper
from twintrack.calibration.bin_choice import BinChoice
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.case_gatherer import case_weights
from twintrack.calibration.case_tallies import CaseTallies
from twintrack.calibration.equal_mass import Bins, EqualMassBins, bins_asked
from twintrack.calibration.fitted_on import FittedCase
from twintrack.calibration.map_applier import MapApplier
from twintrack.calibration.map_band import MapBand
from twintrack.calibration.map_facts import MapFacts
from twintrack.calibration.map_fit import IDENTITY
from twintrack.calibration.map_making import MadeMap, make_map
from twintrack.calibration.thresholds import Thresholds, case_thresholds
from twintrack.errors import InputError

# Of a calibrator file, but not provenance.
FILE_FIELDS = ("format", "format_version", "knots", "fitted_on", "band", "volumes")


class Calibrator(BandKeeper, MapApplier):
    """Calibrates segmentation scores to the response of several expert raters.

    Voxels are sorted by score into equal-mass bins; isotonic regression, weighted by the bins'
    sizes, fits their mean target; the map interpolates linearly between the bins' mean scores
    (TwinTrack paper, Section 2, Appendix A and D).

    Parameters
    ----------
    target : {"mhr", "single", "hard", "majority", "none"}
        What a calibrated score estimates.

        - ``"mhr"``: the mean human response, the fraction of raters who mark the voxel.
        - ``"single"``: the answer of one rater.
        - ``"hard"``: one map per rater's binary answers, averaged.
        - ``"majority"``: whether more than half of the raters mark the voxel.
        - ``"none"``: nothing; the map is the identity.
    bins : int, "auto" or "cells"
        Number M of equal-mass bins. ``"auto"`` chooses M by K-fold cross-validation over the
        patients (`groups`), and over the sums of several cases that `add_tally` was given: the
        fewest bins that are not worse than the best by more than a standard error (`BinChoice`).
        ``"cells"`` is the limit of many bins: isotonic regression on the tally's grid, a bin for
        every cell that occurs.
    rater : int
        Which rater ``"single"`` follows, 0-based.
    kind : {"isotonic", "platt", "beta", "temperature"}
        Isotonic regression over bins, or a map with few parameters for comparison
        (`twintrack.calibration.parametric.fit_parametric`), which has no bins.
    exact : bool
        Read the voxels a second time to place the cuts between bins exactly. Without it a cut falls
        on the tally's grid, which is already exact for 16-bit scores; the sums in the bins are
        exact either way. `fit` does both passes; after `partial_fit` and `add_tally` call `refine`.
    folds : int
        Folds of the cross-validation of ``bins="auto"``.
    seed : int
        Seed of the split into folds, and of a simultaneous band.
    floor, ceiling : float or "auto"
        Bounds of the map, in [0, 1]: 0 and 1 as in the paper. ``"auto"`` is where half a vote per
        effective case brings the end blocks of the isotonic fit (`map_bounds.auto_bounds`): no
        voxel is then sent to a certain 0 or 1 because none of a few cases said otherwise.
    case_weight : {"voxels", "cases"}
        "voxels": every voxel counts the same; "cases": every patient does, whatever the size. The
        weights are rounded to whole numbers, to better than 1% (`case_weights`).
    region_rule : str, optional
        Which voxels the caller lets count ("roi", "box", …): recorded with the map. By default
        "mask" if regions are given and "all" otherwise.
    ensemble : mapping, optional
        How the score was made (e.g. ``{"average": "probabilities", "tumour": [1], "members": 3}``):
        recorded with the map and compared when it is applied inside a pipeline.

    Attributes
    ----------
    X_thresholds_, y_thresholds_ : (K,) float64
        Knots of the map, as in scikit-learn's IsotonicRegression.
    map_ : CalibrationMap
    bins_ : EqualMassBins
        The bins the map was fitted on (absent for ``target="none"`` and for loaded calibrators).
    n_raters_, n_cases_, n_voxels_, n_bins_ : int
    bin_choice_ : BinChoice
        Score of every M tried, if ``bins="auto"``.
    facts_ : MapFacts or None
        What the map can reach, and warnings where its bins have misled it; of a loaded calibrator
        as its file has them, None for ``target="none"``.
    thresholds_ : Thresholds or None
        Where masks of calibrated scores begin, which `threshold` returns; None where a map has no
        facts of its own, and in files of earlier versions.
    floor_, ceiling_ : float
        The bounds, as numbers.
    prevalence_ : float or None
        Share of the voxels that are tumour, by the answers that the map follows (mean response of
        the raters); None for ``target="none"`` and in files of earlier versions.
    parameters_ : tuple of dict
        Those of a map that has some, of "hard" for each rater; empty for isotonic maps.
    band_ : MapBand or None
        The band that `keep_band` keeps with the map, or that came with its file.
    fitted_on_ : tuple of FittedCase, or None
        Digests of the cases that have a name and of their scores, sorted, by which an evaluation
        tells that it is on them; None if no case has a name, and for ``target="none"``.

    Notes
    -----
    Parameters that are set when the map is there hold for the next one, as scikit-learn has it:
    what is saved or computed of the map goes by those it was made with (`made_with_`).

    Several threads may call `partial_fit` and `add_tally`: cases are tallied in parallel, and all
    sums, the map and the band are those of one thread. What is read meanwhile is the state of some
    moment. A copy or pickle has tallies of its own; scikit-learn's ``clone`` has the parameters
    alone.

    Examples
    --------
    >>> import numpy as np
    >>> from twintrack import Calibrator
    >>> rng = np.random.default_rng(0)
    >>> score = rng.random((20, 20, 20), dtype=np.float32)
    >>> raters = [rng.random(score.shape) < score**2 for _ in range(5)]
    >>> calibrated = Calibrator(bins=20).fit(score, raters).transform(score)
    """

    X_thresholds_: NDArray[np.float64]
    y_thresholds_: NDArray[np.float64]
    map_: CalibrationMap
    bins_: EqualMassBins
    bin_choice_: BinChoice
    facts_: MapFacts | None
    thresholds_: Thresholds | None
    floor_: float
    ceiling_: float
    prevalence_: float | None
    parameters_: tuple[dict[str, float], ...]
    band_: MapBand | None
    n_raters_: int
    n_cases_: int
    n_voxels_: int
    n_bins_: int
    fitted_on_: tuple[FittedCase, ...] | None
    # What the map was made with, and what is said of it: they come and go with it.
    _made: MadeMap  # until its facts are asked for
    _made_with: dict[str, Any]
    _provenance: dict[str, Any]

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.__dict__.get("_cases")) or "map_" in self.__dict__

    def __getattr__(self, name: str) -> Any:
        # Streaming fits compute the map when it is first asked for, not at every partial_fit.
        if name.endswith("_") and not name.startswith("__") and name in Calibrator.__annotations__:
            with self._lock:
                if self.__dict__.get("_cases") and "map_" not in self.__dict__:
                    if self.exact and self.target != "none":
                        raise AttributeError(
                            f"no {name} yet: exact=True places the cuts in a second pass over the "
                            "voxels; call refine"
                        )
                    self._fit_map()
                if name == "facts_" and "_made" in self.__dict__:
                    self.facts_ = self._made.facts()
                    del self._made
                if name == "thresholds_" and "_cases" in self.__dict__ and "map_" in self.__dict__:
                    weighted = self._cases.weighted(self._made_with["case_weight"])
                    self.thresholds_ = case_thresholds(self.map_, weighted)
                if name in self.__dict__:  # made here, or by another thread meanwhile
                    return self.__dict__[name]
            if not self.__sklearn_is_fitted__():
                raise AttributeError(f"this Calibrator is not fitted yet: it has no {name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # --- fitting ------------------------------------------------------------------------------

    def fit(
        self,
        score: ArrayLike | Sequence[ArrayLike],
        raters: ArrayLike | Sequence[Any],
        region: ArrayLike | Sequence[ArrayLike | None] | None = None,
        *,
        stacked: bool | None = None,
        groups: Sequence[Any] | None = None,
        case_weight: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> Calibrator:
        """Fit the map.

        Parameters
        ----------
        score : array (*shape) of one case, or a list with one array per case
            Probabilities in [0, 1]: float16, bfloat16, float32 or float64. Lists of numbers serve
            as arrays: one list of numbers is one case.
        raters : (N, *shape) array or list of N arrays of one case, or a list of these, one per case
            Labels 0 and 1 in any dtype. The first axis counts raters: ``[mask]`` is one rater. None
            in a list is a rater that the case does not have; what a NumPy masked array masks, the
            rater did not look at.
        region : array (*shape) of one case, or a list of these, optional
            Voxels that count: False and True, or 0 and one other value. All by default.
        stacked : bool, optional
            True: the first axes of score (C, *shape), raters (C, N, *shape) and region (C, *shape)
            count cases, none of which is copied. False: an array of scores is one case. By default
            it is one case, and what is, or may as well be, a stack of cases is an error.
        groups : sequence with one entry per case, optional
            The patient of each case, text or a whole number: patients are held out and resampled
            as a whole, as by scikit-learn's ``groups``. By default each case is a patient.
        case_weight : sequence with one number per case, optional
            By which the case's voxels are multiplied: 2 counts them twice, 0 leaves them out.
        ignore_label : int, optional
            Value of annotations at voxels that the rater did not look at, such as 255.

        Raises
        ------
        ValueError
            Names the case, array, voxel and value that break a rule, or says that no voxel counts.
            The Calibrator is then as it was before.
        TypeError
            For a dtype that does not fit, or a generator.
        """
        self.check_parameters()
        cases = read_cases(score, raters, region, stacked)
        patients = read_groups(groups, len(cases))
        weights = case_weights(case_weight, len(cases))
        with self._lock:
            before = dict(self.__dict__)
            self._forget_map()
            self._cases = CaseTallies()
            try:
                for index, case in enumerate(cases):
                    with naming_case(index, len(cases)):
                        named = (str(index), patients[index], weights[index])
                        add = functools.partial(self._add_arrays, *named, ignore_label)
                        warn_of(with_roundings(add, *case)[1])
                self._fit_map(cases if self.exact else None)
            except BaseException:
                for name in self.__dict__.keys() - before.keys():
                    del self.__dict__[name]
                self.__dict__.update(before)
                raise
        return self

    def refine(
        self,
        cases: Iterable[tuple[ArrayLike, ArrayLike | Sequence[ArrayLike], ArrayLike | None]],
    ) -> Calibrator:
        """Place the cuts between bins exactly, by a second pass over the voxels (``exact=True``).

        The first pass may have been `partial_fit` or `add_tally`, in other processes too. Like the
        first, the second needs the memory of one part at a time.

        Parameters
        ----------
        cases : iterable of (score, raters, region)
            The voxels of the first pass, in any parts and order; a region of None means all. It is
            gone through once for 16- and 32-bit scores (twice if a cut falls among scores below
            2^-24), a few times for float64: give a list or an object whose ``__iter__`` begins
            anew, not a generator.

        Raises
        ------
        ValueError
            ``exact`` is False, or there was no first pass.
        RuntimeError
            These are not the voxels of the first pass.
        """
        self.check_parameters()
        if not self.exact:
            raise InputError("refine places cuts exactly: make the Calibrator with exact=True")
        if iter(cases) is cases:
            raise TypeError("cases is an iterator, which can be gone through once; give a list")
        with self._lock:
            self._tallies()  # a map that was loaded has none, and stays
            self._forget_map()
            self._fit_map(cases)
        return self

    def finish(self, facts: bool = True) -> Calibrator:
        """Make the map now rather than when it is first asked for; without facts if wanted.

        Facts and thresholds are looked at when they are first asked for or saved; they take 10 to
        20 ms, and one or two for each case.
        """
        with self._lock:
            if "map_" not in self.__dict__:
                self._fit_map()
                if not facts:
                    self.__dict__.pop("_made", None)
                    self.facts_ = self.thresholds_ = None
        return self

    @property
    def bins_used(self) -> Bins:
        """Number of bins asked for, or what cross-validation has chosen: a number or "cells"."""
        made_with = self.made_with_ if "map_" in self.__dict__ else self.get_params()
        bins = made_with["bins"]
        if bins == "auto":  # the identity needs none
            bins = 1 if made_with["target"] == "none" else self.bin_choice_.bins
        return "cells" if bins == "cells" else int(bins)

    @property
    def n_bins_asked(self) -> int:
        """`bins_used` as `ScoreTally.equal_mass_bins` takes it: "cells" is a huge number."""
        return bins_asked(self.bins_used)

    def for_prevalence(self, prevalence: float, fitted: float | None = None) -> Calibrator:
        """Return a calibrator for voxels of which another share is tumour, by Bayes' rule.

        Parameters
        ----------
        prevalence, fitted : float
            Share of the voxels that is tumour there, and in the fit (by default `prevalence_`), as
            `twintrack.calibration.prevalence.with_prevalence` has them.
        """
        from twintrack.calibration.prevalence import with_prevalence

        return with_prevalence(self, prevalence, fitted)

    def save(self, path: str | Path) -> None:
        """Write map and provenance to a JSON file; `twintrack.load_calibrator` reads it."""
        from twintrack.calibration.calibrator_file import write_calibrator

        write_calibrator(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Calibrator:
        """Read a file that `save` wrote; ValueError names what is wrong with it."""
        from twintrack.calibration.calibrator_file import read_calibrator

        return read_calibrator(Path(path))

    @property
    def region_(self) -> str:
        """Which voxels counted."""
        if "map_" in self.__dict__:
            return self._provenance.get("region") or "all"
        regions = self._cases.regions if "_cases" in self.__dict__ else ()
        return "+".join(sorted(regions)) or self.region_rule or "all"

    @property
    def provenance_(self) -> dict[str, Any]:
        """What the calibrator file says of the map, knots aside."""
        with self._lock:
            _ = self.map_
            said = copy.deepcopy(self._provenance)
            if said.get("facts") is None and self.facts_ is not None:
                said["facts"] = self.facts_.to_dict()
            if said.get("thresholds") is None and self.thresholds_ is not None:
                said["thresholds"] = self.thresholds_.to_dict()
            return said

    @property
    def made_with_(self) -> dict[str, Any]:
        """Parameters that the map was made with, by name; of a loaded one, as its file has them."""
        with self._lock:
            _ = self.map_
            return copy.deepcopy(self._made_with)

    def restore(self, fitted: CalibrationMap, provenance: Mapping[str, Any]) -> None:
        """Take over a map read from a file, and what the file says of it."""
        said = {name: value for name, value in provenance.items() if name not in FILE_FIELDS}
        self._set_map(fitted, said)
        self.fitted_on_ = FittedCase.list_from_json(provenance.get("fitted_on"))
        self.n_raters_ = provenance["raters"]
        self.n_cases_ = provenance["cases"]
        self.n_voxels_ = provenance["voxels"]
        self.n_bins_ = (provenance.get("bins") or {}).get("made", 0)
        bounds, facts = provenance.get("bounds") or {}, provenance.get("facts")
        self.floor_, self.ceiling_ = bounds.get("floor", 0.0), bounds.get("ceiling", 1.0)
        self.parameters_ = tuple(provenance.get("parameters", ()))
        self.prevalence_ = provenance.get("prevalence")
        self.facts_ = None if facts is None else MapFacts.from_dict(facts)
        known = provenance.get("thresholds")
        self.thresholds_ = None if known is None else Thresholds.from_dict(known)

    # --- inside -------------------------------------------------------------------------------

    def _forget_map(self) -> None:
        for name in Calibrator.__annotations__:
            self.__dict__.pop(name, None)

    def _fit_map(self, cases: Iterable[tuple[Any, Any, Any]] | None = None) -> None:
        held = self._tallies().copy()  # other threads may add to what it is a copy of
        self.check_parameters()  # they may have been set since the voxels were added
        self._check_raters(held.raters)
        if held.voxels == 0:
            raise InputError("no voxel lies in the region: there is nothing to fit")
        gathered = held.weighted(self.case_weight)
        if cases is not None and gathered.is_weighted:
            raise InputError(
                "exact=True reads voxels again, which weigh the same there: leave it out, or the "
                "weights of cases"
            )
        total = gathered.total()
        self.n_raters_, self.n_cases_, self.n_voxels_ = held.raters, held.cases, held.voxels
        if self.target == "none":
            self.fitted_on_, self.n_bins_, self.facts_ = None, 0, None
            self.floor_, self.ceiling_, self.parameters_ = 0.0, 1.0, ()
            self.prevalence_ = None
            self._set_map(IDENTITY)
            return
        self.fitted_on_ = gathered.fitted_on
        made = self._made = make_map(self, gathered, total, cases)
        if made.choice is not None:
            self.bin_choice_ = made.choice
        self.bins_, self.n_bins_ = made.bins, 0 if made.parameters else len(made.bins)
        self.floor_, self.ceiling_ = made.floor, made.ceiling
        self.parameters_, self.prevalence_ = made.parameters, made.prevalence
        self._set_map(made.fitted)

    def _set_map(self, fitted: CalibrationMap, said: Mapping[str, Any] | None = None) -> None:
        """Keep the map with what is said of it: what is set from now on holds for the next."""
        from twintrack.calibration.calibrator_file import describe

        self._provenance = copy.deepcopy(dict(describe(self) if said is None else said))
        self._made_with = {**self.get_params(), "ensemble": self._provenance.get("ensemble")}
        self.map_, self.band_ = fitted, None
        self.X_thresholds_ = fitted.x
        self.y_thresholds_ = fitted.y
