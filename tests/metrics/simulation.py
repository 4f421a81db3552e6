"""Predictions whose true metrics are known: few scores, each with a true click rate."""

from dataclasses import dataclass

import numpy as np

from dlrm.metrics import sigmoid


@dataclass(frozen=True)
class World:
    """Scores that are drawn equally often, and the logit of the true click rate of each."""

    logits: np.ndarray
    truth: np.ndarray

    def draw(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        which = rng.integers(0, len(self.logits), size)
        clicks = rng.random(size) < sigmoid(self.truth)[which]
        return self.logits[which].astype(np.float32), clicks.astype(np.float32)

    def metrics(self) -> dict[str, float]:
        score, p = sigmoid(self.logits), sigmoid(self.truth)
        rate = p.mean()
        clicks, others = p / p.sum(), (1 - p) / (1 - p).sum()
        wins = (self.logits[:, None] > self.logits) + 0.5 * (self.logits[:, None] == self.logits)
        loss = -np.mean(p * np.log(score) + (1 - p) * np.log(1 - score))
        return {
            "auc": float(clicks @ wins @ others),
            "log_loss": float(loss),
            "normalized_entropy": float(
                loss / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
            ),
            "accuracy": float(np.mean(np.where(self.logits > 0, p, 1 - p))),
            "calibration": float(score.mean() / rate),
            "ece": float(np.mean(np.abs(score - p))),
        }


LOGITS = np.linspace(-3.0, 1.5, 10)
OFF = World(LOGITS, 0.8 * LOGITS - 0.2)
RIGHT = World(LOGITS, LOGITS)


def draw(seed: int, size: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of either label; scores are rounded to a `ties`-th where that is not 0."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size) * 2
    if ties:
        logits = np.round(logits * ties) / ties
    labels = (rng.random(size) < sigmoid(logits - 0.5)).astype(np.float32)
    labels[:2] = [0, 1]
    return logits.astype(np.float32), labels
