"""A model on several processes: tables sharded, everything else copied, gradients summed."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.nn.embedding import embeddings_of, parameter_groups
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.gradients import GradientSums
from dlrm.parallel.norm import over_whole_batches


class ParallelModel(nn.Module):
    """`forward(batch) -> logits (b, K)` of the samples of this process.

    Ids are sent before the model begins, so that the bottom MLP is computed while vectors are on
    their way.

    Args:
        model: Made by `parallelize`, its tables have memory; equal on all processes but for them.
        exchange: That of its tables.
        group: Process group of `torch.distributed`, for the gradients of everything else.

    """

    def __init__(self, model: nn.Module, exchange: Exchange, group: Any = None):
        super().__init__()
        self.exchange = exchange
        over_whole_batches(model, exchange)
        self.model = model
        self._ahead = [each for each in embeddings_of(model) if not each.derived]
        dense = [
            parameter
            for parameters in parameter_groups(model)
            if not parameters["sparse"]
            for parameter in parameters["params"]
        ]
        self._sums = GradientSums(dense, group)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (b, K)."""
        self.exchange.samples = batch.parts or self._gather_counts(len(batch))
        for embeddings in self._ahead:
            embeddings.prefetch(batch)
        logits = self.model(batch)
        if torch.is_grad_enabled() and logits.requires_grad:
            return self._sums.of(logits)
        return logits

    def _gather_counts(self, own: int) -> tuple[int, ...]:
        counts = torch.zeros(self.exchange.size, dtype=torch.int64)
        counts[self.exchange.rank] = own
        dist.all_reduce(counts, group=self.exchange.group)
        return tuple(counts.tolist())
