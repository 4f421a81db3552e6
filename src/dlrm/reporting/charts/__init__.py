"""Charts as inline SVG; the one room that knows matplotlib."""

from dlrm.reporting.charts.bars import Piece, shares_of, stacks
from dlrm.reporting.charts.lines import curves, differences, throughput
from dlrm.reporting.charts.machine import Gather, Point, Roof, gather, roofline
from dlrm.reporting.charts.points import Dot, Row, changes, frontier, precision, predictions, rows
from dlrm.reporting.charts.scores import calibration, histogram, predicted, residuals

__all__ = [
    "Dot", "Gather", "Piece", "Point", "Roof", "Row", "calibration", "changes", "curves",
    "differences", "frontier", "gather", "histogram", "precision", "predicted", "predictions",
    "residuals", "roofline", "rows", "shares_of", "stacks", "throughput",
]  # fmt: skip
