"""Measurements to tables, plots and one HTML file."""

from dlrm.reporting.page import write

__all__ = ["write"]
