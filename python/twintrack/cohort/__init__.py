"""Which files make up which case, and the arrays of a case ready to be tallied."""

from twintrack.cohort.case import Case
from twintrack.cohort.folders import find_scores, read_folders
from twintrack.cohort.loading import LoadedCase, load_case
from twintrack.cohort.manifest import read_manifest, write_manifest
from twintrack.cohort.region import RegionRule, annotated_box

__all__ = [
    "Case",
    "LoadedCase",
    "RegionRule",
    "annotated_box",
    "find_scores",
    "load_case",
    "read_folders",
    "read_manifest",
    "write_manifest",
]
