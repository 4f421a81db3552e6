"""Samples drawn again: the metrics on each of many resamples.

Every metric is a function of a few sums over samples. These are dealt into at most 4096 blocks, at
random (one each where they are fewer), and as many blocks are drawn again with replacement, 1000
times: a resample costs one product of drawn counts with the blocks' sums, whatever the number of
samples. A sample that has a weight is drawn as often as another, and counts as its weight says.

AUC is no function of a few sums, but nearly the sum of two means: over clicks, the share of
non-clicks that each one beats, and over non-clicks, the share of clicks that beat each. What is
left out is of the order of 1 / (clicks times non-clicks). (Hajek's projection, as in DeLong,
DeLong, Clarke-Pearson, "Comparing the Areas under Two or More Correlated ROC Curves", Biometrics
1988.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.auc import auc_by_segment, placements
from dlrm.metrics.bins import BINS, bin_starts
from dlrm.metrics.ordered import cross_entropy, sigmoid
from dlrm.metrics.values import entropy
from dlrm.metrics.weights import Weights, mean
from dlrm.schema import Task

RESAMPLES = 1000
BLOCKS = 4096
_SEED = 0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """The parts of S rows in the sums that metrics are functions of."""

    columns: tuple[NDArray[np.number | np.bool_], ...]
    """(S,) the part of each row in each of C sums; its own weight belongs to the first."""
    weights: Weights
    metrics: Callable[[Floats, Floats], dict[str, Floats]]
    """Each metric on R resamples (R,), NaN where undefined, from sums (1 + C, R), the first of
    which is that of the weights, and sums of bins (K, R)."""
    bins: NDArray[np.int64] | None = None
    """(S,) the bin of each row"""
    in_bin: Floats | None = None
    """(S,) the part of each row in the sum of its bin"""
    luck: float = 0.0
    """The ECE that scores which are exactly right exceed once in 40 times."""


class Blocks:
    """The blocks that samples are dealt into.

    The S samples of a user are in one block; a sample of no user stands for itself.
    """

    def __init__(self, samples: int, users: NDArray[np.integer] | None):
        rng = np.random.default_rng(_SEED)
        if users is None:
            units, member = samples, np.arange(samples)
        else:
            # A row of no user stands for itself.
            alone = users < 0
            numbers, known = np.unique(users[~alone], return_inverse=True)
            units = len(numbers) + int(alone.sum())
            member = np.empty(samples, np.int64)
            member[~alone], member[alone] = known, np.arange(len(numbers), units)
        if units > BLOCKS:
            block = rng.integers(0, BLOCKS, units, dtype=np.uint16)
            member = block if users is None else block[member]
        self._member = member
        self._count = min(units, BLOCKS)

    def resampled(self, rows: Rows) -> dict[str, Floats]:
        """Return each metric on each resample (R,); NaN where it is undefined."""

        def summed(member: NDArray[np.integer], values: Any, count: int) -> NDArray[Any]:
            if rows.weights is not None:
                values = rows.weights if values is None else values * rows.weights
            return np.bincount(member, values, count)

        count, drawn = self._count, _drawn(self._count)
        sums = np.stack([summed(self._member, column, count) for column in (None, *rows.columns)])
        of_bins = np.empty((0, count))
        if rows.bins is not None:
            bins = int(rows.bins.max(initial=-1)) + 1
            cell = rows.bins * count + self._member
            of_bins = summed(cell, rows.in_bin, bins * count).reshape(bins, count)
        return rows.metrics(sums @ drawn.T, of_bins @ drawn.T)


@lru_cache(maxsize=1)
def _drawn(count: int) -> Floats:
    """Return how often each of K blocks is drawn in each resample (R, K); K each time."""
    rng = np.random.default_rng([_SEED, count])
    times = np.empty((RESAMPLES, count))
    # One by one, whose counts stay in the cache.
    for row in times:
        drawn = rng.integers(0, max(count, 1), count, dtype=np.int32)
        row[:] = np.bincount(drawn, minlength=count)
    return times


def positive(counts: Floats, total: Floats) -> Floats:
    """Return counts to divide by (R,): NaN where none, up to rounding, of `total` was drawn."""
    return np.where(counts > 1e-12 * total, counts, np.nan)


def rows_of(
    task: Task,
    logits: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None = None,
    weights: Weights = None,
) -> Rows:
    """Return what each of S rows, at least one, adds to the sums; users have no part in numbers."""
    if task == "regression":
        return _number_rows(logits, labels, weights)
    return _click_rows(logits, labels, users, weights)


def _click_rows(
    logits: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None,
    weights: Weights,
) -> Rows:
    kinds = labels != 0
    order = np.argsort(logits, kind="stable")
    scores = sigmoid(logits)
    shares = placements(logits, kinds, weights, order)
    area = np.nan
    if shares is None:
        shares = np.zeros(len(order))
    else:
        area = mean(shares[kinds], None if weights is None else weights[kinds])
    wins, counted = _user_rows(logits, labels, users, weights)
    starts = bin_starts(scores[order], BINS, None if weights is None else weights[order])
    bins = np.empty(len(order), np.int64)
    bins[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))

    def metrics(totals: Floats, of_bins: Floats) -> dict[str, Floats]:
        n, clicks, loss, right, score, beats, beaten, user_wins, user_rows = totals
        # NaN where a resample has none of a class, or of what else is divided by.
        clicks, others, of_users = (positive(x, n) for x in (clicks, n - clicks, user_rows))
        return {
            "auc": np.clip(beats / clicks + beaten / others - area, 0.0, 1.0),
            "log_loss": loss / n,
            "normalized_entropy": loss / n / entropy(clicks / (clicks + others)),
            "accuracy": right / n,
            "calibration": score / clicks,
            "ece": np.abs(of_bins).sum(axis=0) / n,
            "gauc": user_wins / of_users,
        }

    right, losses = (logits > 0) == kinds, cross_entropy(logits, kinds)
    columns = (kinds, losses, right, scores, shares * kinds, shares * ~kinds, wins, counted)
    luck = _luck(scores, bins, weights)
    return Rows(columns, weights, metrics, bins, scores - kinds, luck)


def _luck(scores: Floats, bins: NDArray[np.int64], weights: Weights) -> float:
    """Return the 97.5% quantile of the ECE where every score (S,) is the true probability.

    Then each bin's sum of differences is nearly a normal of variance sum w^2 p (1 - p), with
    weights w, whose size has the mean sqrt(2 / pi) and the variance 1 - 2 / pi of it.
    """
    variance = scores * (1.0 - scores)
    if weights is not None:
        variance = variance * np.square(weights)
    variances = np.bincount(bins, variance)
    mean = np.sqrt(2.0 / np.pi * variances).sum()
    deviation = np.sqrt((1.0 - 2.0 / np.pi) * variances.sum())
    total = max(len(scores), 1) if weights is None else weights.sum()
    return float((mean + 1.96 * deviation) / total)


def _user_rows(
    logits: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None,
    weights: Weights,
) -> tuple[Floats, Floats]:
    """Return for each row the AUC of its user, and 1; 0 and 0 where that is undefined."""
    if users is None:
        return np.zeros(len(labels)), np.zeros(len(labels))
    known = users >= 0
    within = auc_by_segment(
        logits[known], labels[known], users[known], None if weights is None else weights[known]
    )
    wins = np.zeros(len(labels))
    wins[known] = within.auc[np.searchsorted(within.segments, users[known])]
    counted = known & ~np.isnan(wins)
    return np.where(counted, wins, 0.0), counted.astype(np.float64)


def _number_rows(
    predictions: NDArray[np.floating], labels: NDArray[np.number], weights: Weights
) -> Rows:
    y = labels.astype(np.float64)
    error = predictions.astype(np.float64) - y
    # Without their mean, squares of labels are not large beside their variance
    center = mean(y, weights)
    y -= center

    def metrics(totals: Floats, _: Floats) -> dict[str, Floats]:
        label, squared_label, bias, absolute, squared = totals[1:] / totals[0]
        mean_square = squared_label + np.square(center)
        variance = positive(squared_label - np.square(label), mean_square)
        mean_label = label + center
        defined = np.abs(mean_label) > 1e-12 * np.sqrt(mean_square)
        return {
            "rmse": np.sqrt(squared),
            "mae": absolute,
            "r2": 1.0 - squared / variance,
            "bias": bias,
            "calibration": 1.0 + bias / np.where(defined, mean_label, np.nan),
        }

    columns = (y, np.square(y), error, np.abs(error), np.square(error))
    return Rows(columns, weights, metrics)
