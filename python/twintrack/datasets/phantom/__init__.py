"""Synthetic multi-rater CT cohorts: any size, seeded, no medical data needed.

A case is an abdominal CT in portal venous phase with a pancreas, one hypodense tumour and the five
vessels of the CURVAS–PDACVI benchmark, segmented by N raters who disagree in a controlled way,
together with the score of an imagined network whose miscalibration is controlled too. `PhantomSpec`
lists the controls.

The anatomy is analytic: vessels are tubes, organs ellipsoids, the tumour an ellipsoid with a smooth
random surface from which the vessels are carved. What depends on the tumour (raters, score) is
evaluated in a box around it, so that a case costs little more than painting its image once.
"""

from twintrack.datasets.phantom.case import PhantomCase, phantom_case
from twintrack.datasets.phantom.cohort import write_cohort, write_panorama
from twintrack.datasets.phantom.ct import VESSEL_LABELS
from twintrack.datasets.phantom.spec import PhantomSpec
from twintrack.datasets.phantom.stream import score_stream

__all__ = [
    "VESSEL_LABELS",
    "PhantomCase",
    "PhantomSpec",
    "phantom_case",
    "score_stream",
    "write_cohort",
    "write_panorama",
]
