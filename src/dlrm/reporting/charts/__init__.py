"""Charts as inline SVG; the one room that knows matplotlib."""

from dlrm.reporting.charts.changes import Change, changes
from dlrm.reporting.charts.curves import curves, throughput
from dlrm.reporting.charts.devices import Part, stacks
from dlrm.reporting.charts.frontier import Dot, frontier
from dlrm.reporting.charts.gather import Gather, Spot, gather
from dlrm.reporting.charts.models import Row, rows
from dlrm.reporting.charts.operators import Piece, split, stacked
from dlrm.reporting.charts.parity import differences
from dlrm.reporting.charts.precision import Bits, precision
from dlrm.reporting.charts.predictions import Guess, predictions
from dlrm.reporting.charts.roofline import Point, Roof, roofline
from dlrm.reporting.charts.scaling import scaling
from dlrm.reporting.charts.scores import calibration, histogram, predicted, residuals

__all__ = [
    "Bits",
    "Change",
    "Dot",
    "Gather",
    "Guess",
    "Part",
    "Piece",
    "Point",
    "Roof",
    "Row",
    "Spot",
    "calibration",
    "changes",
    "curves",
    "differences",
    "frontier",
    "gather",
    "histogram",
    "precision",
    "predicted",
    "predictions",
    "residuals",
    "roofline",
    "rows",
    "scaling",
    "split",
    "stacked",
    "stacks",
    "throughput",
]
