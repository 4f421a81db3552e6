"""Small tables that every process keeps: looked up at home, their gradients summed."""

import torch
import torch.distributed as dist
from torch import Tensor

from dlrm.ops.reference.lookup import sparse_gradient
from dlrm.parallel.exchange import Wait
from dlrm.parallel.unit import NumberedUnit


class DataParallel(NumberedUnit):
    """Tables that every process has a copy of.

    Before an optimizer sees it, the gradient of each becomes that of the whole batch, the same
    everywhere: so all copies stay equal.
    """

    copied = True

    def _ask(self, numbers: Tensor) -> Wait:
        # Shards come by table: numbers are rows of the weight.
        vectors = self.store.lookup(numbers)
        return lambda: vectors

    def _ask_sums(self, numbers: Tensor, bags: Tensor, offsets: Tensor) -> Wait:
        vectors = self.store.pooled_rows(numbers, offsets)
        return lambda: vectors

    def materialize(self, device: torch.device) -> None:
        """Give the rows memory on a device."""
        super().materialize(device)
        self.store.weight.register_post_accumulate_grad_hook(self._sum)

    def _sum(self, weight: Tensor) -> None:
        """Replace the gradient by the sum over all processes, of the rows that any looked up."""
        grad = weight.grad
        assert grad is not None
        rows, values = grad._indices()[0], grad._values()
        # In a last column, how often a row was looked up.
        total = values.new_zeros(weight.shape[0], self.width + 1)
        total[:, :-1].index_add_(0, rows, values)
        total[:, -1].index_add_(0, rows, values.new_ones(len(rows)))
        exchange = self.exchange
        exchange.sent_bytes += total.nbytes * 2 * (exchange.size - 1) // exchange.size
        dist.all_reduce(total, group=exchange.group)
        rows = total[:, -1].nonzero()[:, 0]
        weight.grad = sparse_gradient(rows, total[rows, :-1], weight.shape)
