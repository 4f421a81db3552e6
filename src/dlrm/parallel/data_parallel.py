"""Small tables that every process keeps: looked up at home, their gradients summed."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from dlrm.nn.concat import select
from dlrm.nn.embedding import Storage, bags_of
from dlrm.ops.reference.lookup import sparse_gradient
from dlrm.parallel.exchange import Wire
from dlrm.parallel.shards import Shard
from dlrm.parallel.unit import End, Unit


class Copies(Unit):
    """F tables on every process.

    Before an optimizer sees it, the gradient of each becomes that of the whole batch, the same
    everywhere: so all copies stay equal.
    """

    copied = True
    features: Tensor
    """(F,) int64, ascending"""

    def __init__(
        self, shards: Sequence[Shard], width: int, storage: Storage, wire: Wire, tables: int
    ):
        super().__init__(shards, width, storage, wire, tables)
        features = torch.tensor([s.table for s in self.mine])
        self.register_buffer("features", features, persistent=False)
        self.store.weight.register_post_accumulate_grad_hook(self._sum)

    def begin(self, ids: Tensor, offsets: Tensor | None) -> End:
        """Look up at once; see `Unit.begin`."""
        ids, offsets = select(ids, offsets, self.features, self.tables)
        found = self.store(ids, offsets)
        return lambda: found

    def each(self, ids: Tensor, offsets: Tensor, dim: int) -> Tensor:
        """Return rows one by one; see `Unit.each`."""
        wanted = torch.zeros(self.tables, dtype=torch.bool, device=ids.device)
        wanted[self.features] = True
        items = wanted[bags_of(offsets, ids.shape[0]) % self.tables].nonzero()[:, 0]
        chosen, theirs = select(ids, offsets, self.features, self.tables)
        vectors = self.store.each(chosen, theirs)
        return vectors.new_zeros(ids.shape[0], dim).index_add(0, items, vectors)

    def _sum(self, weight: Tensor) -> None:
        """Replace the gradient by the sum over all processes, of the rows that any looked up."""
        grad = weight.grad
        assert grad is not None
        rows, values = grad._indices()[0], grad._values()
        # In a last column, how often a row was looked up.
        total = values.new_zeros(weight.shape[0], self.width + 1)
        total[:, :-1].index_add_(0, rows, values)
        total[:, -1].index_add_(0, rows, values.new_ones(len(rows)))
        self.wire.sent_bytes += total.nbytes * 2 * (self.wire.size - 1) // self.wire.size
        dist.all_reduce(total, group=self.wire.group)
        rows = total[:, -1].nonzero()[:, 0]
        weight.grad = sparse_gradient(rows, total[rows, :-1], weight.shape)
