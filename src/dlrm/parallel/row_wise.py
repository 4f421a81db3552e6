"""Tables whose rows are spread over processes: for those that no single one can keep."""

import torch
from torch import Tensor

from dlrm.nn.embedding import Layout
from dlrm.parallel.exchange import Wait
from dlrm.parallel.unit import NumberedUnit, ends


class RowWise(NumberedUnit):
    """Tables with their rows on several processes.

    Each id goes to the process that keeps its row, and one vector comes back; of a list one from
    each process that keeps rows of it, the sum of those.
    """

    bounds: Tensor
    """(P,) int64, the number of the first row of each shard"""
    ranks: Tensor
    """(P,) int64, who keeps each shard"""
    shifts: Tensor
    """(P,) int64, what makes a number a row of its process' weight"""

    def _arrange(self, layout: Layout) -> None:
        super()._arrange(layout)
        parts = sorted(self.shards, key=lambda s: (s.table, s.first_row))
        bounds = [self.first[s.table] + s.first_row for s in parts]
        self._register("bounds", bounds)
        self._register("ranks", [s.rank for s in parts])
        self._register("shifts", [self.place[s] - at for s, at in zip(parts, bounds, strict=True)])

    def _ask(self, numbers: Tensor) -> Wait:
        ranks, rows = self._route(numbers)
        order = ranks.argsort(stable=True)
        counts = ranks.bincount(minlength=self.exchange.size)
        give = counts.tolist()
        take = self.exchange.all_to_all_counts(counts[:, None])[:, 0].tolist()
        arrived = self._send(rows[order], give, take)
        end = self._return(self.store.lookup(arrived), take, give)
        back = order.argsort()
        return lambda: end().index_select(0, back)

    def _ask_sums(self, numbers: Tensor, bags: Tensor, offsets: Tensor) -> Wait:
        ranks, rows = self._route(numbers)
        lists, size = offsets.shape[0] - 1, self.exchange.size
        # Ids that a list has on one process stand together, and come back as one sum.
        keys = ranks * lists + bags
        order = keys.argsort(stable=True)
        keys, lengths = keys[order].unique_consecutive(return_counts=True)
        owners = torch.div(keys, max(lists, 1), rounding_mode="floor")
        counts = torch.stack([owners.bincount(minlength=size), ranks.bincount(minlength=size)], 1)
        give, give_ids = counts.t().tolist()
        take, take_ids = self.exchange.all_to_all_counts(counts).t().tolist()
        lengths = self._send(lengths, give, take)
        arrived = self._send(rows[order], give_ids, take_ids)
        end = self._return(self.store.pooled_rows(arrived, ends(lengths)), take, give)

        def add_up() -> Tensor:
            sums = end()
            return sums.new_zeros(lists, self.width).index_add(0, keys - owners * lists, sums)

        return add_up

    def _route(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return who keeps each row (n,), and its place in their weight (n,)."""
        part = torch.searchsorted(self.bounds, numbers, right=True) - 1
        return self.ranks[part], numbers + self.shifts[part]
