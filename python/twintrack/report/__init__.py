"""Tables, figures and the HTML report that compare methods.

Tables need the core install only; figures and the report need ``pip install 'twintrack[report]'``.
"""

from twintrack.report.build import build_report
from twintrack.report.comparison import Comparison, compare_methods
from twintrack.report.examples import Example, cut_example, read_examples, write_example
from twintrack.report.maps import MapPlot
from twintrack.report.method_results import MethodResults, Reliability, read_results, read_several

__all__ = [
    "Comparison",
    "Example",
    "MapPlot",
    "MethodResults",
    "Reliability",
    "build_report",
    "compare_methods",
    "cut_example",
    "read_examples",
    "read_results",
    "read_several",
    "write_example",
]
