"""How good click predictions are: exact, streamed in pieces, mergeable, with their uncertainty.

values.py       AUC, log loss, normalized entropy, accuracy, calibration and ECE of predictions
calibration.py  scores against click rates, bin by bin
stream.py       predictions gathered in pieces
segments.py     AUC within each of many segments at once, and per-user AUC
bootstrap.py    intervals of all of them, and of the difference of two models
ordered.py      rows sorted once, from which the others read sums
"""

from dlrm.metrics.bootstrap import (
    LEVEL,
    Difference,
    Interval,
    difference,
    intervals,
)
from dlrm.metrics.calibration import CalibrationBin, calibration_bins
from dlrm.metrics.ordered import sigmoid
from dlrm.metrics.resample import RESAMPLES
from dlrm.metrics.segments import SegmentAUC, UserAUC, auc_by_segment, user_auc
from dlrm.metrics.stream import Array, Metrics
from dlrm.metrics.values import MetricValues, auc, measure

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "Array",
    "CalibrationBin",
    "Difference",
    "Interval",
    "MetricValues",
    "Metrics",
    "SegmentAUC",
    "UserAUC",
    "auc",
    "auc_by_segment",
    "calibration_bins",
    "difference",
    "intervals",
    "measure",
    "sigmoid",
    "user_auc",
]
