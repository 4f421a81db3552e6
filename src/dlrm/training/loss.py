"""Losses: what is minimised, of logits z (B, K) and labels y (B, K).

Each is a mean over samples and labels, a scalar. A sample may count `weights` (B,) times: the mean
is over samples, not over weights, so that weights of 2 double the loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.ops import backend
from dlrm.schema import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The loss that training minimises."""

    name: Literal["auto", "bce", "weighted_bce", "mse"] = "auto"
    """Binary cross-entropy, the same with a weight per class, or squared error: of probabilities
    where labels are 0 or 1, of predictions where they are any numbers. auto is bce and mse."""
    weights: tuple[float, float] = (1.0, 1.0)
    """Weights of negatives and positives in `weighted_bce`."""

    def resolve(self, task: Task) -> Literal["bce", "weighted_bce", "mse"]:
        """Return the loss that is minimised where labels are of this kind.

        Raises:
            ConfigError: It is for labels of another kind.

        """
        if self.name == "auto":
            return "bce" if task == "classification" else "mse"
        if task == "regression" and self.name != "mse":
            raise ConfigError(f"loss.name is {self.name}, but labels are real numbers: take mse")
        return self.name


Loss = Callable[[Tensor, Batch], Tensor]
"""Returns the mean loss over a batch, a scalar, of its logits (B, K)."""


def loss_function(
    config: LossConfig, task: Task = "classification", scale: Tensor | None = None
) -> Loss:
    """Return the loss of a run.

    Args:
        config: Which.
        task: What labels are.
        scale: (K,) what errors of each label are measured in, in a regression; None for 1. With
            the labels' deviations the loss is the same whatever their units, and labels of
            different units count alike.

    Raises:
        ConfigError: The loss is for labels of another kind.

    """
    name = config.resolve(task)
    if name == "bce":
        return cross_entropy

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        match name:
            case "weighted_bce":
                return weighted_bce(logits, batch.labels, config.weights, batch.weights)
            case "mse":
                if task == "classification":
                    return mse(logits.sigmoid(), batch.labels, batch.weights)
                error = logits - batch.labels if scale is None else (logits - batch.labels) / scale
                return mse(error, torch.zeros_like(error), batch.weights)

    return loss


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean of `bce` over a batch."""
    return bce(logits, batch.labels, batch.weights)


def bce(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, `-(y log p + (1 - y) log(1 - p))` with p = sigmoid(z).

    Finite for any logit, for labels in [0, 1].
    """
    if weights is None:
        return backend(logits).bce(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels, weight=weights[:, None])


def weighted_bce(
    logits: Tensor, labels: Tensor, per_class: tuple[float, float], weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy where each label counts `per_class[label]`.

    Labels between 0 and 1 count as the class they truncate to, as in the original.
    """
    counts = torch.tensor(per_class, dtype=logits.dtype, device=logits.device)[labels.long()]
    loss = counts * F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return loss.mean() if weights is None else (loss * weights[:, None]).mean()


def mse(predictions: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error, `(p - y)^2`."""
    if weights is None:
        return F.mse_loss(predictions, labels)
    return ((predictions - labels).square() * weights[:, None]).mean()
