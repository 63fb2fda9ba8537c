"""The formats of files that say where their voxels lie: read whole, or the header alone."""

from __future__ import annotations

from pathlib import Path

from twintrack.errors import InputError
from twintrack.files import SEGMENTATION_SUFFIXES, SUFFIXES, split_suffix
from twintrack.volumes import metaimage, nifti, nrrd
from twintrack.volumes.channels import Stored
from twintrack.volumes.geometry import ghost

_NIFTI = (".nii", ".nii.gz")
_METAIMAGE = (".mha", ".mhd")

CONVERTERS = (
    "DICOM is not read: convert images with dcm2niix, DICOM SEG with dcmqi (segimage2itkimage) and "
    "RTSTRUCT with dcmrtstruct2nii or plastimatch; 3D Slicer reads and exports all of them"
)


def read_placed(path: Path) -> Stored:
    """Read a NIfTI, MetaImage or NRRD file whole, with the axes that it has.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        As the reader of its format; or the ending of its name is that of none.
    """
    suffix = split_suffix(path.name)[1]
    if suffix in _NIFTI:
        return nifti.read_nifti(path)
    if suffix in _METAIMAGE:
        return metaimage.read_metaimage(path)
    if nrrd.is_nrrd(path):
        return nrrd.read_nrrd(path)
    raise unknown_format(path)


def read_header(path: Path) -> Stored:
    """Read what `read_placed` returns, but an array without values; raises as it does."""
    suffix = split_suffix(path.name)[1]
    if suffix in _NIFTI:
        header = nifti.read_nifti_header(path)
        return header.stored(ghost(header.shape, header.dtype))
    if suffix in _METAIMAGE:
        return metaimage.read_metaimage_header(path)
    if nrrd.is_nrrd(path):
        return nrrd.read_nrrd_header(path)
    raise unknown_format(path)


def files_read(path: Path) -> list[Path]:
    """Return the files besides `path` that reading it opens: those with its voxels."""
    if split_suffix(path.name)[1] in _METAIMAGE:
        return metaimage.files_read(path)
    return nrrd.files_read(path) if nrrd.is_nrrd(path) else []


def unknown_format(path: Path) -> InputError:
    """Return the error for a file of which TwinTrack does not read the format."""
    known = ", ".join((*SUFFIXES, *SEGMENTATION_SUFFIXES))
    return InputError(
        f"unknown volume format; known are {known}",
        file=path,
        advice=CONVERTERS if is_dicom(path) else None,
    )


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its name or its first bytes."""
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        return True
    try:
        with path.open("rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except (OSError, ValueError):
        return False
