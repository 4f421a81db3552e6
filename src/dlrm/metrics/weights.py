"""Weights of samples: how often each one counts.

A sample of weight 2 counts as two equal ones, and one of weight 0 as none. Without weights every
sample counts once, and nothing is multiplied.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError

F = TypeVar("F", bound=np.floating)
N = TypeVar("N", bound=np.number)

Weights = NDArray[np.floating] | None
"""(S,) at least 0; None for 1 each."""


def checked(samples: int, **by_row: NDArray[np.number] | None) -> None:
    """Raise a DatasetError unless there is one of everything for each row.

    Args:
        samples: Rows.
        by_row: What else there is of each row, by its plural; None where there is none.

    """
    for plural, values in by_row.items():
        if values is not None and len(values) != samples:
            problem = f"{len(values):,} {plural}, but {samples:,} labels"
            raise DatasetError(f"{problem}: expected one of either for each row")


def counting(weights: Weights, samples: int) -> NDArray[np.bool_] | None:
    """Return the rows that count (S,); None where all do.

    Raises:
        DatasetError: There are not as many weights as rows, or one is negative or no number.

    """
    if weights is None:
        return None
    checked(samples, weights=weights)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DatasetError(
            f"the weight of sample {row + 1} is {weights[row]:g}, expected a number of at least 0"
        )
    keep = weights > 0
    return None if keep.all() else keep


def with_weight(
    scores: NDArray[F], labels: NDArray[N], weights: Weights
) -> tuple[NDArray[F], NDArray[N], Weights]:
    """Return scores, labels and weights of the rows that count; as they are without weights."""
    keep = counting(weights, len(labels))
    if keep is None or weights is None:
        return scores, labels, weights
    checked(len(labels), scores=scores)
    return scores[keep], labels[keep], weights[keep]


def mean(values: NDArray[np.floating], weights: Weights) -> float:
    """Return the mean of values (S,), each as often as its weight says; S > 0."""
    if weights is None:
        return float(values.mean())
    return float((values * weights).sum() / weights.sum())
