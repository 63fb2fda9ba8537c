"""Calibrate segmentation scores to expert disagreement, and measure the result exactly."""

from twintrack.calibration.calibration_map import CalibrationMap, isotonic
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.calibrator_file import read_calibrator as load_calibrator
from twintrack.calibration.equal_mass import EqualMassBins
from twintrack.calibration.map_band import MapBand
from twintrack.calibration.score_tally import ScoreTally
from twintrack.ensemble import (
    ExportGeometry,
    ensemble_record,
    ensemble_score,
    export_score,
)
from twintrack.errors import InputError
from twintrack.metrics import (
    CaseMetrics,
    CaseTally,
    TallyMetrics,
    evaluate,
    evaluate_tally,
    reliability_curve,
)
from twintrack.statistics import bootstrap, paired_bootstrap, sign_flip_test
from twintrack.version import __version__

__all__ = [
    "CalibrationMap",
    "Calibrator",
    "CaseMetrics",
    "CaseTally",
    "EqualMassBins",
    "ExportGeometry",
    "InputError",
    "MapBand",
    "ScoreTally",
    "TallyMetrics",
    "__version__",
    "bootstrap",
    "ensemble_record",
    "ensemble_score",
    "evaluate",
    "evaluate_tally",
    "export_score",
    "isotonic",
    "load_calibrator",
    "paired_bootstrap",
    "reliability_curve",
    "sign_flip_test",
]
