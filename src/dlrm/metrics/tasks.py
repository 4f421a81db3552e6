"""Which metrics a task has, which of them choose a model, and which way is better."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import unknown
from dlrm.metrics import regression, values
from dlrm.metrics.regression import RegressionValues, measure_regression
from dlrm.metrics.values import MetricValues, measure
from dlrm.metrics.weights import Weights
from dlrm.schema import Task

NAMES: dict[Task, tuple[str, ...]] = {
    "classification": values.NAMES,
    "regression": regression.NAMES,
}
"""Task -> its metrics, in the order in which they are shown."""

SELECTING: dict[Task, tuple[str, ...]] = {
    "classification": ("auc", "log_loss", "normalized_entropy", "accuracy"),
    "regression": ("rmse", "mae", "r2"),
}
"""Task -> the metrics that can choose the best model; the first does where nothing else is said."""

HIGHER_IS_BETTER = frozenset({"auc", "gauc", "accuracy", "r2"})
"""Metrics of which more is better; of the others that choose a model less is."""

Values = MetricValues | RegressionValues
"""The metrics of a label."""


def is_better(name: str, value: float, other: float) -> bool:
    """Return whether a value of a metric that can choose a model is better than another."""
    return value > other if name in HIGHER_IS_BETTER else value < other


def selecting(task: Task, name: str = "auto") -> str:
    """Return the metric that chooses the best model.

    Args:
        task: What labels are.
        name: Of the metric, or `auto` for the first of `SELECTING`.

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
