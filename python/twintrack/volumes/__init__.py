"""Volumes in files: scores, annotations and label maps in, calibrated scores out.

Everything here keeps nibabel's axis order (x, y, z) and the file's own dtype and memory order,
never unpickles, and answers a bad file with a ValueError or OSError that names it.
"""

from twintrack.volumes.geometry import HEADER_PARTS, Volume, check_same_geometry
from twintrack.volumes.reading import (
    files_read,
    read_label_map,
    read_labels,
    read_score,
    read_volume,
)
from twintrack.volumes.writing import QUANTISATION_ERROR, write_volume

__all__ = [
    "HEADER_PARTS",
    "QUANTISATION_ERROR",
    "Volume",
    "check_same_geometry",
    "files_read",
    "read_label_map",
    "read_labels",
    "read_score",
    "read_volume",
    "write_volume",
]
