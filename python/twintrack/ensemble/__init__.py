"""The score of an ensemble, merged and exported in one pass, and the record of how it was made."""

from twintrack.ensemble.export_geometry import ANISOTROPY_LIMIT, ExportGeometry
from twintrack.ensemble.fused_export import export_score
from twintrack.ensemble.merge import core_map, ensemble_score
from twintrack.ensemble.record import Average, check_ensemble, ensemble_record

__all__ = [
    "ANISOTROPY_LIMIT",
    "Average",
    "ExportGeometry",
    "check_ensemble",
    "core_map",
    "ensemble_record",
    "ensemble_score",
    "export_score",
]
