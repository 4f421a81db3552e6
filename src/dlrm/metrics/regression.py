"""The metrics of predicted numbers."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError, DivergedError, unknown
from dlrm.metrics.ordered import check_lengths, check_numbers
from dlrm.metrics.resample import Cells, Column, Floats, positive
from dlrm.metrics.weights import Weights, mean, with_weight

NAMES = ("rmse", "mae", "r2", "bias", "calibration")
"""The metrics, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionValues:
    """The metrics of predicted numbers p against labels y; None where one is undefined.

    R2 is undefined when all labels are equal, calibration when their mean is 0, everything without
    samples. Where samples have weights, each counts as often as its weight says.
    """

    rmse: float | None = None
    """Root of the mean squared error, sqrt(mean (p - y)^2)."""
    mae: float | None = None
    """Mean absolute error, mean |p - y|."""
    r2: float | None = None
    """Share of the labels' variance that is predicted, 1 - mean (p - y)^2 / variance of y: 1 is
    perfect, 0 as good as always predicting the mean label."""
    bias: float | None = None
    """Mean prediction less mean label."""
    calibration: float | None = None
    """Mean prediction over mean label: above 1 predictions are too large, where labels are not
    negative."""
    mean_label: float | None = None
    samples: int = 0
    """Rows, without those of weight 0."""

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the metrics by name."""
        return asdict(self)

    def require(self, name: str) -> float:
        """Return a metric that must be defined.

        Raises:
            ConfigError: There is no such metric; lists the choices.
            DatasetError: It is undefined for these samples; says why.

        """
        if name not in NAMES:
            raise unknown("metric", name, NAMES)
        value = getattr(self, name)
        if value is None:
            raise DatasetError(f"{name} is undefined: {self.undefined()}")
        return value

    def undefined(self) -> str | None:
        """Say in words why a metric is None; None where all are defined."""
        if not self.samples:
            return "there are no samples"
        if self.r2 is None:
            return f"all {self.samples:,} samples have the label {self.mean_label:g}"
        return "the mean label is 0" if self.calibration is None else None


def measure_regression(
    predictions: NDArray[np.floating], labels: NDArray[np.number], weights: Weights = None
) -> RegressionValues:
    """Return all metrics of these predictions.

    Equal sets of rows give equal metrics, bit for bit, whatever their order.

    Args:
        predictions: (S,).
        labels: (S,) any numbers.
        weights: (S,) how often each sample counts; None for once each.

    Raises:
        DatasetError: The arrays are not equally long, or a weight is negative or no number.
        DivergedError: A prediction is no number, or infinite.

    """
    check_lengths(predictions, labels)
    predictions, labels, weights = with_weight(predictions, labels, weights)
    samples = len(labels)
    if samples == 0:
        return RegressionValues()
    _check_finite(predictions)
    keys = (labels, predictions) if weights is None else (weights, labels, predictions)
    order = np.lexsort(keys)
    y = labels[order].astype(np.float64)
    error = predictions[order].astype(np.float64) - y
    by_row = None if weights is None else weights[order].astype(np.float64)
    mean_label, bias = mean(y, by_row), mean(error, by_row)
    squared = mean(np.square(error), by_row)
    spread = mean(np.square(y - mean_label), by_row)
    constant = y.min() == y.max()
    return RegressionValues(
        rmse=float(np.sqrt(squared)),
        mae=mean(np.abs(error), by_row),
        r2=None if constant else 1.0 - squared / spread,
        bias=bias,
        calibration=1.0 + bias / mean_label if mean_label else None,
        mean_label=float(y[0]) if constant else mean_label,
        samples=samples,
    )


_ROWS, _LABEL, _SQUARED_LABEL, _ERROR, _ABSOLUTE, _SQUARED = range(6)


@dataclass(frozen=True, slots=True)
class RegressionRows:
    """What each row adds to the sums; see `dlrm.metrics.resample.Rows`."""

    columns: tuple[Column, ...]
    """6 of (S,), in the order of their numbers; labels less `center`"""
    center: float
    """The mean label, without which squares of labels are not large beside their variance."""
    cells: Cells | None = None

    def metrics(self, totals: Floats) -> dict[str, Floats]:
        """Return each metric on R resamples (R,), NaN where undefined, from sums (6, R)."""
        label, squared_label, bias, absolute, squared = totals[1:] / totals[_ROWS]
        mean_square = squared_label + np.square(self.center)
        variance = positive(squared_label - np.square(label), mean_square)
        mean_label = label + self.center
        defined = np.abs(mean_label) > 1e-12 * np.sqrt(mean_square)
        return {
            "rmse": np.sqrt(squared),
            "mae": absolute,
            "r2": 1.0 - squared / variance,
            "bias": bias,
            "calibration": 1.0 + bias / np.where(defined, mean_label, np.nan),
        }


def regression_rows(
    predictions: NDArray[np.floating], labels: NDArray[np.number], weights: Weights = None
) -> RegressionRows:
    """Return what each of S rows adds.

    Args:
        predictions: (S,).
        labels: (S,) any numbers.
        weights: (S,) positive, or None.

    """
    y = labels.astype(np.float64)
    error = predictions.astype(np.float64) - y
    center = mean(y, weights)
    y -= center
    columns = (y, np.square(y), error, np.abs(error), np.square(error))
    if weights is not None:
        columns = tuple(column * weights for column in columns)
    return RegressionRows((weights, *columns), center)


def _check_finite(predictions: NDArray[np.floating]) -> None:
    check_numbers(predictions)
    if not np.isfinite(predictions).all():
        raise DivergedError(
            "a prediction is infinite: the model has diverged; try a smaller optim.lr"
        )
