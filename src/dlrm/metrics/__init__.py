"""How good predictions are: exact, streamed in pieces, mergeable, with their uncertainty.

values.py       the metrics of clicks and of numbers, which choose a model, which way is better
auc.py          AUC of all rows, within segments and users, and what each row adds to it
bins.py         predictions against labels, bin by bin; calibration error; how far off numbers are
stream.py       predictions gathered in pieces, for any number of labels
weights.py      how often each sample counts; all of the others take weights
intervals.py    intervals of all of them, of the difference of two models, and of a change by row
resample.py     samples drawn again, and what each row adds to the sums of such resamples
ordered.py      rows sorted once, from which the others read sums

Legend: S samples, of which there are scores (S,), any monotonous ones where only their order
counts, or logits (S,) before the sigmoid, or the predictions (S,) of a regression; labels (S,) of 0
and 1, or any numbers; weights (S,), how often each sample counts, or None for once each; and users
(S,), the number of each row's user, below 2^31 and negative where there is none, or None.
"""

from dlrm.metrics.auc import auc, auc_by_segment, user_auc
from dlrm.metrics.bins import (
    calibration_bins,
    prediction_bins,
    residuals,
)
from dlrm.metrics.intervals import LEVEL, difference, intervals
from dlrm.metrics.ordered import sigmoid
from dlrm.metrics.resample import RESAMPLES
from dlrm.metrics.stream import Array, Metrics
from dlrm.metrics.values import (
    HIGHER_IS_BETTER,
    NAMES,
    SELECTING,
    MetricValues,
    RegressionValues,
    Values,
    is_better,
    measure,
    measure_for,
    measure_regression,
    selecting,
)

__all__ = [
    "HIGHER_IS_BETTER",
    "LEVEL",
    "NAMES",
    "RESAMPLES",
    "SELECTING",
    "Array",
    "MetricValues",
    "Metrics",
    "RegressionValues",
    "Values",
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
