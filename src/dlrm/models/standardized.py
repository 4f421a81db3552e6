"""A model of numbers, which it learns less their mean and in units of their deviation.

    prediction = mean + deviation * logits          for each label

So any model starts at the mean label, and its settings mean the same whatever the labels' units.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlrm.batch import Batch


class Standardized(nn.Module):
    """Predictions (B, K) in the labels' units, of a model whose logits are without unit."""

    mean: Tensor
    """(K,) of the training labels; a checkpoint holds it"""
    deviation: Tensor
    """(K,) their standard deviation, 1 where labels are all alike"""

    def __init__(self, net: nn.Module, num_labels: int):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(num_labels))
        self.register_buffer("deviation", torch.ones(num_labels))

    def forward(self, batch: Batch) -> Tensor:
        """Return the predictions (B, K)."""
        return torch.addcmul(self.mean, self.deviation, self.net(batch))

    @torch.no_grad()
    def standardize(
        self, labels: NDArray[np.floating], weights: NDArray[np.floating] | None = None
    ) -> None:
        """Take mean and deviation from labels (n, K), which may weigh (n,), not all 0."""
        mean = np.average(labels.astype(np.float64), axis=0, weights=weights)
        deviation = np.sqrt(np.average(np.square(labels - mean), axis=0, weights=weights))
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1.0)))
