"""Normalisation over a batch whose samples are on several processes."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlrm.nn.mlp import BatchNorm
from dlrm.parallel.exchange import Exchange


class WholeBatchNorm(BatchNorm):
    """Takes mean and variance of the whole batch instead of this process' part.

    It has the parameters and statistics of the `norm`. torch's SyncBatchNorm does so on GPUs alone,
    and takes no part without samples.
    """

    def __init__(self, norm: BatchNorm, exchange: Exchange):
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.exchange = exchange
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (b, K)."""
        count = sum(self.exchange.samples)
        if not self.training or count < 2:
            training, self.training = self.training, False
            try:
                return super().forward(input)
            finally:
                self.training = training
        x = input.float()
        mean = self._total(x.sum(0)) / count
        centred = x - mean
        var = self._total(centred.square().sum(0)) / count
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        return (centred * (var + self.eps).rsqrt() * self.weight + self.bias).to(input.dtype)

    def _total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, whose gradient is the sum of their gradients."""
        # It imports much that nothing else needs.
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(values, group=self.exchange.group or dist.group.WORLD)


def over_whole_batches(model: nn.Module, exchange: Exchange) -> None:
    """Let all normalisation in a model take the whole batch."""
    for name, child in model.named_children():
        if isinstance(child, BatchNorm):
            setattr(model, name, WholeBatchNorm(child, exchange))
        else:
            over_whole_batches(child, exchange)
