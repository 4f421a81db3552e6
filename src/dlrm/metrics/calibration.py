"""Scores against click rates, bin by bin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.ordered import ordered
from dlrm.metrics.weights import Weights, with_weight

BINS = 20


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

    Args:
        scores: (S,) probabilities.
        labels: (S,) 0 or 1.
        bins: At most this many; equal scores are never parted, and empty bins are left out.
        weights: (S,) how often each sample counts, in the means and in the size of a bin; None for
            once each.

    """
    scores, labels, weights = with_weight(scores, labels, weights)
    if len(scores) == 0:
        return []
    rows = ordered(scores, labels, weights=weights)
    starts = bin_starts(rows.scores, bins, rows.weights)
    lows = rows.scores[starts]
    samples = np.diff(starts, append=len(scores))
    sizes = samples if rows.weights is None else np.add.reduceat(rows.weights, starts)
    mean_scores = _sums(rows.scores.astype(np.float64), starts, rows.weights) / sizes
    click_rates = _sums(rows.clicks.astype(np.float64), starts, rows.weights) / sizes
    return [
        CalibrationBin(float(low), float(high), int(count), float(score), float(rate))
        for low, high, count, score, rate in zip(
            lows,
            np.append(lows[1:], rows.scores[-1]),
            samples,
            mean_scores,
            click_rates,
            strict=True,
        )
    ]


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

    Args:
        scores: (S,) probabilities in rising order, S > 0.
        clicks: (S,) whether each was clicked.
        weights: (S,) positive; None for 1 each.

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
