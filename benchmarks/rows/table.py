"""Every row of the table that `peers.py` prints, by its name on the command line."""

from rows.calibration.apply import Apply
from rows.calibration.fit import Fit
from rows.ensemble.ensemble import Export
from rows.metrics.ece import CalibrationError
from rows.metrics.evaluate import Evaluate
from rows.metrics.vascular import VascularInvasion
from rows.row import Row
from rows.statistics import Bootstrap
from rows.volumes import CaseFiles, Cohort

ROWS: dict[str, Row] = {
    "fit": Fit(),
    "apply": Apply(),
    "evaluate": Evaluate(),
    "vascular": VascularInvasion(),
    "case-files": CaseFiles(),
    "cohort": Cohort(),
    "bootstrap": Bootstrap(),
    "ece": CalibrationError(),
    "ensemble": Export(),
}
