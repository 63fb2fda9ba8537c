"""Metrics of a case against several raters: the benchmark's, and more that evaluators use."""

from twintrack.metrics.bins import Bins
from twintrack.metrics.brier import Murphy
from twintrack.metrics.case_tally import CaseTally
from twintrack.metrics.evaluation import CaseMetrics, evaluate
from twintrack.metrics.figures import Figures
from twintrack.metrics.regions import near_tumour, scored
from twintrack.metrics.reliability import ReliabilityCurve, curve_of, reliability_curve
from twintrack.metrics.tally_evaluation import TallyMetrics, evaluate_tally

__all__ = [
    "Bins",
    "CaseMetrics",
    "CaseTally",
    "Figures",
    "Murphy",
    "ReliabilityCurve",
    "TallyMetrics",
    "curve_of",
    "evaluate",
    "evaluate_tally",
    "near_tumour",
    "reliability_curve",
    "scored",
]
