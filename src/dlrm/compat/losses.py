"""The original's losses: of rounded probabilities, not of logits.

A probability that float32 rounds to 0 or 1 has a loss of at most 100 and no gradient, where a loss
of logits would still pull. Runs that blow up go on differently, and what is printed depends on it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm.batch import Batch
from dlrm.compat.flags import Flags
from dlrm.training.loss import mse


def batch_loss(flags: Flags, logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean loss of a batch, a scalar; of a share of one what that adds to the mean."""
    if batch.parts is None:
        return compute_loss(flags, logits, batch.labels)
    if not len(batch):
        # Zero, and yet the backward pass goes through the model, as it does elsewhere.
        return logits.sum()
    return compute_loss(flags, logits, batch.labels) * (len(batch) / sum(batch.parts))


def compute_loss(flags: Flags, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of `--loss-function` over a batch, a scalar, of logits (B,)."""
    if flags.loss_function == "mse":
        return mse(logits, labels)
    probabilities = logits.sigmoid()
    if flags.loss_function == "bce":
        return F.binary_cross_entropy(probabilities, labels)
    loss = F.binary_cross_entropy(probabilities, labels, reduction="none")
    return (torch.tensor(flags.loss_weights)[labels.long()] * loss).mean()
