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

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.auc import auc_by_segment, placements
from dlrm.metrics.bins import BINS, bin_starts
from dlrm.metrics.ordered import cross_entropy, sigmoid
from dlrm.metrics.values import entropy
from dlrm.metrics.weights import Weights, mean

RESAMPLES = 1000
BLOCKS = 4096
_SEED = 0

Floats = NDArray[np.float64]
Column = NDArray[np.number | np.bool_] | None
"""(S,) what each row adds to a sum; None for 1."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Sums over the rows of each of K bins."""

    bin: NDArray[np.int64]
    """(S,) the bin of each row"""
    values: Floats
    """(S,) what it adds"""
    count: int
    """K"""


class Rows(Protocol):
    """The parts of rows in the sums that metrics are functions of."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The part of each row in each sum."""
        ...

    @property
    def cells(self) -> Cells | None:
        """The part of each row in the sum of its bin; None for no bins."""
        ...

    def metrics(self, totals: Floats) -> dict[str, Floats]:
        """Return each metric on R resamples (R,), NaN where undefined, from sums (C + K, R)."""
        ...


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
        columns, cells = rows.columns, rows.cells
        bins = 0 if cells is None else cells.count
        sums = np.empty((self._count, len(columns) + bins))
        for place, column in enumerate(columns):
            sums[:, place] = np.bincount(self._member, column, self._count)
        if cells is not None:
            cell = self._member.astype(np.int64) * bins + cells.bin
            totals = np.bincount(cell, cells.values, self._count * bins)
            sums[:, len(columns) :] = totals.reshape(self._count, bins)
        return rows.metrics((_drawn(self._count) @ sums).T)


@lru_cache(maxsize=1)
def _drawn(count: int) -> Floats:
    """Return how often each of K blocks is drawn in each resample (R, K); K each time."""
    rng = np.random.default_rng([_SEED, count])
    drawn = rng.integers(0, max(count, 1), (RESAMPLES, count), dtype=np.int32)
    drawn += np.arange(RESAMPLES, dtype=np.int32)[:, None] * count
    times = np.bincount(drawn.ravel(), minlength=RESAMPLES * count)
    return times.reshape(RESAMPLES, count).astype(np.float64)


def positive(counts: Floats, total: Floats) -> Floats:
    """Return counts to divide by (R,): NaN where none, up to rounding, of `total` was drawn."""
    return np.where(counts > 1e-12 * total, counts, np.nan)


_ROWS = 0
_CLICKS, _LOSS, _RIGHT, _SCORE, _BEATS, _BEATEN, _USER_WINS, _USER_ROWS, _BINS = range(1, 10)


@dataclass(frozen=True, slots=True)
class ClickRows:
    """The part of each click prediction in the sums; see `Rows`."""

    columns: tuple[Column, ...]
    """9 of (S,), in the order of their numbers"""
    cells: Cells
    """What each row adds to the sum of its calibration bin: its score less its label"""
    auc: float
    luck: float
    """The ECE that scores which are exactly right exceed once in 40 times."""

    def metrics(self, totals: Floats) -> dict[str, Floats]:
        """Return each metric on R resamples (R,), NaN where undefined, from sums (9 + K, R)."""
        n = totals[_ROWS]
        # NaN where a resample has none of a class, or of what else is divided by.
        clicks, others, counted = (
            positive(count, n)
            for count in (totals[_CLICKS], n - totals[_CLICKS], totals[_USER_ROWS])
        )
        auc = totals[_BEATS] / clicks + totals[_BEATEN] / others - self.auc
        loss = totals[_LOSS] / n
        return {
            "auc": np.clip(auc, 0.0, 1.0),
            "log_loss": loss,
            "normalized_entropy": loss / entropy(clicks / (clicks + others)),
            "accuracy": totals[_RIGHT] / n,
            "calibration": totals[_SCORE] / clicks,
            "ece": np.abs(totals[_BINS:]).sum(axis=0) / n,
            "gauc": totals[_USER_WINS] / counted,
        }


def click_rows(
    logits: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None = None,
    weights: Weights = None,
) -> ClickRows:
    """Return what each of S rows adds."""
    clicks = labels != 0
    order = np.argsort(logits, kind="stable")
    scores = sigmoid(logits)
    by_score = None if weights is None else weights[order]
    shares = placements(logits, clicks, weights, order)
    auc = np.nan
    if shares is None:
        shares = np.zeros(len(order))
    else:
        auc = mean(shares[clicks], None if weights is None else weights[clicks])
    beats, beaten = shares * clicks, shares * ~clicks
    wins, counted = _user_rows(logits, labels, users, weights)
    starts = bin_starts(scores[order], BINS, by_score) if len(order) else order
    bins = np.empty(len(order), np.int64)
    bins[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    right = (logits > 0) == clicks
    loss = cross_entropy(logits, clicks)
    columns = (clicks, loss, right, scores, beats, beaten, wins, counted)
    over = scores - clicks
    luck = _luck(scores, bins, weights)
    if weights is not None:
        columns, over = tuple(column * weights for column in columns), over * weights
    return ClickRows((weights, *columns), Cells(bins, over, len(starts)), auc, luck)


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


@dataclass(frozen=True, slots=True)
class RegressionRows:
    """The part of each click prediction in the sums; see `Rows`."""

    columns: tuple[Column, ...]
    """6 of (S,), in the order of their numbers; labels less `center`"""
    center: float
    """The mean label, without which squares of labels are not large beside their variance."""
    cells: Cells | None = None

    def metrics(self, totals: Floats) -> dict[str, Floats]:
        """Return each metric on R resamples (R,), NaN where undefined, from sums (6, R)."""
        label, squared_label, bias, absolute, squared = totals[1:] / totals[_ROWS]
        mean_square = squared_label + np.square(self.center)
        variance = positive(squared_label - np.square(label), mean_square)
        mean_label = label + self.center
        defined = np.abs(mean_label) > 1e-12 * np.sqrt(mean_square)
        return {
            "rmse": np.sqrt(squared),
            "mae": absolute,
            "r2": 1.0 - squared / variance,
            "bias": bias,
            "calibration": 1.0 + bias / np.where(defined, mean_label, np.nan),
        }


def regression_rows(
    predictions: NDArray[np.floating], labels: NDArray[np.number], weights: Weights = None
) -> RegressionRows:
    """Return what each of S rows adds."""
    y = labels.astype(np.float64)
    error = predictions.astype(np.float64) - y
    center = mean(y, weights)
    y -= center
    columns = (y, np.square(y), error, np.abs(error), np.square(error))
    if weights is not None:
        columns = tuple(column * weights for column in columns)
    return RegressionRows((weights, *columns), center)
