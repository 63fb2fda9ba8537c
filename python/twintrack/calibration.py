"""Calibrator: fits the map from score to expert agreement, and applies it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.calibration_map import CalibrationMap
from twintrack.cross_validation import BinChoice, choose_bins
from twintrack.cut_refinement import refined_bins
from twintrack.fitted_on import FittedCase
from twintrack.map_band import MapBand, bootstrap_band
from twintrack.map_fit import IDENTITY, TARGETS, Target, fit_map
from twintrack.scalars import whole_number
from twintrack.score_tally import EqualMassBins, ScoreTally

if TYPE_CHECKING:
    import torch

__all__ = ["Calibrator"]

# Of a calibrator file, but not provenance.
FILE_FIELDS = ("format", "format_version", "knots", "fitted_on")


class Calibrator:
    """Calibrates segmentation scores to the response of several expert raters.

    Voxels are sorted by score into equal-mass bins; isotonic regression, weighted by the bins'
    sizes, fits their mean target; the map interpolates linearly between the bins' mean scores
    (TwinTrack paper, Section 2, Appendix A and D).

    Parameters
    ----------
    target : {"mhr", "single", "hard", "none"}
        What a calibrated score estimates.

        - ``"mhr"``: the mean human response, the fraction of raters who mark the voxel.
        - ``"single"``: the answer of one rater.
        - ``"hard"``: one map per rater's binary answers, averaged.
        - ``"none"``: nothing; the map is the identity.
    bins : int or "auto"
        Number M of equal-mass bins. ``"auto"`` chooses M by K-fold cross-validation over the cases.
    rater : int
        Which rater ``"single"`` follows, 0-based.
    exact : bool
        Read the voxels a second time to place the cuts between bins exactly. Without it a cut falls
        on the tally's grid, which is already exact for 16-bit scores; the sums in the bins are
        exact either way. `fit` does both passes; after `partial_fit` and `add_tally` call `refine`.
    folds : int
        Folds of the cross-validation of ``bins="auto"``.
    seed : int
        Seed of the split into folds.
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
    fitted_on_ : tuple of FittedCase, or None
        Digests of the cases that have a name and of their scores, sorted, by which an evaluation
        tells that it is on them; None if no case has a name, and for ``target="none"``.

    Notes
    -----
    Parameters that are set when the map is there hold for the next one, as scikit-learn has it:
    what is saved or computed of the map goes by those it was made with (`made_with_`).

    A copy or pickle has tallies of its own; scikit-learn's ``clone`` has the parameters alone.

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
    n_raters_: int
    n_cases_: int
    n_voxels_: int
    n_bins_: int
    fitted_on_: tuple[FittedCase, ...] | None
    # What the map was made with, and what is said of it: they come and go with it.
    _made_with: dict[str, Any]
    _provenance: dict[str, Any]

    def __init__(
        self,
        target: Target = "mhr",
        bins: int | Literal["auto"] = 250,
        rater: int = 0,
        *,
        exact: bool = False,
        folds: int = 5,
        seed: int = 0,
        region_rule: str | None = None,
        ensemble: Mapping[str, Any] | None = None,
    ) -> None:
        self.target = target
        self.bins = bins
        self.rater = rater
        self.exact = exact
        self.folds = folds
        self.seed = seed
        self.region_rule = region_rule
        self.ensemble = ensemble

    # --- scikit-learn's conventions -----------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - no nested parts
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Calibrator:
        """Set parameters by name; ValueError for a name that is none."""
        names = self._parameter_names()
        for name, value in params.items():
            if name not in names:
                raise ValueError(f"Calibrator has no parameter {name!r}; it has {', '.join(names)}")
            setattr(self, name, value)
        return self

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        shown = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != defaults[name].default
        ]
        return f"Calibrator({', '.join(shown)})"

    def __copy__(self) -> Calibrator:
        """Return a Calibrator of its own: voxels added to one do not come into the other."""
        return copy.deepcopy(self)

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.__dict__.get("_cases")) or "map_" in self.__dict__

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn calls this, so it is there; it is no dependency of ours.
        from sklearn.base import BaseEstimator

        return BaseEstimator.__sklearn_tags__(self)

    def __getattr__(self, name: str) -> Any:
        # Streaming fits compute the map when it is first asked for, not at every partial_fit.
        if name.endswith("_") and not name.startswith("__") and name in type(self).__annotations__:
            if self.__dict__.get("_cases") and "map_" not in self.__dict__:
                if self.exact and self.target != "none":
                    raise AttributeError(
                        f"no {name} yet: exact=True places the cuts in a second pass over the "
                        "voxels; call refine"
                    )
                self._fit_map()
                if name in self.__dict__:
                    return self.__dict__[name]
            if not self.__sklearn_is_fitted__():
                raise AttributeError(f"this Calibrator is not fitted yet: it has no {name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def check_parameters(self) -> None:
        """Raise ValueError or TypeError for a parameter that cannot be; all fitting begins so."""
        if self.target not in TARGETS:
            raise ValueError(f"target is {self.target!r}; it must be one of {', '.join(TARGETS)}")
        if self.ensemble is not None and not isinstance(self.ensemble, Mapping):
            raise TypeError(
                f"ensemble is {self.ensemble!r}; it must be a mapping such as "
                "{'average': 'logits'}"
            )
        if self.bins != "auto" and not (
            isinstance(self.bins, (int, np.integer)) and self.bins >= 1
        ):
            raise ValueError(f"bins is {self.bins!r}; it must be a positive whole number or 'auto'")
        if self.target == "single" and not isinstance(self.rater, (int, np.integer)):
            raise ValueError(f"rater is {self.rater!r}; it must be a number, counted from 0")
        if self.bins == "auto":
            whole_number(self.folds, "folds", 2)
            whole_number(self.seed, "seed", 0)
        if self.bins == "auto" and self.exact:
            raise ValueError(
                "bins='auto' chooses from tallies alone; give a number with exact=True"
            )

    # --- fitting ------------------------------------------------------------------------------

    def fit(
        self,
        score: ArrayLike | Sequence[ArrayLike],
        raters: ArrayLike | Sequence[ArrayLike],
        region: ArrayLike | Sequence[ArrayLike | None] | None = None,
    ) -> Calibrator:
        """Fit the map.

        Parameters
        ----------
        score : array (*shape) of one case, or a list with one array per case
            Probabilities in [0, 1]: float16, bfloat16, float32 or float64.
        raters : (N, *shape) array or list of N arrays of one case, or a list of these, one per case
            Labels 0 and 1 in any dtype.
        region : boolean array (*shape) of one case, or a list of these, optional
            Voxels that count; all by default.

        Raises
        ------
        ValueError
            Names the case, array, voxel and value that break a rule, or says that no voxel counts.
            The Calibrator is then as it was before.
        """
        self.check_parameters()
        cases = _as_cases(score, raters, region)
        before = dict(self.__dict__)
        self._reset()
        try:
            for index, (one_score, one_raters, one_region) in enumerate(cases):
                try:
                    self._add(one_score, one_raters, one_region, str(index))
                except (TypeError, ValueError) as error:
                    if len(cases) == 1:
                        raise
                    raise type(error)(f"case {index}: {error}") from error
            self._fit_map(cases if self.exact else None)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def partial_fit(
        self,
        score: ArrayLike,
        raters: ArrayLike,
        region: ArrayLike | None = None,
        case: str | None = None,
    ) -> Calibrator:
        """Add the voxels of a case, or of a part of one; memory does not grow with their number.

        The map is as `fit` would make it from all voxels so far, in any order; with ``exact=True``
        it is there after `refine`.

        Parameters
        ----------
        score, raters, region
            As in `fit`, one case.
        case : str, optional
            Name of the case. Voxels given under one name belong together when cases are resampled
            (`bootstrap_band`) or held out (``bins="auto"``); a named case takes about 1 MB. Unnamed
            voxels are all counted as one case.
        """
        self.check_parameters()
        self._begin()
        self._add(score, raters, region, case)
        if case is not None:
            self._fitted_on.setdefault(*FittedCase.named(case))
        self._forget_map()
        return self

    def add_tally(
        self,
        tally: ScoreTally,
        case: str | None = None,
        *,
        region: str | None = None,
        cases: int = 1,
    ) -> Calibrator:
        """Add a tally made elsewhere, as `partial_fit` adds voxels.

        Parameters
        ----------
        tally : ScoreTally
        case : str, optional
            Name of the case; see `partial_fit`.
        region : str, optional
            Which voxels it counted ("roi", "box", …): recorded with the map.
        cases : int
            Number of cases whose sum it is.
        """
        self.check_parameters()
        self._begin()
        self._check_raters(tally.raters)
        if case in self._cases:
            self._cases[case] += tally
            # More of the unnamed voxels is no further case, unless it is said to be.
            self._numbers[case] += cases - 1
        else:
            self._cases[case] = tally.copy()
            self._numbers[case] = cases
        self._cases[case].compact()
        if region is not None:
            self._regions.add(region)
        if case is not None and cases == 1:
            self._fitted_on.setdefault(*FittedCase.named(case))
        self._forget_map()
        return self

    def record_cases(self, cases: Iterable[FittedCase]) -> Calibrator:
        """Record which cases the voxels and tallies are of that are added: for `fitted_on_`.

        `partial_fit` and `add_tally` record the names that they are given, but not the scores'
        files, nor the cases of a sum of tallies.
        """
        self._begin()
        for name, score in cases:
            if score is not None or name not in self._fitted_on:
                self._fitted_on[name] = score
        self._forget_map()
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

        Examples
        --------
        >>> import numpy as np
        >>> from twintrack import Calibrator, ScoreTally
        >>> score = np.random.default_rng(0).random(1000, np.float32)
        >>> raters = [score > 0.4, score > 0.6]
        >>> tally = ScoreTally(2).update(score, raters)
        >>> calibrator = Calibrator(bins=10, exact=True).add_tally(tally, "A")
        >>> calibrator.refine([(score, raters, None)]).n_bins_
        10
        """
        self.check_parameters()
        self._tallies()
        if not self.exact:
            raise ValueError("refine places cuts exactly: make the Calibrator with exact=True")
        if iter(cases) is cases:
            raise TypeError("cases is an iterator, which can be gone through once; give a list")
        self._forget_map()
        self._fit_map(cases)
        return self

    def merge(self, other: Calibrator) -> Calibrator:
        """Add everything that another, unfinished or finished, Calibrator has seen.

        Raises
        ------
        ValueError
            If a case name occurs in both, or raters or parameters differ: those of the next map
            here from those that the other's map was made with, or is going to be.
        """
        if other is self:
            raise ValueError("a Calibrator merged with itself would count every voxel twice")
        if "_cases" not in other.__dict__:
            raise ValueError("the other Calibrator holds no tallies to merge")
        mine = self.get_params()
        theirs = other.made_with_ if "map_" in other.__dict__ else other.get_params()
        differing = [name for name in mine if mine[name] != theirs[name]]
        if differing:
            name = differing[0]
            raise ValueError(f"{name} is {mine[name]!r} here but {theirs[name]!r} in the other")
        both = [case for case in other._cases if case is not None and case in self._tallies()]
        if both:
            raise ValueError(f"case {both[0]!r} is in both calibrators")
        for case, tally in other._cases.items():
            self.add_tally(tally, case, cases=other._numbers[case])
        self._regions |= other._regions
        return self.record_cases(FittedCase(*case) for case in other._fitted_on.items())

    @property
    def tallies_(self) -> dict[str | None, ScoreTally]:
        """Tally of each case by name; unnamed voxels are under None."""
        return dict(self._tallies())

    def bootstrap_band(
        self,
        scores: ArrayLike | None = None,
        *,
        resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> MapBand:
        """Return the pointwise band of the map over resampled cases, from the tallies alone.

        Parameters
        ----------
        scores : (S,) floats in [0, 1], optional
            Where to evaluate; 1001 equally spaced scores by default.
        resamples : int
            Number of times the cases are drawn with replacement and the map is fitted again.
        level : float
            Share of the resampled maps that the band holds at each score.
        seed : int

        Raises
        ------
        ValueError
            If there are fewer than two named cases.
        """
        at = np.linspace(0, 1, 1001) if scores is None else np.asarray(scores, np.float64)
        tallies = list(self._tallies().values())
        made_with = self.made_with_
        return bootstrap_band(
            tallies,
            self.map_,
            at,
            self.n_bins_asked,
            made_with["target"],
            made_with["rater"],
            resamples,
            level,
            seed,
        )

    @property
    def n_bins_asked(self) -> int:
        """Number of bins asked for, or chosen by cross-validation."""
        made_with = self.made_with_ if "map_" in self.__dict__ else self.get_params()
        if made_with["bins"] != "auto":
            return int(made_with["bins"])
        # The identity needs none.
        return 1 if made_with["target"] == "none" else self.bin_choice_.bins

    # --- applying -----------------------------------------------------------------------------

    def transform(self, score: ArrayLike, out: Any = None) -> Any:
        """Calibrate scores; see `CalibrationMap.__call__`."""
        return self.map_(score, out)

    predict = transform

    def fit_transform(
        self, score: ArrayLike, raters: ArrayLike, region: ArrayLike | None = None
    ) -> Any:
        """Fit to one case and return its calibrated scores."""
        return self.fit(score, raters, region).transform(score)

    def torch_module(self) -> torch.nn.Module:
        """Return the map as a torch module; see `CalibrationMap.torch_module`."""
        return self.map_.torch_module()

    def save(self, path: str | Path) -> None:
        """Write map and provenance to a JSON file; `twintrack.load_calibrator` reads it."""
        from twintrack.calibrator_file import write_calibrator

        write_calibrator(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Calibrator:
        """Read a file that `save` wrote; ValueError names what is wrong with it."""
        from twintrack.calibrator_file import read_calibrator

        return read_calibrator(Path(path))

    @property
    def region_(self) -> str:
        """Which voxels counted."""
        if "map_" in self.__dict__:
            return self._provenance.get("region") or "all"
        if "_regions" not in self.__dict__:
            return self.region_rule or "all"
        return "+".join(sorted(self._regions)) or self.region_rule or "all"

    @property
    def provenance_(self) -> dict[str, Any]:
        """What the calibrator file says of the map, knots aside."""
        _ = self.map_
        return copy.deepcopy(self._provenance)

    @property
    def made_with_(self) -> dict[str, Any]:
        """Parameters that the map was made with, by name; of a loaded one, as its file has them."""
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

    # --- inside -------------------------------------------------------------------------------

    def _check_raters(self, raters: int) -> None:
        known = next(iter(self._cases.values()), None)
        if known is not None and known.raters != raters:
            raise ValueError(f"it has {raters} raters but the cases before it have {known.raters}")
        if self.target == "single" and not 0 <= self.rater < raters:
            raise ValueError(f"rater is {self.rater} but there are {raters} raters, counted from 0")

    def _begin(self) -> None:
        """Be ready for a case to be added to those that are there."""
        if "_cases" not in self.__dict__:
            if "map_" in self.__dict__:
                raise ValueError("this Calibrator was loaded from a file, which holds no tallies")
            self._reset()

    def _reset(self) -> None:
        self._forget_map()
        self._cases: dict[str | None, ScoreTally] = {}
        self._numbers: dict[str | None, int] = {}  # of cases in each tally
        self._regions: set[str] = set()
        self._fitted_on: dict[str, str | None] = {}  # the items are those of `FittedCase`

    def _forget_map(self) -> None:
        for name in type(self).__annotations__:
            self.__dict__.pop(name, None)

    def _tallies(self) -> dict[str | None, ScoreTally]:
        if "_cases" not in self.__dict__:
            raise ValueError("this Calibrator holds no tallies: it is not fitted or was loaded")
        return self._cases

    def _add(
        self, score: ArrayLike, raters: ArrayLike, region: ArrayLike | None, case: str | None
    ) -> None:
        masks = raters if isinstance(raters, (list, tuple)) else list(raters)  # type: ignore[arg-type]
        if not masks:
            raise ValueError("raters is empty: at least one rater mask is needed")
        self._check_raters(len(masks))
        tally = self._cases.get(case) or ScoreTally(len(masks))
        tally.update(score, masks, region)
        if case is not None:
            tally.compact()  # one case among many; an unnamed stream keeps its table at hand
        self._cases[case] = tally
        self._numbers.setdefault(case, 1)
        self._regions.add(self.region_rule or ("all" if region is None else "mask"))

    def _fit_map(self, cases: Iterable[tuple[Any, Any, Any]] | None = None) -> None:
        tallies = self._tallies()
        if not tallies:
            raise ValueError("no voxels were given")
        self.check_parameters()  # they may have been set since the voxels were added
        first, *others = tallies.values()
        self._check_raters(first.raters)
        total = first.copy() if others else first
        for tally in others:
            total += tally
        if total.voxels == 0:
            raise ValueError("no voxel lies in the region: there is nothing to fit")
        self.n_raters_ = total.raters
        self.n_cases_ = sum(self._numbers.values())
        self.n_voxels_ = total.voxels
        self.fitted_on_ = None
        if self.target == "none":
            self.n_bins_ = 0
            self._set_map(IDENTITY, self._described())
            return
        if self.bins == "auto":
            self.bin_choice_ = choose_bins(
                list(tallies.values()), self.target, self.rater, int(self.folds), int(self.seed)
            )
        if cases is None:
            self.bins_ = total.equal_mass_bins(self.n_bins_asked)
        else:
            self.bins_ = refined_bins(total, self.n_bins_asked, cases)
        self.n_bins_ = len(self.bins_)
        if self._fitted_on:
            self.fitted_on_ = tuple(sorted(FittedCase(*case) for case in self._fitted_on.items()))
        self._set_map(fit_map(self.bins_, self.target, self.rater), self._described())

    def _described(self) -> dict[str, Any]:
        from twintrack.calibrator_file import describe

        return describe(self)

    def _set_map(self, fitted: CalibrationMap, provenance: Mapping[str, Any]) -> None:
        """Keep the map with what is said of it: what is set from now on holds for the next."""
        self._provenance = copy.deepcopy(dict(provenance))
        self._made_with = {**self.get_params(), "ensemble": self._provenance.get("ensemble")}
        self.map_ = fitted
        self.X_thresholds_ = fitted.x
        self.y_thresholds_ = fitted.y


def _as_cases(
    score: Any, raters: Any, region: Any
) -> list[tuple[ArrayLike, ArrayLike, ArrayLike | None]]:
    if not isinstance(score, (list, tuple)):
        return [(score, raters, region)]
    regions = [None] * len(score) if region is None else list(region)
    if len(raters) != len(score) or len(regions) != len(score):
        raise ValueError(
            f"there are {len(score)} scores but {len(raters)} sets of raters"
            + ("" if region is None else f" and {len(regions)} regions")
            + "; lists must have one entry per case"
        )
    if not score:
        raise ValueError("score is an empty list: at least one case is needed")
    return list(zip(score, raters, regions, strict=True))
