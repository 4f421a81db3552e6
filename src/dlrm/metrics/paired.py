"""How much worse predictions became, with an interval over the rows, for little time.

The loss is a mean over rows, and AUC one over clicks and over other rows (`placements`). The
differences of two predictions row by row say how
far chance moves the mean of them.

Source: DeLong, DeLong, Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver
Operating Characteristic Curves", Biometrics 44, 1988.
"""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.ordered import cross_entropy
from dlrm.schema import Task

Floats = NDArray[np.float64]
_NORMAL = 1.959964
"""Standard deviations on either side of the mean within which 95% lie."""


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
