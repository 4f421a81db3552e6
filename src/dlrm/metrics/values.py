"""The metrics of a set of predictions."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError, DivergedError, unknown
from dlrm.metrics.calibration import calibration_error
from dlrm.metrics.ordered import Ordered, cross_entropy, ends, ordered, sigmoid

NAMES = ("auc", "log_loss", "normalized_entropy", "accuracy", "calibration", "ece")
"""The metrics, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValues:
    """The metrics of a set of predictions; None where one is undefined.

    AUC and normalized entropy are undefined when all labels are equal, calibration without clicks,
    everything without samples.
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


def auc(scores: NDArray[np.floating], labels: NDArray[np.number]) -> float | None:
    """Return the area under the ROC curve, exactly, ties counting half.

    Args:
        scores: (S,) any monotonous score.
        labels: (S,) 0 or 1.

    Returns:
        The Mann-Whitney statistic in [0, 1]; None when all labels are equal.

    """
    return auc_of(ordered(scores, labels))


def auc_of(rows: Ordered) -> float | None:
    """Return the AUC of rows that are one segment; None when all labels are equal."""
    clicks = int(np.count_nonzero(rows.clicks))
    others = len(rows.clicks) - clicks
    if clicks == 0 or others == 0:
        return None
    last = ends(rows)
    clicks_to = np.cumsum(rows.clicks)[last]
    others_to = last + 1 - clicks_to
    clicks_in = np.diff(clicks_to, prepend=0)
    others_in = np.diff(others_to, prepend=0)
    # A click beats all non-clicks of lower scores, and half of those of its own: twice that is an
    # integer, so that nothing is rounded before the division.
    return float(np.sum(clicks_in * (2 * others_to - others_in)) / (2 * clicks * others))


def measure(logits: NDArray[np.floating], labels: NDArray[np.number]) -> MetricValues:
    """Return all metrics of these predictions.

    Equal sets of rows give equal metrics, bit for bit, whatever their order.

    Args:
        logits: (S,) scores before the sigmoid.
        labels: (S,) 0 or 1.

    Raises:
        DatasetError: The arrays are not equally long.
        DivergedError: A logit is no number, or infinite where it is wrong.

    """
    samples = len(labels)
    rows = ordered(logits, labels)
    if samples == 0:
        return MetricValues()
    scores = sigmoid(rows.scores)
    click_rate = float(np.count_nonzero(rows.clicks) / samples)
    log_loss = float(cross_entropy(rows.scores, rows.clicks).mean())
    if not np.isfinite(log_loss):
        raise DivergedError("a score is infinite: the model has diverged; try a smaller optim.lr")
    ece, ece_noise = calibration_error(scores, rows.clicks)
    both = 0.0 < click_rate < 1.0
    return MetricValues(
        auc=auc_of(rows),
        log_loss=log_loss,
        normalized_entropy=log_loss / float(entropy(click_rate)) if both else None,
        accuracy=float(np.count_nonzero((rows.scores > 0) == rows.clicks) / samples),
        calibration=float(scores.mean() / click_rate) if click_rate else None,
        ece=ece,
        ece_noise=ece_noise,
        click_rate=click_rate,
        samples=samples,
    )


def entropy(rate: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy of a click rate in (0, 1), in nats."""
    p = np.asarray(rate, dtype=np.float64)
    return -(p * np.log(p) + (1.0 - p) * np.log1p(-p))
