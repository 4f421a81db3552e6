"""Names of metrics above the columns of tables on a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from dlrm.metrics import NAMES
from dlrm.reporting.words import in_sentence

CLASSIFICATION = ("auc", "gauc", *NAMES["classification"][1:])
"""Metrics of labels that are 0 or 1, in the order in which they are shown."""
REGRESSION = NAMES["regression"]
"""Metrics of labels that are any numbers, in the order in which they are shown."""

METRICS = {name: in_sentence(name) for name in (*CLASSIFICATION, *REGRESSION)} | {
    "gauc": "per-user AUC",
    "normalized_entropy": "NE",
}
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
