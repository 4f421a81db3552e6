"""The metrics of a set of click predictions."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError, DivergedError, unknown
from dlrm.metrics.calibration import calibration_error
from dlrm.metrics.ordered import Ordered, cross_entropy, ends, ordered, sigmoid
from dlrm.metrics.weights import Weights, mean, with_weight

NAMES = ("auc", "log_loss", "normalized_entropy", "accuracy", "calibration", "ece")
"""The metrics, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValues:
    """The metrics of a set of click predictions; None where one is undefined.

    AUC and normalized entropy are undefined when all labels are equal, calibration without clicks,
    everything without samples. Where samples have weights, each counts as often as its weight says.
    """

    auc: float | None = None
    """Chance that a click scores above a non-click, ties counting half."""
    log_loss: float | None = None
    """Mean binary cross-entropy, in nats."""
    normalized_entropy: float | None = None
    """Log loss over the entropy of the click rate: 1 is as good as always predicting that rate.
    (He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.)"""
    accuracy: float | None = None
    """Share of samples whose score rounds to the label."""
    calibration: float | None = None
    """Mean score over click rate: above 1 the model predicts too many clicks."""
    ece: float | None = None
    """Expected calibration error: mean |score - click rate| over 20 bins of equal numbers."""
    ece_noise: float | None = None
    """The ECE that scores which are exactly right would have on so many samples, by luck."""
    click_rate: float | None = None
    samples: int = 0
    """Rows, without those of weight 0."""

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the metrics by name."""
        return asdict(self)

    def require(self, name: str) -> float:
        """Return a metric that must be defined.

        Raises:
            ConfigError: There is no such metric; lists the choices.
            DatasetError: It is undefined for these samples; says why.

        """
        if name not in NAMES:
            raise unknown("metric", name, NAMES)
        value = getattr(self, name)
        if value is None:
            raise DatasetError(f"{name} is undefined: {self.undefined()}")
        return value

    def undefined(self) -> str | None:
        """Say in words why a metric is None; None where all are defined."""
        if not self.samples:
            return "there are no samples"
        if self.auc is not None:
            return None
        label = 1 if self.click_rate else 0
        what = f"all {self.samples:,} samples have the label {label}"
        return f"{what}, and it needs both labels; log_loss and accuracy are defined"


def auc(
    scores: NDArray[np.floating], labels: NDArray[np.number], weights: Weights = None
) -> float | None:
    """Return the area under the ROC curve, exactly, ties counting half.

    Args:
        scores: (S,) any monotonous score.
        labels: (S,) 0 or 1.
        weights: (S,) how often each sample counts; None for once each.

    Returns:
        The Mann-Whitney statistic in [0, 1]; None when all labels are equal.

    """
    scores, labels, weights = with_weight(scores, labels, weights)
    return auc_of(ordered(scores, labels, weights=weights))


def auc_of(rows: Ordered) -> float | None:
    """Return the AUC of rows that are one segment; None when all labels are equal."""
    clicks = int(np.count_nonzero(rows.clicks))
    others = len(rows.clicks) - clicks
    if clicks == 0 or others == 0:
        return None
    last = ends(rows)
    if rows.weights is not None:
        return _weighted_auc(rows.clicks, rows.weights, last)
    clicks_to = np.cumsum(rows.clicks)[last]
    others_to = last + 1 - clicks_to
    clicks_in = np.diff(clicks_to, prepend=0)
    others_in = np.diff(others_to, prepend=0)
    # A click beats all non-clicks of lower scores, and half of those of its own: twice that is an
    # integer, so that nothing is rounded before the division.
    return float(np.sum(clicks_in * (2 * others_to - others_in)) / (2 * clicks * others))


def _weighted_auc(
    clicks: NDArray[np.bool_], weights: NDArray[np.float64], last: NDArray[np.intp]
) -> float:
    first = np.append(0, last[:-1] + 1)
    clicks_in = np.add.reduceat(weights * clicks, first)
    others_in = np.add.reduceat(weights * ~clicks, first)
    others_to = np.cumsum(others_in)
    wins = np.sum(clicks_in * (others_to - others_in / 2))
    return float(np.clip(wins / (clicks_in.sum() * others_in.sum()), 0.0, 1.0))


def measure(
    logits: NDArray[np.floating], labels: NDArray[np.number], weights: Weights = None
) -> MetricValues:
    """Return all metrics of these predictions.

    Equal sets of rows give equal metrics, bit for bit, whatever their order.

    Args:
        logits: (S,) scores before the sigmoid.
        labels: (S,) 0 or 1.
        weights: (S,) how often each sample counts; None for once each.

    Raises:
        DatasetError: The arrays are not equally long, or a weight is negative or no number.
        DivergedError: A logit is no number, or infinite where it is wrong.

    """
    logits, labels, weights = with_weight(logits, labels, weights)
    samples = len(labels)
    rows = ordered(logits, labels, weights=weights)
    if samples == 0:
        return MetricValues()
    scores = sigmoid(rows.scores)
    clicks = int(np.count_nonzero(rows.clicks))
    click_rate = _share(rows.clicks, rows.weights)
    log_loss = mean(cross_entropy(rows.scores, rows.clicks), rows.weights)
    if not np.isfinite(log_loss):
        raise DivergedError("a score is infinite: the model has diverged; try a smaller optim.lr")
    ece, ece_noise = calibration_error(scores, rows.clicks, rows.weights)
    both = 0 < clicks < samples
    return MetricValues(
        auc=auc_of(rows),
        log_loss=log_loss,
        normalized_entropy=log_loss / float(entropy(click_rate)) if both else None,
        accuracy=_share((rows.scores > 0) == rows.clicks, rows.weights),
        calibration=mean(scores, rows.weights) / click_rate if click_rate else None,
        ece=ece,
        ece_noise=ece_noise,
        click_rate=click_rate,
        samples=samples,
    )


def _share(true: NDArray[np.bool_], weights: Weights) -> float:
    """Return the share of rows (S,) that are true."""
    if weights is None:
        return float(np.count_nonzero(true) / len(true))
    return float((weights * true).sum() / weights.sum())


def entropy(rate: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy of a click rate in (0, 1), in nats."""
    p = np.asarray(rate, dtype=np.float64)
    return -(p * np.log(p) + (1.0 - p) * np.log1p(-p))
