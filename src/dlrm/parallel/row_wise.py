"""Tables whose rows are spread over processes: for those that no single one can keep."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrm.nn.concat import select
from dlrm.nn.embedding import Storage, bags_of
from dlrm.parallel.exchange import Trip, Wire
from dlrm.parallel.shards import Shard
from dlrm.parallel.unit import End, Unit, ends, starts


class Rows(Unit):
    """F tables with their rows on several processes.

    Each id goes to the process that keeps its row, and one vector comes back; of a bag one from
    each process that keeps rows of it, the sum of those.
    """

    features: Tensor
    """(F,) int64, ascending"""
    first: Tensor
    """(F,) int64, the first row of each table in a numbering of all rows of the unit"""
    bounds: Tensor
    """(P,) int64, in that numbering the first row of each part"""
    ranks: Tensor
    """(P,) int64, who keeps each part"""
    shifts: Tensor
    """(P,) int64, what makes a number in that numbering a row of its process' weight"""

    def __init__(
        self, shards: Sequence[Shard], width: int, storage: Storage, wire: Wire, tables: int
    ):
        super().__init__(shards, width, storage, wire, tables)
        parts = sorted(shards, key=lambda s: (s.table, s.first_row))
        numbers = sorted({s.table for s in parts})
        sizes = [max(s.last_row for s in parts if s.table == t) for t in numbers]
        first = dict(zip(numbers, torch.tensor([0, *sizes]).cumsum(0).tolist(), strict=False))
        place = {s: at for of in self.by_rank for s, at in zip(of, starts(of), strict=True)}
        bounds = [first[s.table] + s.first_row for s in parts]
        buffers = {
            "features": numbers,
            "first": [first[t] for t in numbers],
            "bounds": bounds,
            "ranks": [s.rank for s in parts],
            "shifts": [place[s] - at for s, at in zip(parts, bounds, strict=True)],
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def begin(self, ids: Tensor, offsets: Tensor | None) -> End:
        """Send ids to where their rows are; see `Unit.begin`."""
        if offsets is not None:
            return self._begin_bags(ids, offsets)
        own, features = ids.shape[0], len(self.features)
        numbers = ids.index_select(1, self.features) + self.first
        end = self._begin_each(numbers.flatten())
        return lambda: end().view(own, features, self.width)

    def each(self, ids: Tensor, offsets: Tensor, dim: int) -> Tensor:
        """Return rows one by one; see `Unit.each`."""
        of = torch.full((self.tables,), -1, device=ids.device)
        of[self.features] = torch.arange(len(self.features), device=ids.device)
        feature = of[bags_of(offsets, ids.shape[0]) % self.tables]
        items = (feature >= 0).nonzero()[:, 0]
        vectors = self._begin_each(ids[items] + self.first[feature[items]])()
        return vectors.new_zeros(ids.shape[0], dim).index_add(0, items, vectors)

    def _begin_each(self, numbers: Tensor) -> End:
        """Fetch the row of each number, (n, width)."""
        ranks, rows = self._route(numbers)
        order = ranks.argsort(stable=True)
        counts = ranks.bincount(minlength=self.wire.size)
        give, take = counts.tolist(), self.wire.swap_counts(counts[:, None])[:, 0].tolist()
        trip, token = self._fetch(
            self.store.lookup(self._swap(rows[order], give, take)), take, give
        )
        back = order.argsort()
        return lambda: trip.end(token).view(-1, self.width).index_select(0, back)

    def _begin_bags(self, ids: Tensor, offsets: Tensor) -> End:
        ids, offsets = _both(select(ids, offsets, self.features, self.tables))
        features, bags = len(self.features), offsets.shape[0] - 1
        bag = bags_of(offsets, ids.shape[0])
        ranks, rows = self._route(ids + self.first[bag % features])
        # Ids that a bag has on one process stand together, and come back as one sum.
        keys = ranks * bags + bag
        order = keys.argsort(stable=True)
        keys, lengths = keys[order].unique_consecutive(return_counts=True)
        owners = torch.div(keys, max(bags, 1), rounding_mode="floor")
        size = self.wire.size
        counts = torch.stack([owners.bincount(minlength=size), ranks.bincount(minlength=size)], 1)
        came = self.wire.swap_counts(counts)
        give, give_ids = counts.t().tolist()
        take, take_ids = came.t().tolist()
        lengths = self._swap(lengths, give, take)
        arrived = self._swap(rows[order], give_ids, take_ids)
        trip, token = self._fetch(self.store.pooled(arrived, ends(lengths)), take, give)

        def end() -> Tensor:
            found = trip.end(token).view(-1, self.width)
            pooled = found.new_zeros(bags, self.width).index_add(0, keys - owners * bags, found)
            return pooled.view(-1, features, self.width)

        return end

    def _route(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return who keeps each row (n,), and its place in their weight (n,)."""
        part = torch.searchsorted(self.bounds, numbers, right=True) - 1
        return self.ranks[part], numbers + self.shifts[part]

    def _swap(self, values: Tensor, give: Sequence[int], take: Sequence[int]) -> Tensor:
        return self.wire.swap(values.to(self.id_type), give, take).wait().long()

    def _fetch(
        self, vectors: Tensor, give: Sequence[int], take: Sequence[int]
    ) -> tuple[Trip, Tensor]:
        w = self.width
        trip = Trip(self.wire, [w * n for n in give], [w * n for n in take])
        return trip, trip.begin(vectors)


def _both(selected: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
    ids, offsets = selected
    assert offsets is not None
    return ids, offsets
