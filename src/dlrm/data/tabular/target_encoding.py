"""Numbers beside a category: how often a value occurs, and what its clicks say.

Everything is counted on the training rows: for each value its rows `count` and its clicks. A
training row must not see itself in what it is given, or the model would trust numbers that new rows
do not have:

    log count      log(1 + n)
    target mean    p = (a + prior * m) / (n + prior), as its logit
    target score   (a - n m) / sqrt((n + 1) m (1 - m)): by how many standard deviations the clicks
                   of the value are more than those of as many rows at the overall rate

n counts the rows of the value, a its clicks, and m is the click rate of all. Of a training row, n
is without the row itself in the log count; in the others n, a and m are without the rows of its
fold. All are centred and scaled by the training rows.

Source of out-of-fold and smoothed target means: Micci-Barreca, "A preprocessing scheme for
high-cardinality categorical attributes", SIGKDD Explorations 2001.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.data.tabular.columns import Values

BESIDE = ("log_count", "target_mean", "target_score")
"""Fields of `Values` that put a number beside a category."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """How a number beside a category is centred and scaled."""

    center: float
    deviation: float

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> "Scaling":
        """Return what makes these values have mean 0 and deviation 1."""
        if not len(values):
            return cls(center=0.0, deviation=1.0)
        return cls(center=float(values.mean()), deviation=float(values.std()) or 1.0)

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return values centred and scaled."""
        return ((values - self.center) / self.deviation).astype(np.float32)


def number_beside(
    name: str,
    values: Values,
    count: NDArray[np.integer[Any]],
    clicks: NDArray[np.integer[Any]],
    rate: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return a number beside the category, of values with so many rows and clicks."""
    m = np.clip(rate, 1e-6, 1 - 1e-6)
    match name:
        case "log_count":
            return np.log1p(count.astype(np.float64))
        case "target_mean":
            p = (clicks + values.prior * m) / (count + values.prior)
            return np.log(p) - np.log1p(-p)
        case _:
            return (clicks - count * m) / np.sqrt((count + 1) * m * (1 - m))


def outside_fold(
    codes: NDArray[np.int32], clicks: NDArray[np.uint8], groups: int, values: Values, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return rows, clicks and click rate of what lies outside each row's fold, of its value."""
    number = values.folds
    folds = np.random.default_rng(seed).permutation(len(codes)) % number
    place = codes.astype(np.int64) * number + folds
    counts = np.bincount(place, minlength=groups * number)
    sums = np.bincount(place, clicks, minlength=groups * number).astype(np.int64)
    whole = [each.reshape(groups, number).sum(1)[codes] for each in (counts, sums)]
    # The overall rate too is that of the other folds.
    others = len(codes) - np.bincount(folds, minlength=number)
    positive = clicks.sum() - np.bincount(folds, clicks, minlength=number)
    rates = np.where(others > 0, positive / np.maximum(others, 1), 0.5)
    return whole[0] - counts[place], whole[1] - sums[place], rates[folds]
