"""Tables of one collection that are sharded alike, and the rows of them that this process keeps."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dlrm.batch import Jagged
from dlrm.nn.embedding import Block, EmbeddingCollection, Indexed, Layout, Part, Storage, bags_of
from dlrm.parallel.exchange import AllToAll, Exchange, Wait
from dlrm.planning.shards import Shard
from dlrm.schema import Schema


class LocalShard(NamedTuple):
    """Rows and columns of a table that this process keeps."""

    name: str
    """Name of the weight in its collection, e.g. `units.0.store.weight`."""
    weight: Tensor
    """(R, columns), in which they are."""
    shard: Shard
    """Which they are; its table is a position among those of the collection."""
    place: int
    """The first of the rows in the weight."""
    copied: bool
    """Whether every process keeps them."""
    state: Mapping[str, Tensor] = {}
    """What belongs to the rows and no optimizer of ours has: its name there -> (rows, columns), or
    (rows,) where it is one number a row."""

    @property
    def part(self) -> Part:
        """The rows themselves."""
        shard = self.shard
        rows = self.weight.detach()[self.place : self.place + shard.rows]
        return Part(rows, shard.first_row, slice(shard.first_column, shard.last_column))


class Unit(Indexed):
    """Tables that are sharded alike; each process has a weight of those rows that it keeps.

    `begin` sends what has to be sent and returns what ends it, so that the exchanges of several
    units, and what a model computes meanwhile, overlap. Ids have been checked already.

    The shards are those of all processes, of `width` columns each; their tables are positions in
    the layout, whose other tables belong to other units. Vectors have `dim` numbers, D.
    """

    copied = False

    def __init__(
        self,
        shards: Sequence[Shard],
        width: int,
        layout: Layout,
        dim: int,
        storage: Storage,
        exchange: Exchange,
    ):
        super().__init__()
        self.shards, self.exchange, self.width, self.dim = shards, exchange, width, dim
        self.by_rank = [[s for s in shards if s.rank == r] for r in range(exchange.size)]
        self.mine = self.by_rank[exchange.rank]
        self.place: dict[Shard, int] = {}
        """First row of each shard in the weight of the process that keeps it"""
        rows = [0] * exchange.size
        for shard in shards:
            self.place[shard] = rows[shard.rank]
            rows[shard.rank] += shard.rows
        self.store = _store(rows[exchange.rank], width, storage)
        self.id_type = torch.int32 if max(rows) < 1 << 31 else torch.int64
        tables = {s.table for s in shards}
        self.served = [
            tuple(f for f, t in enumerate(layout.table_indices(group)) if t in tables)
            for group in range(len(layout.groups))
        ]
        """Positions in each group of the features that are looked up here."""
        self.group_sizes = [len(features) for features in layout.groups]
        """Features of each group, those of other units included."""
        self._arrange(layout)

    def _arrange(self, layout: Layout) -> None:
        """Work out, once, what is needed to find rows."""
        raise NotImplementedError

    def materialize(self, device: torch.device) -> None:
        """Give the rows that this process keeps memory on a device."""
        self.store.materialize(device)

    @property
    def placed_shards(self) -> list[tuple[Shard, int]]:
        """Shards that this process keeps, each with its first row in the weight."""
        return [(shard, self.place[shard]) for shard in self.mine]

    def begin(self, block: Block) -> Wait:
        """Send the ids of the features that are served, of this process' samples.

        The block has the int64 ids of all features of a group. Returns what waits for the pooled
        vectors (b, F, D) of those that are served, in their order.
        """
        raise NotImplementedError

    def vectors(self, block: Block) -> Tensor:
        """Return the row of each id of lists, (L, D): 0 where its feature is another unit's."""
        raise NotImplementedError

    def _send(self, values: Tensor, give: Sequence[int], take: Sequence[int]) -> Tensor:
        """Send whole numbers (n,) to each process and return what came from each."""
        return self.exchange.all_to_all(values.to(self.id_type), give, take)().long()

    def _return(self, vectors: Tensor, give: Sequence[int], take: Sequence[int]) -> Wait:
        """Send vectors (n, width), `give[r]` of them to process r; gradients come back that way."""
        w = self.width
        transfer = AllToAll(self.exchange, [w * n for n in give], [w * n for n in take])
        token = transfer.begin(vectors)
        return lambda: transfer.end(token).view(-1, w)


class NumberedUnit(Unit):
    """A unit that finds a row by its number among all rows of its tables, table after table."""

    def _arrange(self, layout: Layout) -> None:
        first, at = {}, 0
        for table in sorted({s.table for s in self.shards}):
            first[table] = at
            at += layout.sizes[table]
        self.first = first
        """Number of the first row of each table"""
        for group, features in enumerate(self.served):
            tables = layout.table_indices(group)
            self._register(f"features_{group}", features)
            self._register(f"first_{group}", [first[tables[f]] for f in features])

    def begin(self, block: Block) -> Wait:
        """Ask for the pooled vectors of a block; see `Unit.begin`."""
        features = self._registered(f"features_{block.group}")
        first = self._registered(f"first_{block.group}")
        if block.offsets is None:
            ids = block.ids.index_select(1, features)
            end = self._ask((ids + first).flatten())
        else:
            ids, offsets = lists = Jagged(block.ids, block.offsets)
            if len(features) < self.group_sizes[block.group]:
                served, count = self.served[block.group], self.group_sizes[block.group]
                ids, offsets = lists.columns(served, count)
            bags = bags_of(offsets, len(ids))
            end = self._ask_sums(ids + first[bags % len(first)], bags, offsets)
        return lambda: end().view(-1, len(features), self.width)

    def vectors(self, block: Block) -> Tensor:
        """Return rows one by one; see `Unit.vectors`."""
        assert block.offsets is not None
        count = self.group_sizes[block.group]
        features = self._registered(f"features_{block.group}")
        first = features.new_full((count,), -1)
        first[features] = self._registered(f"first_{block.group}")
        start = first[bags_of(block.offsets, len(block.ids)) % count]
        if len(features) == count:
            return self._ask(block.ids + start)()
        items = (start >= 0).nonzero()[:, 0]
        vectors = self._ask(block.ids[items] + start[items])()
        return vectors.new_zeros(len(start), self.dim).index_add(0, items, vectors)

    def _ask(self, numbers: Tensor) -> Wait:
        """Ask for the row (n, width) of each number."""
        raise NotImplementedError

    def _ask_sums(self, numbers: Tensor, bags: Tensor, offsets: Tensor) -> Wait:
        """Ask for the sums (G, width) of lists, from `offsets` (G + 1,).

        Their numbers (n,) come one list after another; `bags` (n,) is the list of each.
        """
        raise NotImplementedError


def _store(rows: int, width: int, storage: Storage) -> EmbeddingCollection:
    """Return rows (R, width), those of all shards one after another, as if of one table."""
    layout = Layout.of(Schema.one_hot(0, [1])).resized([rows])
    # Whoever knows the tables fills them.
    return EmbeddingCollection(layout, width, storage=storage, initializer=lambda *_: None)


def ends(lengths: Tensor) -> Tensor:
    """Return offsets (G + 1,) int64 of lists of these lengths (G,)."""
    return torch.cat([lengths.new_zeros(1, dtype=torch.int64), lengths.cumsum(0)])
