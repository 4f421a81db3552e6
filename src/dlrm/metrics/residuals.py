"""Predicted numbers against labels: bin by bin, and how far off they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.calibration import BINS, bin_starts
from dlrm.metrics.weights import Weights, with_weight

MIDDLE = (0.1, 0.9)
"""Quantiles of the labels of a bin: what lies between them is the middle 80%."""


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

    Args:
        predictions: (S,) finite.
        labels: (S,) any numbers.
        bins: At most this many; equal predictions are never parted.
        weights: (S,) how often each sample counts; None for once each.

    """
    predictions, labels, weights = with_weight(predictions, labels, weights)
    if len(predictions) == 0:
        return []
    order = np.lexsort((labels, predictions))
    p, y = predictions[order].astype(np.float64), labels[order].astype(np.float64)
    w = np.ones(len(p)) if weights is None else weights[order].astype(np.float64)
    starts = bin_starts(p, bins, None if weights is None else w)
    lasts = np.append(starts[1:], len(p))
    curve = []
    for start, last in zip(starts, lasts, strict=True):
        inside = slice(start, last)
        low, high = _quantiles(y[inside], w[inside])
        curve.append(
            PredictionBin(
                low=float(p[start]),
                high=float(p[min(last, len(p) - 1)]),
                samples=int(last - start),
                mean_prediction=float(np.average(p[inside], weights=w[inside])),
                mean_label=float(np.average(y[inside], weights=w[inside])),
                label_low=low,
                label_high=high,
            )
        )
    return curve


@dataclass(frozen=True, slots=True)
class Residuals:
    """How many samples are how far off."""

    edges: list[float]
    """Of the bins of predictions less labels, rising and around 0 alike."""
    counts: list[int]
    """Samples of each bin."""
    outside: int
    """Samples that are further off."""


def residuals(
    predictions: NDArray[np.floating], labels: NDArray[np.number], bins: int = 50
) -> Residuals:
    """Return a histogram of predictions less labels; weights have no part in it.

    It reaches as far as 99% of the samples, to either side of 0.

    Args:
        predictions: (S,) finite.
        labels: (S,) any numbers.
        bins: Their number.

    """
    error = predictions.astype(np.float64) - labels
    reach = float(np.quantile(np.abs(error), 0.99)) if len(error) else 0.0
    edges = np.linspace(-reach, reach, bins + 1) if reach else np.linspace(-1.0, 1.0, bins + 1)
    counts = np.histogram(error, edges)[0]
    return Residuals(edges.tolist(), counts.tolist(), len(error) - int(counts.sum()))


def _quantiles(labels: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of `MIDDLE` of labels (S,): the first that such a share does not exceed."""
    order = np.argsort(labels, kind="stable")
    behind = np.cumsum(weights[order])
    places = np.searchsorted(behind, np.array(MIDDLE) * behind[-1])
    low, high = labels[order][np.minimum(places, len(labels) - 1)]
    return float(low), float(high)
