"""CalibratorParameters: what a calibrator is asked for, by scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from twintrack.arrays.numbers import whole_number
from twintrack.calibration.map_bounds import Bound
from twintrack.calibration.map_fit import TARGETS, Target
from twintrack.calibration.parametric import KINDS, MapKind
from twintrack.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(eq=False, repr=False)
class CalibratorParameters:
    """Parameters of a `Calibrator`, which describes them."""

    target: Target = "mhr"
    bins: int | Literal["auto", "cells"] = 250
    rater: int = 0
    _: KW_ONLY
    kind: MapKind = "isotonic"
    exact: bool = False
    folds: int = 5
    seed: int = 0
    floor: Bound = 0.0
    ceiling: Bound = 1.0
    case_weight: Literal["voxels", "cases"] = "voxels"
    region_rule: str | None = None
    ensemble: Mapping[str, Any] | None = None

    @property
    def asks_cases(self) -> bool:
        """Whether a fit needs to know the cases, not their sum alone."""
        return self.case_weight == "cases" or "auto" in (self.bins, self.floor, self.ceiling)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - no nested parts
        """Return the parameters by name."""
        return {field.name: getattr(self, field.name) for field in fields(CalibratorParameters)}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ValueError for a name that is none."""
        names = self.get_params()
        for name, value in params.items():
            if name not in names:
                raise InputError(f"Calibrator has no parameter {name!r}; it has {', '.join(names)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        default = CalibratorParameters().get_params()
        changed = {n: v for n, v in self.get_params().items() if v != default[n]}
        return f"Calibrator({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

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
        self._check_kind()
        if self.ensemble is not None and not isinstance(self.ensemble, Mapping):
            raise TypeError(
                f"ensemble is {self.ensemble!r}; it must be a mapping such as "
                "{'average': 'logits'}"
            )
        if self.bins not in ("auto", "cells") and not (
            isinstance(self.bins, (int, np.integer)) and self.bins >= 1
        ):
            raise InputError(
                "it must be a positive whole number, 'auto' or 'cells'",
                argument="bins",
                value=self.bins,
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
        if self.bins == "cells" and self.exact:
            raise InputError(
                "bins='cells' has no cuts that exact=True could place; give a number of bins"
            )
        if self.case_weight not in ("voxels", "cases"):
            raise InputError(
                "it must be 'voxels' or 'cases'; numbers are given to fit, one per case",
                argument="case_weight",
                value=self.case_weight,
            )
        self._check_bounds()

    def _check_kind(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"it must be one of {', '.join(KINDS)}", argument="kind", value=self.kind
            )
        if self.kind != "isotonic" and self.target == "none":
            raise InputError("target='none' is the identity: leave kind out")
        if self.kind != "isotonic" and (self.exact or self.bins != 250):
            raise InputError(f"kind={self.kind!r} has no bins: leave out bins and exact")
        if self.target == "majority" and self.exact:
            raise InputError(
                "exact=True reads the votes of each rater again, and target='majority' follows "
                "none of them: leave it out"
            )

    def _check_bounds(self) -> None:
        bounds: dict[str, Any] = {"floor": self.floor, "ceiling": self.ceiling}
        numbers = {}
        for name, value in bounds.items():
            if isinstance(value, str) and value == "auto":
                continue
            if not (isinstance(value, (float, int, np.floating, np.integer)) and 0 <= value <= 1):
                raise InputError(
                    "it must be a number from 0 to 1, or 'auto'", argument=name, value=value
                )
            numbers[name] = float(value)
        if len(numbers) == 2 and not numbers["floor"] < numbers["ceiling"]:
            raise InputError(
                f"it must be less than the ceiling, {self.ceiling}",
                argument="floor",
                value=self.floor,
            )
        if self.target == "none" and numbers != {"floor": 0.0, "ceiling": 1.0}:
            raise InputError(
                "floor and ceiling bound a map that is fitted; target='none' is the identity: "
                "leave them out"
            )
