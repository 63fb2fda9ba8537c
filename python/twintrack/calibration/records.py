"""What calibrator files, and lists of cases in other files, must hold; fields may be added to them.

Imported where files are read and nowhere else: msgspec may be missing where arrays alone are used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

from twintrack.calibration.fitted_on import Kind
from twintrack.calibration.map_band import BandKind
from twintrack.calibration.map_fit import TARGETS, Target
from twintrack.calibration.parametric import KINDS, MapKind


class FittedCaseRecord(Struct):
    """A `FittedCase`."""

    case: str
    score: str | None = None
    patient: str | None = None


FittedCases: TypeAlias = Annotated[
    list[FittedCaseRecord] | None,
    Meta(description="be null or a list of objects with case and score"),
]
"""What `FittedCase.list_from_json` takes."""

OverlapRecord: TypeAlias = Annotated[
    dict[Kind, tuple[str, ...]] | None,
    Meta(description=f"be null or an object of lists of cases: {', '.join(get_args(Kind))}"),
]
"""`Overlap` as JSON has it; None if it is not known."""

_Count = Annotated[int, Meta(ge=0, description="be a whole number")]


class Version(Struct):
    """Version of the format, which comes before all else."""

    format_version: Annotated[int, Meta(ge=1, description="be a positive number")]


class Knots(Struct):
    """Knots of the map."""

    x: list[float]
    y: list[float]


class Bins(Struct):
    """What the file says of the bins."""

    asked: Annotated[int, Meta(ge=1, description="be a number of at least 1")] = 250
    made: _Count = 0
    exact: Annotated[bool, Meta(description="be true or false")] = False
    rule: Annotated[str, Meta(description="be a text")] = "equal mass"


_Probability = Annotated[float, Meta(ge=0, le=1, description="be a number from 0 to 1")]


class Bounds(Struct):
    """Floor and ceiling of the map, and which of them were chosen by the fit."""

    floor: _Probability = 0.0
    ceiling: _Probability = 1.0
    auto: tuple[Literal["floor", "ceiling"], ...] = ()


class Facts(Struct):
    """What `MapFacts.to_dict` gives."""

    top: _Probability
    last_bin_votes: float
    knots_above: _Count
    off_cells: float
    votes: _Count
    votes_at_zero: _Count
    log_score: float | None
    line: str
    warnings: tuple[str, ...]


_Positive = Annotated[float, Meta(ge=0, description="be a number of at least 0")]


class BandRecord(Struct):
    """The `MapBand` that is kept with the map."""

    level: Annotated[float, Meta(gt=0, lt=1, description="be above 0 and below 1")]
    kind: Annotated[BandKind, Meta(description=f"be one of {', '.join(get_args(BandKind))}")]
    groups: _Count
    effective_groups: _Positive
    x: list[float]
    low: list[float]
    high: list[float]


class VolumesRecord(Struct):
    """Its `VolumeSpread`."""

    offset: Annotated[float, Meta(gt=0, description="be a number above 0")]
    centre: float
    spread: _Positive
    effective_groups: Annotated[float, Meta(gt=1, description="be a number above 1")]
    cases: _Count
    groups: _Count


class KnownThresholds(Struct):
    """What `Thresholds.to_dict` gives."""

    majority: _Probability | None = None
    dice: _Probability | None = None


class UpdateRecord(Struct):
    """An affine update of the map's log-odds by an audit."""

    a: _Positive
    b: float
    cases: _Count
    patients: _Count


class CalibratorRecord(Struct):
    """What is asked of a calibrator file."""

    knots: Annotated[Knots, Meta(description="hold the lists of numbers x and y")]
    target: Annotated[Target, Meta(description=f"be one of {', '.join(TARGETS)}")]
    raters: _Count
    cases: _Count
    voxels: _Count
    kind: Annotated[MapKind, Meta(description=f"be one of {', '.join(KINDS)}")] = "isotonic"
    parameters: tuple[dict[str, float], ...] = ()
    prevalence: _Probability | None = None
    rater: Annotated[_Count | None, Meta(description="be null or the number of a rater")] = None
    region: Annotated[str | None, Meta(description="be null or a text")] = None
    bins: Bins | None = None
    bounds: Bounds | None = None
    facts: Annotated[Facts | None, Meta(description="be null or the facts of the map")] = None
    case_weight: Annotated[str, Meta(description="be a text")] = "voxels"
    thresholds: Annotated[
        KnownThresholds | None, Meta(description="be null or the thresholds majority and dice")
    ] = None
    ensemble: Annotated[dict[str, Any] | None, Meta(description="be null or an object")] = None
    fitted_on: FittedCases = None
    update: UpdateRecord | None = None
    band: BandRecord | None = None
    volumes: VolumesRecord | None = None
