"""Whole tables, or columns of them, each kept by one process: the butterfly of the paper."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrm.nn.embedding import Storage
from dlrm.parallel.exchange import Trip, Wire
from dlrm.parallel.shards import Shard
from dlrm.parallel.unit import End, Unit, ends, starts, sums


class Slots(Unit):
    """S parts of tables with all of their rows, some of them on each process.

    What goes to a process is ordered by slot and sample: (S_r, b) ids, (S_r, b, width) numbers
    back.
    """

    features: Tensor
    """(S,) int64, the feature of each slot, process by process"""
    starts: Tensor
    """(S,) int64, the first row of each slot in the weight of its process"""

    def __init__(
        self, shards: Sequence[Shard], width: int, storage: Storage, wire: Wire, tables: int
    ):
        super().__init__(shards, width, storage, wire, tables)
        self.slots = [shard for of in self.by_rank for shard in of]
        self.counts = [len(of) for of in self.by_rank]
        first = [start for of in self.by_rank for start in starts(of)]
        of_slots = torch.tensor([shard.table for shard in self.slots])
        self.register_buffer("features", of_slots, persistent=False)
        self.register_buffer("starts", torch.tensor(first), persistent=False)
        # For optimizers that keep one number a row: see `mean_squares`.
        if any(shard.first_column for shard in self.slots):
            vars(self.store.weight)["mean_squares"] = self.mean_squares
        self.row_width = max((shard.last_column for shard in self.slots), default=width)

    def begin(self, ids: Tensor, offsets: Tensor | None) -> End:
        """Send ids to where their rows are; see `Unit.begin`."""
        if offsets is not None:
            return self._begin_bags(ids, offsets)
        split, own = self.wire.split(ids.shape[0]), ids.shape[0]
        rows = ids.t().index_select(0, self.features) + self.starts[:, None]
        mine = self.counts[self.wire.rank]
        take = [mine * b for b in split]
        arrived = self._swap(rows.flatten(), [s * own for s in self.counts], take)
        return self._back(self.store.lookup(arrived), take, [s * own for s in self.counts], own)

    def each(self, ids: Tensor, offsets: Tensor, dim: int) -> Tensor:
        """Return rows one by one; see `Unit.each`."""
        items, slots, lengths, rows, _ = self._by_slot(ids, offsets)
        taken, arrived = self._send_bags(lengths, rows)
        trip = self._trip(taken[1], taken[2])
        vectors = trip.end(trip.begin(self.store.lookup(arrived)))
        columns = torch.tensor([s.first_column for s in self.slots], device=ids.device)
        numbers = items * dim + columns[slots]
        numbers = numbers[:, None] + torch.arange(self.width, device=ids.device)
        flat = vectors.new_zeros(ids.shape[0] * dim)
        return flat.index_add(0, numbers.flatten(), vectors).view(-1, dim)

    def mean_squares(self, rows: Tensor, grad: Tensor) -> Tensor:
        """Return the mean of squares (U,) over whole rows, of which columns are elsewhere.

        Args:
            rows: (U,) of this process' weight, ascending, each once: the same ids of a table as all
                processes have that keep columns of it.
            grad: (U, width), of the columns here.

        """
        squares = grad.square().sum(dim=1)
        bounds = torch.tensor([[k.place, k.place + k.shard.rows] for k in self.kept])
        bounds = torch.searchsorted(rows, bounds.to(rows.device)).tolist()
        mine = {k.shard.table: slice(*b) for k, b in zip(self.kept, bounds, strict=True)}
        # With every process that has columns of the same tables, in the order of tables.
        shared = [[mine[s.table] for s in of if s.table in mine] for of in self.by_rank]
        sizes = [sum(part.stop - part.start for part in of) for of in shared]
        given = torch.cat([squares[part] for of in shared for part in of] or [squares[:0]])
        came = iter(self.wire.swap(given, sizes, sizes).wait().split(sizes))
        total = torch.zeros_like(squares)
        # Rank by rank, its own among them: the same sum everywhere.
        for of, theirs in zip(shared, came, strict=True):
            at = 0
            for part in of:
                total[part] += theirs[at : at + part.stop - part.start]
                at += part.stop - part.start
        return total / self.row_width

    def _begin_bags(self, ids: Tensor, offsets: Tensor) -> End:
        _, _, lengths, rows, own = self._by_slot(ids, offsets)
        taken, arrived = self._send_bags(lengths, rows)
        pooled = self.store.pooled(arrived, ends(taken[0]))
        split, mine = self.wire.split(own), self.counts[self.wire.rank]
        return self._back(pooled, [mine * b for b in split], [s * own for s in self.counts], own)

    def _by_slot(self, ids: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Put ids in the order of slots and samples.

        Returns:
            Of each id in that order its place (M,) among all ids, its slot (M,), the length of each
            bag (S * b,), rows (M,) in weights, and the number of samples b.

        """
        own = (offsets.shape[0] - 1) // self.tables
        samples = torch.arange(own, device=ids.device) * self.tables
        bags = (self.features[:, None] + samples).flatten()
        lengths = offsets.diff().index_select(0, bags)
        places = ends(lengths)
        count = int(places[-1])
        bag = torch.arange(len(bags), device=ids.device).repeat_interleave(
            lengths, output_size=count
        )
        within = torch.arange(count, device=ids.device) - places[bag]
        items = offsets.index_select(0, bags)[bag] + within
        slots = torch.div(bag, max(own, 1), rounding_mode="floor")
        return items, slots, lengths, ids[items] + self.starts[slots], own

    def _send_bags(
        self, lengths: Tensor, rows: Tensor
    ) -> tuple[tuple[Tensor, list[int], list[int]], Tensor]:
        """Send bags to where their rows are.

        Returns:
            Lengths of the bags that have come, how many ids came from each process and went to
            each; and the rows that have come.

        """
        split, mine = self.wire.samples, self.counts[self.wire.rank]
        own = split[self.wire.rank]
        bags = [s * own for s in self.counts]
        came = [mine * b for b in split]
        lengths_came = self._swap(lengths, bags, came)
        give, take = sums(lengths, bags), sums(lengths_came, came)
        return (lengths_came, take, give), self._swap(rows, give, take)

    def _swap(self, values: Tensor, give: Sequence[int], take: Sequence[int]) -> Tensor:
        return self.wire.swap(values.to(self.id_type), give, take).wait().long()

    def _trip(self, give: Sequence[int], take: Sequence[int]) -> Trip:
        w = self.width
        return Trip(self.wire, [w * n for n in give], [w * n for n in take])

    def _back(self, vectors: Tensor, give: Sequence[int], take: Sequence[int], own: int) -> End:
        trip = self._trip(give, take)
        token = trip.begin(vectors)
        shape = (len(self.slots), own, self.width)
        return lambda: trip.end(token).view(shape).transpose(0, 1)
