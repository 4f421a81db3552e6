"""Names of metrics above the columns of tables on a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

CLASSIFICATION = {
    "auc": "AUC",
    "gauc": "per-user AUC",
    "log_loss": "log loss",
    "normalized_entropy": "NE",
    "accuracy": "accuracy",
    "calibration": "calibration",
    "ece": "ECE",
}
"""Metrics of labels that are 0 or 1."""

REGRESSION = {
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "bias": "bias",
    "calibration": "calibration",
}
"""Metrics of labels that are any numbers."""

METRICS = {**CLASSIFICATION, **REGRESSION}
"""Name of a metric -> what it is called."""


def of_labels(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each label of an evaluation and what was measured of it.

    Args:
        evaluation: As in `evaluation-SPLIT.json`: of several labels, each has an entry in `labels`;
            of one, the evaluation itself is yielded, with no name.

    """
    labels: Mapping[str, dict[str, Any]] = evaluation.get("labels") or {"": {}}
    for name, values in labels.items():
        yield name, {**evaluation, **values}


def known(metrics: Mapping[str, Any], *without: str) -> list[str]:
    """Return the names of the metrics that there are, in the order in which they are shown."""
    names = REGRESSION if "rmse" in metrics else CLASSIFICATION
    return [name for name in names if name in metrics and name not in without]


def shown(value: float | None) -> str:
    """Return a metric as tables show it."""
    return "-" if value is None else f"{value:.4f}"
