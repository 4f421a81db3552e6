"""Predictions against labels, bin by bin: scores of clicks, predicted numbers, and residuals."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.ordered import ordered
from dlrm.metrics.weights import Weights, mean, with_weight

Floats = NDArray[np.float64]

BINS = 20

MIDDLE = (0.1, 0.9)
"""Quantiles of the labels of a bin: what lies between them is the middle 80%."""


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Samples whose scores lie in [low, high): what was predicted and what happened."""

    low: float
    high: float
    """The next bin's low; the highest score in the last bin, which holds it."""
    samples: int
    mean_score: float
    click_rate: float


def calibration_bins(
    scores: NDArray[np.floating],
    labels: NDArray[np.number],
    bins: int = BINS,
    weights: Weights = None,
) -> list[CalibrationBin]:
    """Return the calibration curve over bins of (nearly) equal numbers of samples.

    There are at most `bins`: equal scores are never parted, and empty bins are left out. Weights
    count in the means and in the size of a bin.
    """
    scores, labels, weights = with_weight(scores, labels, weights)
    rows = ordered(scores, labels, weights=weights)
    binned = _binned(rows.scores, rows.clicks, rows.weights, bins)
    return [
        CalibrationBin(low, high, samples, score, rate)
        for _, low, high, samples, score, rate in binned
    ]


def _binned(
    predictions: NDArray[np.floating],
    labels: NDArray[np.number | np.bool_],
    weights: Weights,
    bins: int,
) -> Iterator[tuple[slice, float, float, int, float, float]]:
    """Yield each bin of rising predictions (S,): its rows, ends and size, and both means."""
    if len(predictions) == 0:
        return
    starts = bin_starts(predictions, bins, weights)
    for start, end in pairwise([*starts, len(predictions)]):
        inside = slice(start, end)
        within = None if weights is None else weights[inside]
        low, high = (float(predictions[min(at, len(predictions) - 1)]) for at in (start, end))
        score, label = (
            mean(values[inside].astype(np.float64), within) for values in (predictions, labels)
        )
        yield inside, low, high, int(end - start), score, label


def bin_starts(
    scores: NDArray[np.floating], bins: int = BINS, weights: Weights = None
) -> NDArray[np.intp]:
    """Return the first row of each bin (K,), K <= `bins`.

    Bin k begins with the score in place floor(k S / bins), counted from 0, and takes all that are
    equal to it; bins that begin with the same score are one. With weights a row takes as many
    places as its weight says.

    Args:
        scores: (S,) in rising order, S > 0.
        bins: At most this many.
        weights: (S,) positive, in the order of the scores; None for 1 each.

    """
    if weights is None:
        places = np.arange(bins) * len(scores) // bins
    else:
        behind = np.cumsum(weights)
        places = np.searchsorted(behind, np.arange(bins) * behind[-1] / bins, side="right")
        # Rounding may put the last place behind the last row.
        places = np.minimum(places, len(scores) - 1)
    return np.unique(np.searchsorted(scores, scores[places], side="left"))


def calibration_error(
    scores: NDArray[np.float64], clicks: NDArray[np.bool_], weights: Weights = None
) -> tuple[float, float]:
    """Return the expected calibration error, and how much of it luck alone explains.

    ECE = sum over bins of (samples in the bin / S) |mean score - click rate|, over the bins of
    `calibration_bins` (Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", AAAI 2015, with bins of equal numbers). It is never 0 on a sample: where
    every score were the true probability, a bin's difference would have the variance
    sum w^2 p (1 - p) / (sum w)^2, with weights w, and a normal's mean size is its deviation times
    sqrt(2 / pi).

    Scores (S,) are in rising order, S > 0, and weights positive.

    Returns:
        ECE, and its mean for scores that are exactly right.

    """
    starts = bin_starts(scores, BINS, weights)
    total = len(scores) if weights is None else weights.sum()
    differences = _sums(scores - clicks, starts, weights)
    squares = None if weights is None else np.square(weights)
    variances = _sums(scores * (1.0 - scores), starts, squares)
    luck = np.sqrt(2.0 / np.pi * variances).sum() / total
    return float(np.abs(differences).sum() / total), float(luck)


def _sums(
    values: NDArray[np.float64], starts: NDArray[np.intp], weights: Weights
) -> NDArray[np.float64]:
    """Return the sum of values (S,), times their weights, from each start to the next (K,)."""
    return np.add.reduceat(values if weights is None else values * weights, starts)


@dataclass(frozen=True, slots=True)
class PredictionBin:
    """Samples whose predictions lie in [low, high): what was predicted and what was true."""

    low: float
    high: float
    """The next bin's low; the largest prediction in the last bin, which holds it."""
    samples: int
    mean_prediction: float
    mean_label: float
    label_low: float
    """The 10% quantile of the bin's labels."""
    label_high: float
    """The 90% quantile of the bin's labels."""


def prediction_bins(
    predictions: NDArray[np.floating],
    labels: NDArray[np.number],
    bins: int = BINS,
    weights: Weights = None,
) -> list[PredictionBin]:
    """Return predictions against labels over bins of (nearly) equal numbers of samples.

    There are at most `bins`: equal predictions are never parted.
    """
    predictions, labels, weights = with_weight(predictions, labels, weights)
    order = np.lexsort((labels, predictions))
    p, y = predictions[order].astype(np.float64), labels[order].astype(np.float64)
    w = None if weights is None else weights[order].astype(np.float64)
    return [
        PredictionBin(
            low, high, samples, score, label, *_middle(y[rows], w if w is None else w[rows])
        )
        for rows, low, high, samples, score, label in _binned(p, y, w, bins)
    ]


def _middle(labels: Floats, weights: Weights) -> tuple[float, float]:
    """Return the ends of `MIDDLE` of labels (S,): the first that such a share does not exceed."""
    order = np.argsort(labels, kind="stable")
    behind = np.cumsum(np.ones(len(order)) if weights is None else weights[order])
    places = np.searchsorted(behind, np.array(MIDDLE) * behind[-1])
    low, high = labels[order][np.minimum(places, len(labels) - 1)]
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Residuals:
    """A histogram of predictions less labels."""

    edges: list[float]
    """Edges of the bins, rising, and around 0 alike."""
    counts: list[int]
    """Samples of each bin."""
    outside: int
    """Samples that are further off."""


def residuals(
    predictions: NDArray[np.floating], labels: NDArray[np.number], bins: int = 50
) -> Residuals:
    """Return a histogram of predictions less labels; weights have no part in it.

    It reaches as far as 99% of the samples, to either side of 0.
    """
    error = predictions.astype(np.float64) - labels
    reach = float(np.quantile(np.abs(error), 0.99)) if len(error) else 0.0
    edges = np.linspace(-reach, reach, bins + 1) if reach else np.linspace(-1.0, 1.0, bins + 1)
    counts = np.histogram(error, edges)[0]
    return Residuals(edges.tolist(), counts.tolist(), len(error) - int(counts.sum()))
