"""The original's losses: of rounded probabilities, not of logits.

A probability that float32 rounds to 0 or 1 has a loss of at most 100 and no gradient, where a loss
of logits would still pull. Runs that blow up go on differently, and what is printed depends on it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm.batch import Batch
from dlrm.compat.flags import Flags
from dlrm.training.loss import Loss, mse


def original_loss(flags: Flags) -> Loss:
    """Return `--loss-function`: from logits (B, 1) and their batch to the mean over it."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return compute_loss(flags, logits, batch.labels)

    return loss


def compute_loss(flags: Flags, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of logits (B, 1), a scalar."""
    probabilities = logits.sigmoid()
    if flags.loss_function == "mse":
        return mse(probabilities, labels)
    if flags.loss_function == "bce":
        return F.binary_cross_entropy(probabilities, labels)
    loss = F.binary_cross_entropy(probabilities, labels, reduction="none")
    return (torch.tensor(flags.loss_weights)[labels.long()] * loss).mean()
