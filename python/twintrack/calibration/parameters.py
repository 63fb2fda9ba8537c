"""CalibratorParameters: what a calibrator is asked for, by scikit-learn's conventions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from twintrack.arrays.numbers import whole_number
from twintrack.calibration.map_fit import TARGETS, Target
from twintrack.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self


class CalibratorParameters:
    """Parameters of a `Calibrator`, which describes them."""

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

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - no nested parts
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ValueError for a name that is none."""
        names = self._parameter_names()
        for name, value in params.items():
            if name not in names:
                raise InputError(f"Calibrator has no parameter {name!r}; it has {', '.join(names)}")
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

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn calls this, so it is there; it is no dependency of ours.
        from sklearn.base import BaseEstimator

        return BaseEstimator.__sklearn_tags__(self)

    def check_parameters(self) -> None:
        """Raise ValueError or TypeError for a parameter that cannot be; all fitting begins so."""
        if self.target not in TARGETS:
            raise InputError(
                f"it must be one of {', '.join(TARGETS)}", argument="target", value=self.target
            )
        if self.ensemble is not None and not isinstance(self.ensemble, Mapping):
            raise TypeError(
                f"ensemble is {self.ensemble!r}; it must be a mapping such as "
                "{'average': 'logits'}"
            )
        if self.bins != "auto" and not (
            isinstance(self.bins, (int, np.integer)) and self.bins >= 1
        ):
            raise InputError(
                "it must be a positive whole number or 'auto'", argument="bins", value=self.bins
            )
        if self.target == "single" and not isinstance(self.rater, (int, np.integer)):
            raise InputError(
                "it must be a number, counted from 0", argument="rater", value=self.rater
            )
        if self.bins == "auto":
            whole_number(self.folds, "folds", 2)
            whole_number(self.seed, "seed", 0)
        if self.bins == "auto" and self.exact:
            raise InputError(
                "bins='auto' chooses from tallies alone; give a number with exact=True"
            )
