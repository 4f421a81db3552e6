"""Scores against click rates, bin by bin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.ordered import ordered

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
    scores: NDArray[np.floating], labels: NDArray[np.number], bins: int = BINS
) -> list[CalibrationBin]:
    """Return the calibration curve over bins of (nearly) equal numbers of samples.

    Args:
        scores: (S,) probabilities.
        labels: (S,) 0 or 1.
        bins: At most this many; equal scores are never parted, and empty bins are left out.

    """
    if len(scores) == 0:
        return []
    rows = ordered(scores, labels)
    starts = bin_starts(rows.scores, bins)
    lows = rows.scores[starts]
    samples = np.diff(starts, append=len(scores))
    mean_scores = np.add.reduceat(rows.scores.astype(np.float64), starts) / samples
    click_rates = np.add.reduceat(rows.clicks.astype(np.float64), starts) / samples
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


def bin_starts(scores: NDArray[np.floating], bins: int = BINS) -> NDArray[np.intp]:
    """Return the first row of each bin (K,), K <= `bins`.

    Bin k begins with the score in place floor(k S / bins), counted from 0, and takes all that are
    equal to it; bins that begin with the same score are one.

    Args:
        scores: (S,) in rising order, S > 0.
        bins: At most this many.

    """
    lows = scores[np.arange(bins) * len(scores) // bins]
    return np.unique(np.searchsorted(scores, lows, side="left"))


def calibration_error(
    scores: NDArray[np.float64], clicks: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the expected calibration error, and how much of it luck alone explains.

    ECE = sum over bins of (samples in the bin / S) |mean score - click rate|, over the bins of
    `calibration_bins` (Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", AAAI 2015, with bins of equal numbers). It is never 0 on a sample: where
    every score were the true probability, a bin's difference would have the variance
    sum p (1 - p) / samples^2, and a normal's mean size is its deviation times sqrt(2 / pi).

    Args:
        scores: (S,) probabilities in rising order, S > 0.
        clicks: (S,) whether each was clicked.

    Returns:
        ECE, and its mean for scores that are exactly right.

    """
    starts = bin_starts(scores)
    differences = np.add.reduceat(scores - clicks, starts)
    variances = np.add.reduceat(scores * (1.0 - scores), starts)
    luck = np.sqrt(2.0 / np.pi * variances).sum() / len(scores)
    return float(np.abs(differences).sum() / len(scores)), float(luck)
