"""Metrics of a case against several raters: the benchmark's, and more that evaluators use."""

from twintrack.metrics.case_tally import Bins, CaseTally
from twintrack.metrics.evaluation import CaseMetrics, evaluate
from twintrack.metrics.regions import near_tumour, scored
from twintrack.metrics.reliability import ReliabilityCurve, curve_of, reliability_curve

__all__ = [
    "Bins",
    "CaseMetrics",
    "CaseTally",
    "ReliabilityCurve",
    "curve_of",
    "evaluate",
    "near_tumour",
    "reliability_curve",
    "scored",
]
