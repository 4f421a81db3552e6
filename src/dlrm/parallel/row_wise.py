"""Tables whose rows are spread over processes: for those that no single one can keep."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrm.nn.embedding import Block, Layout, Storage, bags_of
from dlrm.parallel.exchange import AllToAll, Exchange
from dlrm.parallel.unit import End, Unit, ends, starts
from dlrm.planning.shards import Shard


class RowWise(Unit):
    """Tables with their rows on several processes.

    Each id goes to the process that keeps its row, and one vector comes back; of a list one from
    each process that keeps rows of it, the sum of those.
    """

    bounds: Tensor
    """(P,) int64, in a numbering of all rows of the unit the first row of each shard"""
    ranks: Tensor
    """(P,) int64, who keeps each shard"""
    shifts: Tensor
    """(P,) int64, what makes a number in that numbering a row of its process' weight"""

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
        parts = sorted(shards, key=lambda s: (s.table, s.first_row))
        first, at = {}, 0
        for table in sorted({s.table for s in parts}):
            first[table] = at
            at += layout.sizes[table]
        place = {
            s: start
            for theirs in self.by_rank
            for s, start in zip(theirs, starts(theirs), strict=True)
        }
        bounds = [first[s.table] + s.first_row for s in parts]
        self._register("bounds", bounds)
        self._register("ranks", [s.rank for s in parts])
        self._register("shifts", [place[s] - at for s, at in zip(parts, bounds, strict=True)])
        for group, features in enumerate(self.served):
            tables = layout.table_indices(group)
            self._register(f"first_{group}", [first[tables[f]] for f in features])

    def begin(self, block: Block) -> End:
        """Send ids to where their rows are; see `Unit.begin`."""
        if block.offsets is not None:
            return self._begin_lists(block)
        ids = block.ids.index_select(1, self._registered(f"features_{block.group}"))
        end = self._begin_each((ids + self._registered(f"first_{block.group}")).flatten())
        return lambda: end().view(*ids.shape, self.width)

    def vectors(self, block: Block) -> Tensor:
        """Return rows one by one; see `Unit.vectors`."""
        assert block.offsets is not None
        count = self.group_sizes[block.group]
        features = self._registered(f"features_{block.group}")
        first = features.new_full((count,), -1)
        first[features] = self._registered(f"first_{block.group}")
        start = first[bags_of(block.offsets, len(block.ids)) % count]
        if len(features) == count:
            return self._begin_each(block.ids + start)()
        items = (start >= 0).nonzero()[:, 0]
        vectors = self._begin_each(block.ids[items] + start[items])()
        return vectors.new_zeros(len(start), self.dim).index_add(0, items, vectors)

    def _begin_each(self, numbers: Tensor) -> End:
        """Fetch the row of each number, (n, width)."""
        ranks, rows = self._route(numbers)
        order = ranks.argsort(stable=True)
        counts = ranks.bincount(minlength=self.exchange.size)
        give = counts.tolist()
        take = self.exchange.all_to_all_counts(counts[:, None])[:, 0].tolist()
        arrived = self._send(rows[order], give, take)
        transfer, token = self._fetch(self.store.lookup(arrived), take, give)
        back = order.argsort()
        return lambda: transfer.end(token).view(-1, self.width).index_select(0, back)

    def _begin_lists(self, block: Block) -> End:
        ids, offsets = self._own_lists(block)
        first = self._registered(f"first_{block.group}")
        features, lists = len(first), offsets.shape[0] - 1
        which = bags_of(offsets, ids.shape[0])
        ranks, rows = self._route(ids + first[which % features])
        # Ids that a list has on one process stand together, and come back as one sum.
        keys = ranks * lists + which
        order = keys.argsort(stable=True)
        keys, lengths = keys[order].unique_consecutive(return_counts=True)
        owners = torch.div(keys, max(lists, 1), rounding_mode="floor")
        size = self.exchange.size
        counts = torch.stack([owners.bincount(minlength=size), ranks.bincount(minlength=size)], 1)
        came = self.exchange.all_to_all_counts(counts)
        give, give_ids = counts.t().tolist()
        take, take_ids = came.t().tolist()
        lengths = self._send(lengths, give, take)
        arrived = self._send(rows[order], give_ids, take_ids)
        transfer, token = self._fetch(self.store.pooled_rows(arrived, ends(lengths)), take, give)

        def end() -> Tensor:
            sums = transfer.end(token).view(-1, self.width)
            pooled = sums.new_zeros(lists, self.width).index_add(0, keys - owners * lists, sums)
            return pooled.view(-1, features, self.width)

        return end

    def _route(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return who keeps each row (n,), and its place in their weight (n,)."""
        part = torch.searchsorted(self.bounds, numbers, right=True) - 1
        return self.ranks[part], numbers + self.shifts[part]

    def _send(self, values: Tensor, give: Sequence[int], take: Sequence[int]) -> Tensor:
        return self.exchange.all_to_all(values.to(self.id_type), give, take).wait().long()

    def _fetch(
        self, vectors: Tensor, give: Sequence[int], take: Sequence[int]
    ) -> tuple[AllToAll, Tensor]:
        w = self.width
        transfer = AllToAll(self.exchange, [w * n for n in give], [w * n for n in take])
        return transfer, transfer.begin(vectors)
