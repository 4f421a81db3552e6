"""Losses on logits.

Each takes logits z (B,) and labels y (B,) in [0, 1], with p = sigmoid(z), and returns the mean
over the batch, a scalar.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, `-(y log p + (1 - y) log(1 - p))`, finite for any logit."""
    return F.binary_cross_entropy_with_logits(logits, labels)


def weighted_bce(logits: Tensor, labels: Tensor, weights: tuple[float, float]) -> Tensor:
    """Binary cross-entropy where each sample counts `weights[label]`.

    The mean is over samples, not over weights, as in the original: weights (2, 2) double the loss.
    Labels between 0 and 1 count as the class they truncate to.
    """
    per_class = torch.tensor(weights, dtype=logits.dtype, device=logits.device)
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (per_class[labels.long()] * loss).mean()


def mse(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of the probability, `(p - y)^2`."""
    return F.mse_loss(torch.sigmoid(logits), labels)
