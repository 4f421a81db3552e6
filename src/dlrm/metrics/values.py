"""The metrics of predictions: of clicks, and of numbers in a regression."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError, DivergedError, unknown
from dlrm.metrics.auc import auc_of
from dlrm.metrics.bins import calibration_error
from dlrm.metrics.ordered import (
    check_numbers,
    cross_entropy,
    ordered,
    sigmoid,
)
from dlrm.metrics.weights import Weights, checked, mean, with_weight
from dlrm.schema import Task

NAMES: dict[Task, tuple[str, ...]] = {
    "classification": (
        "auc",
        "log_loss",
        "normalized_entropy",
        "accuracy",
        "calibration",
        "ece",
    ),
    "regression": ("rmse", "mae", "r2", "bias", "calibration"),
}
"""Task -> its metrics, in the order in which they are shown."""

SELECTING: dict[Task, tuple[str, ...]] = {
    "classification": ("auc", "log_loss", "normalized_entropy", "accuracy"),
    "regression": ("rmse", "mae", "r2"),
}
"""Task -> the metrics that can choose the best model; the first does where nothing else is said."""

HIGHER_IS_BETTER = frozenset({"auc", "gauc", "accuracy", "r2"})
"""Metrics of which more is better; of the others that choose a model less is."""


class MetricRecord(ABC):
    """The metrics of a label; None where one is undefined."""

    task: ClassVar[Task]
    samples: int
    """Rows, without those of weight 0."""

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the metrics by name."""
        return asdict(self)  # pyright: ignore[reportArgumentType]

    def require(self, name: str) -> float:
        """Return a metric that must be defined.

        Raises:
            ConfigError: There is no such metric; lists the choices.
            DatasetError: It is undefined for these samples; says why.

        """
        if name not in NAMES[self.task]:
            raise unknown("metric", name, NAMES[self.task])
        value = getattr(self, name)
        if value is None:
            raise DatasetError(f"{name} is undefined: {self.undefined()}")
        return value

    @abstractmethod
    def undefined(self) -> str | None:
        """Say in words why a metric is None; None where all are defined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValues(MetricRecord):
    """The metrics of a set of click predictions; None where one is undefined.

    AUC and normalized entropy are undefined when all labels are equal, calibration without clicks,
    everything without samples. Where samples have weights, each counts as often as its weight says.
    """

    task: ClassVar[Task] = "classification"
    auc: float | None = None
    """Chance that a click scores above a non-click, ties counting half."""
    log_loss: float | None = None
    """Mean binary cross-entropy, in nats."""
    normalized_entropy: float | None = None
    """Log loss over the entropy of the click rate: 1 is as good as always predicting that rate.
    (He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.)"""
    accuracy: float | None = None
    """Share of samples whose score rounds to the label."""
    calibration: float | None = None
    """Mean score over click rate: above 1 the model predicts too many clicks."""
    ece: float | None = None
    """Expected calibration error: mean |score - click rate| over 20 bins of equal numbers."""
    ece_noise: float | None = None
    """The ECE that scores which are exactly right would have on so many samples, by luck."""
    click_rate: float | None = None
    samples: int = 0
    """Rows, without those of weight 0."""

    def undefined(self) -> str | None:
        """Say in words why a metric is None; see `MetricRecord.undefined`."""
        if not self.samples:
            return "there are no samples"
        if self.auc is not None:
            return None
        label = 1 if self.click_rate else 0
        what = f"all {self.samples:,} samples have the label {label}"
        return f"{what}, and it needs both labels; log_loss and accuracy are defined"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionValues(MetricRecord):
    """The metrics of predicted numbers p against labels y; None where one is undefined.

    R2 is undefined when all labels are equal, calibration when their mean is 0, everything without
    samples. Where samples have weights, each counts as often as its weight says.
    """

    task: ClassVar[Task] = "regression"
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

    def undefined(self) -> str | None:
        """Say in words why a metric is None; see `MetricRecord.undefined`."""
        if not self.samples:
            return "there are no samples"
        if self.r2 is None:
            return f"all {self.samples:,} samples have the label {self.mean_label:g}"
        return "the mean label is 0" if self.calibration is None else None


def measure(
    logits: NDArray[np.floating], labels: NDArray[np.number], weights: Weights = None
) -> MetricValues:
    """Return all metrics of these predictions.

    Equal sets of rows give equal metrics, bit for bit, whatever their order.

    Raises:
        DatasetError: The arrays are not equally long, or a weight is negative or no number.
        DivergedError: A logit is no number, or infinite where it is wrong.

    """
    logits, labels, weights = with_weight(logits, labels, weights)
    samples = len(labels)
    rows = ordered(logits, labels, weights=weights)
    if samples == 0:
        return MetricValues()
    scores = sigmoid(rows.scores)
    clicks = int(np.count_nonzero(rows.clicks))
    click_rate = _share(rows.clicks, rows.weights)
    log_loss = mean(cross_entropy(rows.scores, rows.clicks), rows.weights)
    if not np.isfinite(log_loss):
        raise DivergedError("a score is infinite: the model has diverged; try a smaller optim.lr")
    ece, ece_noise = calibration_error(scores, rows.clicks, rows.weights)
    both = 0 < clicks < samples
    return MetricValues(
        auc=auc_of(rows),
        log_loss=log_loss,
        normalized_entropy=log_loss / float(entropy(click_rate)) if both else None,
        accuracy=_share((rows.scores > 0) == rows.clicks, rows.weights),
        calibration=mean(scores, rows.weights) / click_rate if click_rate else None,
        ece=ece,
        ece_noise=ece_noise,
        click_rate=click_rate,
        samples=samples,
    )


def measure_regression(
    predictions: NDArray[np.floating], labels: NDArray[np.number], weights: Weights = None
) -> RegressionValues:
    """Return all metrics of these predictions.

    Equal sets of rows give equal metrics, bit for bit, whatever their order.

    Raises:
        DatasetError: The arrays are not equally long, or a weight is negative or no number.
        DivergedError: A prediction is no number, or infinite.

    """
    checked(len(labels), scores=predictions)
    predictions, labels, weights = with_weight(predictions, labels, weights)
    samples = len(labels)
    if samples == 0:
        return RegressionValues()
    check_numbers(predictions)
    if not np.isfinite(predictions).all():
        raise DivergedError(
            "a prediction is infinite: the model has diverged; try a smaller optim.lr"
        )
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


Values = MetricValues | RegressionValues
"""The metrics of a label."""


def is_better(name: str, value: float, other: float) -> bool:
    """Return whether a value of a metric that can choose a model is better than another."""
    return value > other if name in HIGHER_IS_BETTER else value < other


def selecting(task: Task, name: str = "auto") -> str:
    """Return the metric that chooses the best model.

    `auto` is the first of `SELECTING`.

    Raises:
        ConfigError: It cannot choose a model of this task; lists the choices.

    """
    if name == "auto":
        return SELECTING[task][0]
    if name not in SELECTING[task]:
        raise unknown(f"metric that chooses the best {task}", name, ("auto", *SELECTING[task]))
    return name


def measure_for(
    task: Task,
) -> Callable[[NDArray[np.floating], NDArray[np.number], Weights], Values]:
    """Return what measures logits (S,) against labels (S,), with weights (S,) or None."""
    return measure_regression if task == "regression" else measure


def _share(true: NDArray[np.bool_], weights: Weights) -> float:
    """Return the share of rows (S,) that are true."""
    if weights is None:
        return float(np.count_nonzero(true) / len(true))
    return float((weights * true).sum() / weights.sum())


def entropy(rate: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy of a click rate in (0, 1), in nats."""
    p = np.asarray(rate, dtype=np.float64)
    return -(p * np.log(p) + (1.0 - p) * np.log1p(-p))
