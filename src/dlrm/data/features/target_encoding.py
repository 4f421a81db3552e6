"""Numbers beside a category: how often a value occurs, and what its labels say.

Everything is counted on the training rows: for each value its rows `count` and the sum of its
labels. A training row must not see itself in what it is given, or the model would trust numbers
that new rows do not have:

    log count      log(1 + n)
    target mean    p = (a + prior * m) / (n + prior); of clicks, as its logit
    target score   (a - n m) / sqrt((n + 1) v): by how many standard deviations the labels of the
                   value sum to more than those of as many rows of any kind

n counts the rows of the value, a sums its labels, m is the mean label of all and v its variance,
m (1 - m) where labels are clicks; where no label differs, the score is 0. Of a training row, n is
without the row itself in the log count; in the others n, a, m and v are without the rows of its
fold. All are centred and scaled by the training rows.

Source of out-of-fold and smoothed target means: Micci-Barreca, "A preprocessing scheme for
high-cardinality categorical attributes", SIGKDD Explorations 2001.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.data.features.column import Values

Numbers = NDArray[np.float64]

LABEL_PRECISION = 1e-6
"""Share of their mean by which labels, which are float32, differ at least where they do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """How a number beside a category is centred and scaled."""

    center: float
    deviation: float

    @classmethod
    def fit(cls, values: Numbers) -> "Scaling":
        """Return what makes these values have mean 0 and deviation 1."""
        if not len(values):
            return cls(center=0.0, deviation=1.0)
        return cls(center=float(values.mean()), deviation=float(values.std()) or 1.0)

    def apply(self, values: Numbers) -> NDArray[np.float32]:
        """Return values centred and scaled."""
        return ((values - self.center) / self.deviation).astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMoments:
    """Mean and variance of labels."""

    mean: float | Numbers
    variance: float | Numbers | None
    """None where labels are clicks, whose variance follows from their mean."""

    @classmethod
    def fit(cls, labels: NDArray[Any]) -> "LabelMoments":
        """Return those of labels (n,): clicks where they are integers, else any numbers."""
        mean = float(labels.mean()) if len(labels) else 0.5
        if labels.dtype.kind in "ub":
            return cls(mean=mean, variance=None)
        return cls(mean=mean, variance=float(labels.astype(np.float64).var()) if len(labels) else 1)


NO_LABELS = LabelMoments(mean=0.5, variance=None)
"""Where no labels were seen."""


def encoding(
    name: str,
    values: Values,
    count: NDArray[np.integer[Any]],
    label_sum: Numbers,
    moments: LabelMoments,
) -> Numbers:
    """Return a number beside the category, of values with so many rows and such labels.

    Args:
        name: A field of `Values`, as in ENCODINGS.
        values: Settings.
        count: (n,) rows of the value of each row.
        label_sum: (n,) the sum of their labels.
        moments: Moments of the labels of all rows.

    """
    clicks = moments.variance is None
    m = np.clip(moments.mean, 1e-6, 1 - 1e-6) if clicks else moments.mean
    match name:
        case "log_count":
            return np.log1p(count.astype(np.float64))
        case "target_mean":
            p = (label_sum + values.prior * m) / (count + values.prior)
            return np.log(p) - np.log1p(-p) if clicks else p
        case _:
            if moments.variance is None:
                return (label_sum - count * m) / np.sqrt((count + 1) * m * (1 - m))
            # Of equal labels rounding leaves a trace of a variance, and of a difference.
            vary = moments.variance > (LABEL_PRECISION * np.asarray(m)) ** 2
            deviation = np.sqrt((count + 1) * np.where(vary, moments.variance, 1.0))
            return np.where(vary, (label_sum - count * m) / deviation, 0.0)


def outside_fold(
    codes: NDArray[np.int32], labels: NDArray[Any], groups: int, values: Values, seed: int
) -> tuple[NDArray[np.int64], Numbers, LabelMoments]:
    """Return rows (n,), sums of labels (n,) and moments of a row's value outside the row's fold.

    `codes` (n,) are the places of the rows' values among `groups` distinct ones, `labels` (n,).
    """
    number = values.folds
    folds = np.random.default_rng(seed).permutation(len(codes)) % number
    place = codes.astype(np.int64) * number + folds
    counts = np.bincount(place, minlength=groups * number)
    sums = np.bincount(place, labels, minlength=groups * number)
    all_counts, all_sums = (
        numbers.reshape(groups, number).sum(1)[codes] for numbers in (counts, sums)
    )
    # The moments too are those of the other folds.
    others = len(codes) - np.bincount(folds, minlength=number)

    def mean_outside(numbers: NDArray[Any], empty: float) -> Numbers:
        total = numbers.sum() - np.bincount(folds, numbers, minlength=number)
        return np.where(others > 0, total / np.maximum(others, 1), empty)

    mean, variance = mean_outside(labels, 0.5), None
    if LabelMoments.fit(labels[:1]).variance is not None:
        centred = labels.astype(np.float64) - labels.mean(dtype=np.float64)
        variance = mean_outside(centred**2, 1.0) - mean_outside(centred, 0.0) ** 2
    moments = LabelMoments(mean=mean[folds], variance=None if variance is None else variance[folds])
    return all_counts - counts[place], all_sums - sums[place], moments
