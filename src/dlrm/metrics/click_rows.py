"""What each click prediction adds to the sums of its resample, and the metrics of such sums.

AUC is no function of a few sums, but nearly the sum of two means: over clicks, the share of
non-clicks that each one beats, and over non-clicks, the share of clicks that beat each. What is
left out is of the order of 1 / (clicks times non-clicks). (Hajek's projection, as in DeLong,
DeLong, Clarke-Pearson, "Comparing the Areas under Two or More Correlated ROC Curves", Biometrics
1988.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.calibration import BINS, bin_starts
from dlrm.metrics.ordered import cross_entropy, sigmoid
from dlrm.metrics.resample import Cells, Column, Floats, positive
from dlrm.metrics.segments import auc_by_segment
from dlrm.metrics.values import entropy
from dlrm.metrics.weights import Weights

_ROWS, _CLICKS, _LOSS, _RIGHT, _SCORE, _BEATS, _BEATEN, _USER_WINS, _USER_ROWS, _BINS = range(10)


@dataclass(frozen=True, slots=True)
class ClickRows:
    """What each row adds to the sums; see `dlrm.metrics.resample.Rows`."""

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
    """Return what each of S rows adds.

    Args:
        logits: (S,).
        labels: (S,) 0 or 1.
        users: (S,) number of each row's user, or None; negative where there is none.
        weights: (S,) positive, or None.

    """
    clicks = labels != 0
    order = np.argsort(logits, kind="stable")
    scores = sigmoid(logits)
    by_score = None if weights is None else weights[order]
    beats, beaten, auc = _placements(logits[order], clicks[order], order, by_score)
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


def _placements(
    scores: NDArray[np.floating],
    clicks: NDArray[np.bool_],
    order: NDArray[np.intp],
    weights: Weights,
) -> tuple[Floats, Floats, float]:
    """Return what each row adds to the AUC as a click and as a non-click, and the AUC.

    Args:
        scores: (S,) rising.
        clicks: (S,) of the rows in that order.
        order: (S,) where the rows in that order came from.
        weights: (S,) of the rows in that order, or None.

    """
    samples = len(order)
    beats, beaten = np.zeros(samples), np.zeros(samples)
    if np.count_nonzero(clicks) in (0, samples):
        return beats, beaten, np.nan
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), samples - 1)
    if weights is None:
        clicks_to = np.cumsum(clicks)[last]
        others_to = last + 1 - clicks_to
    else:
        clicks_to, others_to = (np.cumsum(weights * kind)[last] for kind in (clicks, ~clicks))
    size = np.diff(last, prepend=-1)
    clicks_middle = clicks_to - np.diff(clicks_to, prepend=0) / 2
    others_middle = others_to - np.diff(others_to, prepend=0) / 2
    beats[order] = np.repeat(others_middle / others_to[-1], size) * clicks
    beaten[order] = np.repeat(1.0 - clicks_middle / clicks_to[-1], size) * ~clicks
    if weights is None:
        return beats, beaten, float(beats.sum() / clicks_to[-1])
    return beats, beaten, float((beats[order] * weights).sum() / clicks_to[-1])


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
