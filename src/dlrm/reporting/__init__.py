"""Measurements to tables, plots and one HTML file."""

from dlrm.reporting.run import write

__all__ = ["write"]
