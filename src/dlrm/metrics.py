"""How good click predictions are: exact, streamed in pieces, mergeable."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MetricValues:
    """The metrics of a set of predictions; None where one is undefined.

    AUC and normalized entropy are undefined when all labels are equal, everything is without
    samples.
    """

    auc: float | None
    """Chance that a click scores above a non-click, ties counting half."""
    log_loss: float | None
    """Mean binary cross-entropy, in nats."""
    normalized_entropy: float | None
    """Log loss over the entropy of the click rate: 1 is as good as always predicting that rate.
    (He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.)"""
    accuracy: float | None
    """Share of samples whose score rounds to the label."""
    calibration: float | None
    """Mean score over click rate: above 1 the model predicts too many clicks."""
    click_rate: float | None
    samples: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the metrics by name."""
        return asdict(self)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) in float64, without overflow."""
    x = logits.astype(np.float64)
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)


def auc(scores: NDArray[np.floating], labels: NDArray[np.number]) -> float | None:
    """Return the area under the ROC curve, exactly, ties counting half.

    Args:
        scores: (S,) any monotonous score.
        labels: (S,) 0 or 1.

    Returns:
        The Mann-Whitney statistic in [0, 1]; None when all labels are equal.

    """
    clicks = int(np.count_nonzero(labels))
    others = len(labels) - clicks
    if clicks == 0 or others == 0:
        return None
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    clicked = labels[order] != 0
    # Each group of equal scores ends where the next score differs.
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    clicks_to = np.cumsum(clicked)[last]
    others_to = last + 1 - clicks_to
    clicks_in = np.diff(clicks_to, prepend=0)
    others_in = np.diff(others_to, prepend=0)
    # A click beats all non-clicks of lower groups, and half of those in its own.
    wins = np.sum(clicks_in * (others_to - others_in) + 0.5 * clicks_in * others_in)
    return float(wins / (clicks * others))


def measure(logits: NDArray[np.floating], labels: NDArray[np.number]) -> MetricValues:
    """Return all metrics of these predictions.

    Args:
        logits: (S,) scores before the sigmoid.
        labels: (S,) 0 or 1.

    """
    samples = len(labels)
    if samples == 0:
        return MetricValues(None, None, None, None, None, None, 0)
    x = logits.astype(np.float64)
    y = labels.astype(np.float64)
    click_rate = float(y.mean())
    log_loss = float(np.mean(np.maximum(x, 0.0) - x * y + np.log1p(np.exp(-np.abs(x)))))
    entropy = 0.0
    if 0.0 < click_rate < 1.0:
        entropy = -(click_rate * np.log(click_rate) + (1.0 - click_rate) * np.log(1.0 - click_rate))
    return MetricValues(
        auc=auc(logits, labels),
        log_loss=log_loss,
        normalized_entropy=float(log_loss / entropy) if entropy else None,
        accuracy=float(np.mean((x > 0.0) == (y != 0.0))),
        calibration=float(sigmoid(x).mean() / click_rate) if click_rate else None,
        click_rate=click_rate,
        samples=samples,
    )


class Metrics:
    """Predictions gathered piece by piece, and their metrics.

    Exact rather than sketched: it keeps 8 bytes a sample, 71 MB for Criteo Terabyte's test day.
    """

    def __init__(self) -> None:
        self._logits: list[Array] = []
        self._labels: list[Array] = []

    def update(self, logits: Array, labels: Array) -> None:
        """Add predictions.

        Args:
            logits: (S,) scores before the sigmoid.
            labels: (S,) 0 or 1.

        """
        self._logits.append(np.asarray(logits, dtype=np.float32))
        self._labels.append(np.asarray(labels, dtype=np.float32))

    def merge(self, other: "Metrics") -> None:
        """Add all predictions of another."""
        self._logits += other._logits
        self._labels += other._labels

    def arrays(self) -> tuple[Array, Array]:
        """Return logits and labels (S,), in the order they came."""
        empty = np.empty(0, dtype=np.float32)
        return (
            np.concatenate([empty, *self._logits]),
            np.concatenate([empty, *self._labels]),
        )

    def compute(self) -> MetricValues:
        """Return the metrics of everything added so far."""
        return measure(*self.arrays())

    def __len__(self) -> int:
        return sum(map(len, self._labels))


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Samples whose scores lie in [low, high): what was predicted and what happened."""

    low: float
    high: float
    samples: int
    mean_score: float
    click_rate: float


def calibration_bins(
    scores: NDArray[np.floating], labels: NDArray[np.number], bins: int = 20
) -> list[CalibrationBin]:
    """Return the calibration curve over bins of (nearly) equal numbers of samples.

    Args:
        scores: (S,) probabilities.
        labels: (S,) 0 or 1.
        bins: At most this many; equal scores are never parted, and empty bins are left out.

    """
    if len(scores) == 0:
        return []
    edges = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, bins + 1)))
    member = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, max(len(edges) - 2, 0))
    result = []
    for b in np.unique(member):
        inside = member == b
        result.append(
            CalibrationBin(
                low=float(edges[b]),
                high=float(edges[min(b + 1, len(edges) - 1)]),
                samples=int(inside.sum()),
                mean_score=float(scores[inside].mean()),
                click_rate=float(labels[inside].mean()),
            )
        )
    return result
