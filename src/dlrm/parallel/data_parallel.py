"""Small tables that every process keeps: looked up at home, their gradients summed."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from dlrm.nn.embedding import Block, Layout, Storage, bags_of
from dlrm.ops.reference.lookup import sparse_gradient
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.unit import End, Unit, starts
from dlrm.planning.shards import Shard


class DataParallel(Unit):
    """Tables that every process has a copy of.

    Before an optimizer sees it, the gradient of each becomes that of the whole batch, the same
    everywhere: so all copies stay equal.
    """

    copied = True

    def __init__(
        self,
        shards: Sequence[Shard],
        width: int,
        layout: Layout,
        dim: int,
        storage: Storage,
        exchange: Exchange,
    ):
        super().__init__(shards, width, layout, dim, storage, exchange)
        first = dict(zip((s.table for s in self.mine), starts(self.mine), strict=True))
        for group, features in enumerate(self.served):
            tables = layout.table_indices(group)
            self._register(f"starts_{group}", [first[tables[f]] for f in features])

    def begin(self, block: Block) -> End:
        """Look up at once; see `Unit.begin`."""
        first = self._registered(f"starts_{block.group}")
        if block.offsets is None:
            ids = block.ids.index_select(1, self._registered(f"features_{block.group}"))
            vectors = self.store.lookup(ids + first)
        else:
            ids, offsets = self._own_lists(block)
            rows = ids + first[bags_of(offsets, len(ids)) % len(first)]
            vectors = self.store.pooled_rows(rows, offsets).view(-1, len(first), self.width)
        return lambda: vectors

    def vectors(self, block: Block) -> Tensor:
        """Return rows one by one; see `Unit.vectors`."""
        assert block.offsets is not None
        first = self._registered(f"starts_{block.group}")
        count = self.group_sizes[block.group]
        features = self._registered(f"features_{block.group}")
        every = first.new_full((count,), -1)
        every[features] = first
        start = every[bags_of(block.offsets, len(block.ids)) % count]
        if len(features) == count:
            return self.store.lookup(block.ids + start)
        items = (start >= 0).nonzero()[:, 0]
        vectors = self.store.lookup(block.ids[items] + start[items])
        return vectors.new_zeros(len(start), self.dim).index_add(0, items, vectors)

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
