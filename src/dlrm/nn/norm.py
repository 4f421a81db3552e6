"""Normalisation over the batch."""

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """`(x - mean) / sqrt(var + eps) * weight + bias` for each of K numbers.

    Training takes mean and variance of the batch, anything else those that training has kept; so
    does a batch of one sample, which has no variance.

    Source: Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
    Internal Covariate Shift", arXiv 1502.03167.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, K)."""
        if self.training and input.shape[0] > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
