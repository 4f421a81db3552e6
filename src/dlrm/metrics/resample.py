"""Samples drawn again: each metric on each of many resamples.

Every metric is a function of a few sums over samples. These are dealt into at most 4096 blocks, at
random (one each where they are fewer), and as many blocks are drawn again with replacement, 1000
times: a resample costs one product of drawn counts with the blocks' sums, whatever the number of
samples.

AUC is no such function, but nearly the sum of two means: over clicks, the share of non-clicks that
each one beats, and over non-clicks, the share of clicks that beat each. What is left out is of the
order of 1 / (clicks times non-clicks). (Hajek's projection, as in DeLong, DeLong, Clarke-Pearson,
"Comparing the Areas under Two or More Correlated ROC Curves", Biometrics 1988.)
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.calibration import bin_starts
from dlrm.metrics.ordered import cross_entropy, sigmoid
from dlrm.metrics.segments import auc_by_segment
from dlrm.metrics.values import entropy

RESAMPLES = 1000
BLOCKS = 4096
_SEED = 0
_ROWS, _CLICKS, _LOSS, _RIGHT, _SCORE, _BEATS, _BEATEN, _USER_WINS, _USER_ROWS, _BINS = range(10)

Floats = NDArray[np.float64]


class Blocks:
    """The blocks that samples are dealt into.

    Args:
        samples: S.
        users: (S,) or None.

    """

    def __init__(self, samples: int, users: NDArray[np.integer] | None):
        rng = np.random.default_rng(_SEED)
        if users is None:
            units, member = samples, np.arange(samples)
        else:
            # A row of no user stands for itself.
            alone = users < 0
            numbers, member = np.unique(users[~alone], return_inverse=True)
            units = len(numbers) + int(alone.sum())
            of_rows = np.empty(samples, np.int64)
            of_rows[~alone], of_rows[alone] = member, np.arange(len(numbers), units)
            member = of_rows
        if units > BLOCKS:
            block = rng.integers(0, BLOCKS, units, dtype=np.uint16)
            member = block if users is None else block[member]
        self._member = member
        self._count = min(units, BLOCKS)

    def resampled(self, rows: "Rows") -> dict[str, Floats]:
        """Return each metric on each resample (R,); NaN where it is undefined."""
        sums = np.empty((self._count, _BINS + rows.bins))
        for place, column in enumerate(rows.columns):
            weights = None if place == _ROWS else column
            sums[:, place] = np.bincount(self._member, weights, self._count)
        cell = self._member.astype(np.int64) * rows.bins + rows.bin
        over = np.bincount(cell, rows.over, self._count * rows.bins)
        sums[:, _BINS:] = over.reshape(self._count, rows.bins)
        total = (_drawn(self._count) @ sums).T
        n = total[_ROWS]
        # NaN where a resample has none of a class, or of what else is divided by.
        clicks, others, counted = (
            np.where(count > 0, count, np.nan)
            for count in (total[_CLICKS], n - total[_CLICKS], total[_USER_ROWS])
        )
        auc = total[_BEATS] / clicks + total[_BEATEN] / others - rows.auc
        loss = total[_LOSS] / n
        return {
            "auc": np.clip(auc, 0.0, 1.0),
            "log_loss": loss,
            "normalized_entropy": loss / entropy(clicks / (clicks + others)),
            "accuracy": total[_RIGHT] / n,
            "calibration": total[_SCORE] / clicks,
            "ece": np.abs(total[_BINS:]).sum(axis=0) / n,
            "gauc": total[_USER_WINS] / counted,
        }


@lru_cache(maxsize=1)
def _drawn(count: int) -> Floats:
    """Return how often each of K blocks is drawn in each resample (R, K); K each time."""
    rng = np.random.default_rng([_SEED, count])
    drawn = rng.integers(0, max(count, 1), (RESAMPLES, count), dtype=np.int32)
    drawn += np.arange(RESAMPLES, dtype=np.int32)[:, None] * count
    times = np.bincount(drawn.ravel(), minlength=RESAMPLES * count)
    return times.reshape(RESAMPLES, count).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Rows:
    """What each row adds to the sums of its block."""

    columns: tuple[NDArray[np.number | np.bool_], ...]
    """9 of (S,), in the order of their numbers"""
    bin: NDArray[np.int64]
    """(S,) its calibration bin"""
    over: Floats
    """(S,) its score less its label"""
    auc: float
    bins: int
    luck: float
    """The ECE that scores which are exactly right exceed once in 40 times."""


def rows_of(
    logits: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None,
) -> Rows:
    """Return what each of S rows adds, from logits, labels and, where known, users (S,)."""
    clicks = labels != 0
    order = np.argsort(logits, kind="stable")
    scores = sigmoid(logits)
    beats, beaten, auc = _placements(logits[order], clicks[order], order)
    wins, counted = _user_rows(logits, labels, users)
    starts = bin_starts(scores[order]) if len(order) else order
    bins = np.empty(len(order), np.int64)
    bins[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    right = (logits > 0) == clicks
    loss = cross_entropy(logits, clicks)
    columns = (clicks, clicks, loss, right, scores, beats, beaten, wins, counted)
    return Rows(columns, bins, scores - clicks, auc, len(starts), _luck(scores, bins))


def _luck(scores: Floats, bins: NDArray[np.int64]) -> float:
    """Return the 97.5% quantile of the ECE where every score (S,) is the true probability.

    Then each bin's sum of differences is nearly a normal of variance sum p (1 - p), whose size has
    the mean sqrt(2 / pi) and the variance 1 - 2 / pi of it.
    """
    variances = np.bincount(bins, scores * (1.0 - scores))
    mean = np.sqrt(2.0 / np.pi * variances).sum()
    deviation = np.sqrt((1.0 - 2.0 / np.pi) * variances.sum())
    return float((mean + 1.96 * deviation) / max(len(scores), 1))


def _placements(
    scores: NDArray[np.floating], clicks: NDArray[np.bool_], order: NDArray[np.intp]
) -> tuple[Floats, Floats, float]:
    """Return what each row adds to the AUC as a click and as a non-click, and the AUC.

    Args:
        scores: (S,) rising.
        clicks: (S,) of the rows in that order.
        order: (S,) where the rows in that order came from.

    """
    samples = len(order)
    beats, beaten = np.zeros(samples), np.zeros(samples)
    total = int(np.count_nonzero(clicks))
    if total in (0, samples):
        return beats, beaten, np.nan
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), samples - 1)
    clicks_to = np.cumsum(clicks)[last]
    others_to = last + 1 - clicks_to
    size = np.diff(last, prepend=-1)
    clicks_middle = clicks_to - np.diff(clicks_to, prepend=0) / 2
    others_middle = others_to - np.diff(others_to, prepend=0) / 2
    beats[order] = np.repeat(others_middle / (samples - total), size) * clicks
    beaten[order] = np.repeat(1.0 - clicks_middle / total, size) * ~clicks
    return beats, beaten, float(beats.sum() / total)


def _user_rows(
    logits: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer] | None,
) -> tuple[Floats, Floats]:
    """Return for each row the AUC of its user, and 1; 0 and 0 where that is undefined."""
    if users is None:
        return np.zeros(len(labels)), np.zeros(len(labels))
    known = users >= 0
    found = auc_by_segment(logits[known], labels[known], users[known])
    wins = np.zeros(len(labels))
    wins[known] = found.auc[np.searchsorted(found.segments, users[known])]
    counted = known & ~np.isnan(wins)
    return np.where(counted, wins, 0.0), counted.astype(np.float64)
