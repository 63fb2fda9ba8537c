"""The score of an ensemble, merged and exported in one pass, and the record of how it was made."""

from twintrack.ensemble.scores import (
    ANISOTROPY_LIMIT,
    Average,
    ExportGeometry,
    check_ensemble,
    core_map,
    ensemble_record,
    ensemble_score,
    export_score,
)

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
