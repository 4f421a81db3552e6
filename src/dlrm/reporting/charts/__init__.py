"""Charts as inline SVG; the one room that knows matplotlib."""

from dlrm.reporting.charts.curves import curves, throughput
from dlrm.reporting.charts.scores import calibration, histogram

__all__ = ["calibration", "curves", "histogram", "throughput"]
