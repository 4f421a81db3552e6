"""Intervals: how much the metrics owe to the luck of which samples were drawn.

The ends are the 2.5% and 97.5% quantiles of a metric over resamples (Efron, Tibshirani, "An
Introduction to the Bootstrap", 1993). Where users are given they are drawn whole, since a user's
samples are alike. On simulated scores whose true metrics are known, the intervals of 400 samples
cover these 94 to 95 times of 100; that of ECE, which is biased, 90 to 97 times.

`mean_change` takes less time and resamples nothing: the loss is a mean over rows, AUC one over
clicks and over other rows (`placements`), and the differences of two predictions row by row say how
far chance moves the mean of them (DeLong, DeLong, Clarke-Pearson, "Comparing the Areas under Two or
More Correlated Receiver Operating Characteristic Curves", Biometrics 44, 1988).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError
from dlrm.metrics.auc import user_auc
from dlrm.metrics.ordered import cross_entropy
from dlrm.metrics.resample import Blocks, Floats, rows_of
from dlrm.metrics.values import NAMES, measure_for
from dlrm.metrics.weights import Weights, checked, counting
from dlrm.schema import Task

LEVEL = 0.95
_NORMAL = 1.959964
"""Standard deviations on either side of the mean within which 95% lie."""


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


class _Measured(NamedTuple):
    """The metrics of some predictions."""

    values: dict[str, float | None]
    resampled: dict[str, Floats]
    """By name (R,): on each resample; empty where there are no rows."""
    luck: float
    """The ECE that scores which are exactly right exceed once in 40 times."""


def _measured(
    predictions: Sequence[NDArray[np.floating]],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None,
    weights: Weights,
    task: Task,
) -> Iterator[_Measured]:
    """Yield the metrics of several predictions of the same rows, each on the same resamples."""
    checked(len(labels), users=users, weights=weights)
    if (keep := counting(weights, len(labels))) is not None:
        predictions, labels = [logits[keep] for logits in predictions], labels[keep]
        users = None if users is None else users[keep]
        weights = None if weights is None else weights[keep]
    blocks = Blocks(len(labels), users)
    for logits in predictions:
        metrics = measure_for(task)(logits, labels, weights)
        values = {name: getattr(metrics, name) for name in NAMES[task]}
        if users is not None and task == "classification":
            values["gauc"] = user_auc(logits, labels, users, weights).gauc
        if not len(labels):
            yield _Measured(values, {}, 0.0)
            continue
        rows = rows_of(task, logits, labels, users, weights)
        yield _Measured(values, blocks.resampled(rows), rows.luck)


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
    ((values, resampled, luck),) = _measured([logits], labels, users, weights, task)
    result: dict[str, Interval | None] = dict.fromkeys(values)
    for name, value in values.items():
        if value is None:
            continue
        low, high = _ends(name, resampled[name], value)
        if name == "ece":
            # Scores that are right do not have to look worse than they are.
            low = 0.0 if value <= luck else max(low, 0.0)
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
    one, other = _measured([a, b], labels, users, weights, task)
    result: dict[str, Difference | None] = dict.fromkeys(one.values)
    for name, value in one.values.items():
        less = other.values[name]
        if value is not None and less is not None:
            apart = one.resampled[name] - other.resampled[name]
            result[name] = Difference(value - less, *_ends(name, apart, value - less))
    return result


def _ends(name: str, resampled: Floats, value: float) -> tuple[float, float]:
    """Return the quantiles of a metric over the resamples where it is defined.

    Luck makes an ECE larger, and resampling makes it larger once more by as much: around the value
    it is mirrored, which takes away what would be counted twice.
    """
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return value, value
    low, high = map(float, np.quantile(defined, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0]))
    return (2.0 * value - high, 2.0 * value - low) if name == "ece" else (low, high)


def row_losses(task: Task, logits: NDArray[np.floating], labels: NDArray) -> Floats:
    """Return the loss of each row (S,): cross entropy in nats, or the squared error."""
    if task == "regression":
        return (logits.astype(np.float64) - labels) ** 2
    return cross_entropy(logits, labels != 0)


def mean_change(changes: Floats, weights: Floats, kinds: NDArray[np.bool_] | None = None) -> Floats:
    """Return the mean of changes, and the ends of its 95% interval: (3,).

    Args:
        changes: (S,) of each row.
        weights: (S,) how much each counts.
        kinds: (S,) for changes of `placements` which rows are clicks; None for those of a loss.

    """
    groups = [np.ones(len(changes), np.bool_)] if kinds is None else [kinds, ~kinds]
    means, variance = [], 0.0
    for group in groups:
        share = weights[group] / weights[group].sum()
        means.append(share @ changes[group])
        variance += (share**2) @ (changes[group] - means[-1]) ** 2
    half = _NORMAL * sqrt(variance)
    return means[0] + np.array([0.0, -half, half])
