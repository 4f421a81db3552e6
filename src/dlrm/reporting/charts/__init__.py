"""Charts as inline SVG; the one room that knows matplotlib."""

from dlrm.reporting.charts.curves import curves, throughput
from dlrm.reporting.charts.devices import Part, stacks
from dlrm.reporting.charts.frontier import Dot, frontier
from dlrm.reporting.charts.models import Row, rows
from dlrm.reporting.charts.parity import differences
from dlrm.reporting.charts.scaling import scaling
from dlrm.reporting.charts.scores import calibration, histogram

__all__ = [
    "Dot",
    "Part",
    "Row",
    "calibration",
    "curves",
    "differences",
    "frontier",
    "histogram",
    "rows",
    "scaling",
    "stacks",
    "throughput",
]
