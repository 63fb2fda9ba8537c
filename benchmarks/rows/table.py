"""Every row of the table that `peers.py` prints, by its name on the command line."""

from rows.apply import Apply
from rows.bootstrap import Bootstrap
from rows.ece import CalibrationError
from rows.ensemble import Export
from rows.evaluate import Evaluate
from rows.fit import Fit
from rows.row import Row
from rows.vascular import VascularInvasion
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
