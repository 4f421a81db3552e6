"""Bootstrap intervals: how much the metrics owe to the luck of which samples were drawn.

The ends are the 2.5% and 97.5% quantiles of a metric over resamples (Efron, Tibshirani, "An
Introduction to the Bootstrap", 1993). Where users are given they are drawn whole, since a user's
samples are alike.

On simulated scores whose true metrics are known, the intervals of 400 samples cover these 94 to 95
times of 100; that of ECE, which is biased, 90 to 97 times.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError
from dlrm.metrics.auc import user_auc
from dlrm.metrics.resample import (
    Blocks,
    ClickRows,
    Floats,
    RegressionRows,
    click_rows,
    regression_rows,
)
from dlrm.metrics.values import NAMES, measure_for
from dlrm.metrics.weights import Weights, checked, counting
from dlrm.schema import Task

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval that holds the metric on endless samples of the same kind, at `LEVEL`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One model's metric less another's, on the same samples."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0: more than the luck of the sample."""
        return not self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True)
class _Samples:
    """The rows that count, without their predictions."""

    labels: NDArray[np.number]
    users: NDArray[np.integer] | None
    weights: Weights
    keep: NDArray[np.bool_] | None
    """(S,) which of all rows count; None for all."""
    task: Task

    @classmethod
    def of(
        cls,
        labels: NDArray[np.number],
        users: NDArray[np.integer] | None,
        weights: Weights,
        task: Task,
    ) -> "_Samples":
        checked(len(labels), users=users, weights=weights)
        if (keep := counting(weights, len(labels))) is not None:
            labels = labels[keep]
            users = None if users is None else users[keep]
            weights = None if weights is None else weights[keep]
        return cls(labels, users, weights, keep, task)

    def values(self, logits: NDArray[np.floating]) -> dict[str, float | None]:
        values = measure_for(self.task)(logits, self.labels, self.weights)
        named: dict[str, float | None] = {name: getattr(values, name) for name in NAMES[self.task]}
        if self.users is not None and self.task == "classification":
            named["gauc"] = user_auc(logits, self.labels, self.users, self.weights).gauc
        return named

    def rows(self, logits: NDArray[np.floating]) -> ClickRows | RegressionRows:
        if self.task == "regression":
            return regression_rows(logits, self.labels, self.weights)
        return click_rows(logits, self.labels, self.users, self.weights)

    def blocks(self) -> Blocks:
        return Blocks(len(self.labels), self.users)


def intervals(
    logits: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None = None,
    weights: Weights = None,
    task: Task = "classification",
) -> dict[str, Interval | None]:
    """Return the interval of each metric, and of `gauc` where users and clicks are given.

    Returns:
        By name; None where the metric is undefined. Equal input gives equal intervals.

    """
    samples = _Samples.of(labels, users, weights, task)
    if samples.keep is not None:
        logits = logits[samples.keep]
    values = samples.values(logits)
    if not len(samples.labels):
        return dict.fromkeys(values)
    rows = samples.rows(logits)
    resampled = samples.blocks().resampled(rows)
    result: dict[str, Interval | None] = {}
    for name, value in values.items():
        if value is None:
            result[name] = None
            continue
        low, high = _ends(resampled[name], value)
        if name == "ece" and isinstance(rows, ClickRows):
            low, high = _mirrored((low, high), value)
            # Scores that are right do not have to look worse than they are.
            low = 0.0 if value <= rows.luck else max(low, 0.0)
            high = max(high, value if low == 0.0 else 0.0)
        result[name] = Interval(low, high)
    return result


def difference(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None = None,
    weights: Weights = None,
    task: Task = "classification",
) -> dict[str, Difference | None]:
    """Return the metrics of one model less those of another, with paired intervals.

    Both are measured on each resample, so that what both find hard or easy cancels.

    `a` and `b` are logits (S,), or predictions in a regression, of the same rows in the same order.

    Returns:
        By name, as `intervals`; positive where `a` has the larger value.

    """
    if len(a) != len(b):
        raise DatasetError(f"{len(a):,} scores against {len(b):,}: expected those of equal rows")
    samples = _Samples.of(labels, users, weights, task)
    if samples.keep is not None:
        a, b = a[samples.keep], b[samples.keep]
    values, other_values = samples.values(a), samples.values(b)
    if not len(samples.labels):
        return dict.fromkeys(values)
    blocks = samples.blocks()
    resampled, other_resampled = (blocks.resampled(samples.rows(logits)) for logits in (a, b))
    result: dict[str, Difference | None] = {}
    for name, value in values.items():
        other = other_values[name]
        if value is None or other is None:
            result[name] = None
            continue
        ends = _ends(resampled[name] - other_resampled[name], value - other)
        if name == "ece":
            ends = _mirrored(ends, value - other)
        result[name] = Difference(value - other, *ends)
    return result


def _ends(resampled: Floats, value: float) -> tuple[float, float]:
    """Return the quantiles of a metric over the resamples where it is defined."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return value, value
    low, high = np.quantile(defined, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return float(low), float(high)


def _mirrored(ends: tuple[float, float], value: float) -> tuple[float, float]:
    """Return the ends of an interval of ECE.

    Luck makes an ECE larger, and resampling makes it larger once more by as much. Around the value
    it is mirrored, which takes away what would be counted twice.
    """
    low, high = ends
    return 2.0 * value - high, 2.0 * value - low
