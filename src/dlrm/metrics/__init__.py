"""How good predictions are: exact, streamed in pieces, mergeable, with their uncertainty.

values.py       AUC, log loss, normalized entropy, accuracy, calibration and ECE of clicks
regression.py   RMSE, MAE, R2 and bias of predicted numbers
tasks.py        which of these a task has, which choose the best model, and which way is better
stream.py       predictions gathered in pieces, for any number of labels
weights.py      how often each sample counts; all of the others take weights
calibration.py  scores against click rates, bin by bin
residuals.py    predicted numbers against labels, bin by bin, and how far off they are
segments.py     AUC within each of many segments at once, and per-user AUC
bootstrap.py    intervals of all of them, and of the difference of two models
resample.py     samples drawn again; click_rows.py what a click adds to the sums of such resamples
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
from dlrm.metrics.regression import RegressionValues, measure_regression
from dlrm.metrics.resample import RESAMPLES
from dlrm.metrics.residuals import PredictionBin, Residuals, prediction_bins, residuals
from dlrm.metrics.segments import SegmentAUC, UserAUC, auc_by_segment, user_auc
from dlrm.metrics.stream import Array, Metrics
from dlrm.metrics.tasks import (
    HIGHER_IS_BETTER,
    NAMES,
    SELECTING,
    Values,
    is_better,
    measure_for,
    selecting,
)
from dlrm.metrics.values import MetricValues, auc, measure
from dlrm.metrics.weights import Weights

__all__ = [
    "HIGHER_IS_BETTER",
    "LEVEL",
    "NAMES",
    "RESAMPLES",
    "SELECTING",
    "Array",
    "CalibrationBin",
    "Difference",
    "Interval",
    "MetricValues",
    "Metrics",
    "PredictionBin",
    "RegressionValues",
    "Residuals",
    "SegmentAUC",
    "UserAUC",
    "Values",
    "Weights",
    "auc",
    "auc_by_segment",
    "calibration_bins",
    "difference",
    "intervals",
    "is_better",
    "measure",
    "measure_for",
    "measure_regression",
    "prediction_bins",
    "residuals",
    "selecting",
    "sigmoid",
    "user_auc",
]
