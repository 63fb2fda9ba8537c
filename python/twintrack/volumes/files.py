"""The package's file helpers under their former name; import them from `twintrack.files`."""

from twintrack.files import naming, replacing, split_suffix

__all__ = ["naming", "replacing", "split_suffix"]
