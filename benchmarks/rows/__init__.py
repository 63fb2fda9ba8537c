"""The rows of the table that `peers.py` prints, one file per topic."""

from rows.apply import Apply, ApplyNew
from rows.fit import Fit, FitExact
from rows.row import Row

ROWS: dict[str, Row] = {
    "fit": Fit(),
    "fit-exact": FitExact(),
    "apply": Apply(),
    "apply-new": ApplyNew(),
}
