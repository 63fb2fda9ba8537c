"""Calibrate segmentation scores to expert disagreement, and measure the result exactly."""

from twintrack.calibration import Calibrator
from twintrack.calibration_map import CalibrationMap, isotonic
from twintrack.calibrator_file import read_calibrator as load_calibrator
from twintrack.ensemble import (
    ExportGeometry,
    ensemble_record,
    ensemble_score,
    export_score,
)
from twintrack.map_band import MapBand
from twintrack.metrics import CaseMetrics, CaseTally, evaluate, reliability_curve
from twintrack.score_tally import EqualMassBins, ScoreTally
from twintrack.statistics import bootstrap, paired_bootstrap
from twintrack.version import __version__

__all__ = [
    "CalibrationMap",
    "Calibrator",
    "CaseMetrics",
    "CaseTally",
    "EqualMassBins",
    "ExportGeometry",
    "MapBand",
    "ScoreTally",
    "__version__",
    "bootstrap",
    "ensemble_record",
    "ensemble_score",
    "evaluate",
    "export_score",
    "isotonic",
    "load_calibrator",
    "paired_bootstrap",
    "reliability_curve",
]
