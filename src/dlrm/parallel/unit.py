"""Tables of one collection that are sharded alike, and the rows of them that this process keeps."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlrm.batch import Jagged
from dlrm.nn.embedding import Block, Layout, Storage
from dlrm.ops import backend
from dlrm.ops.memory import in_huge_pages
from dlrm.parallel.exchange import Exchange
from dlrm.planning.shards import Shard

End = Callable[[], Tensor]
"""Waits for the vectors that a unit has asked for, and returns them: (b, F, D)."""


class Kept(NamedTuple):
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


class Store(nn.Module):
    """Rows of several shards, one shard after another in one weight.

    Args:
        num_embeddings: R, rows of all shards together.
        dim: Numbers of a row.
        storage: How they are stored, see `EmbeddingCollection`.

    """

    def __init__(self, num_embeddings: int, dim: int, storage: Storage):
        super().__init__()
        self.dim = dim
        self.storage: Storage = storage
        dtype = torch.float32 if storage == "fp32" else torch.bfloat16
        self.weight = nn.Parameter(torch.empty(num_embeddings, dim, dtype=dtype, device="meta"))

    def materialize(self, device: torch.device) -> None:
        """Give the rows memory on a device, whose content is not defined yet."""
        empty = torch.empty(self.weight.shape, dtype=self.weight.dtype, device=device)
        self.weight = nn.Parameter(in_huge_pages(empty), self.weight.requires_grad)

    def lookup(self, rows: Tensor) -> Tensor:
        """Return rows of the weight (n, dim), float32, for rows (n,) int64."""
        return self._kernels().lookup(self.weight, rows)

    def pooled_rows(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Return the sums (G, dim) of lists of rows (n,) of the weight; offsets are (G + 1,)."""
        return self._kernels().pooled_lookup(self.weight, rows, offsets)

    def _kernels(self):
        # A copy of a parameter does not keep this.
        if self.storage != "fp32" and self.weight.grad_dtype != torch.float32:
            self.weight.grad_dtype = torch.float32
        return backend(self.weight)


class Unit(nn.Module):
    """Tables that are sharded alike; each process has a weight of those rows that it keeps.

    `begin` sends what has to be sent and returns what ends it, so that the exchanges of several
    units, and what a model computes meanwhile, overlap. Ids have been checked already.

    Args:
        shards: Of all processes, all of `width` columns; their tables are positions in the layout.
        width: Numbers of a row of a shard.
        layout: Of the collection, whose other tables belong to other units.
        dim: D, numbers of a vector.
        storage: See `EmbeddingCollection`.
        exchange: With the other processes.

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
        self.exchange, self.width, self.dim = exchange, width, dim
        self.by_rank = [[s for s in shards if s.rank == r] for r in range(exchange.size)]
        self.mine = self.by_rank[exchange.rank]
        self.store = Store(sum(s.rows for s in self.mine), width, storage)
        most = max(sum(s.rows for s in theirs) for theirs in self.by_rank)
        self.id_type = torch.int32 if most < 1 << 31 else torch.int64
        tables = {s.table for s in shards}
        self.served = [
            tuple(f for f, t in enumerate(layout.table_indices(group)) if t in tables)
            for group in range(len(layout.groups))
        ]
        """Positions in each group of the features that are looked up here."""
        self.group_sizes = [len(features) for features in layout.groups]
        """Features of each group, those of other units included."""
        for group, features in enumerate(self.served):
            self._register(f"features_{group}", features)

    def materialize(self, device: torch.device) -> None:
        """Give the rows that this process keeps memory on a device."""
        self.store.materialize(device)

    @property
    def kept(self) -> list[tuple[Shard, int]]:
        """Shards that this process keeps, each with its first row in the weight."""
        return list(zip(self.mine, starts(self.mine), strict=True))

    def begin(self, block: Block) -> End:
        """Send the ids of the features that are served, of this process' samples.

        Args:
            block: Ids of all features of a group, int64.

        Returns:
            What waits for the pooled vectors of those features, in their order.

        """
        raise NotImplementedError

    def vectors(self, block: Block) -> Tensor:
        """Return the row of each id of lists, (L, D): 0 where its feature is another unit's."""
        raise NotImplementedError

    def _register(self, name: str, values: Sequence[int]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)

    def _registered(self, name: str) -> Tensor:
        # As `get_buffer`, which also walks paths: small batches notice.
        values = self._buffers[name]
        assert values is not None
        return values

    def _own_lists(self, block: Block) -> Jagged:
        """Return the lists of the features that are served here alone."""
        assert block.offsets is not None
        lists, count = Jagged(block.ids, block.offsets), self.group_sizes[block.group]
        served = self.served[block.group]
        return lists if len(served) == count else lists.columns(served, count)


def starts(shards: Sequence[Shard]) -> list[int]:
    """Return the first row of each shard of one process in its weight."""
    first = [0]
    for shard in shards:
        first.append(first[-1] + shard.rows)
    return first[:-1]


def ends(lengths: Tensor) -> Tensor:
    """Return offsets (G + 1,) int64 of lists of these lengths (G,)."""
    return torch.cat([lengths.new_zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def sums(values: Tensor, counts: Sequence[int]) -> list[int]:
    """Return the sum of the first `counts[0]` values, of the next `counts[1]`, and so on."""
    return [int(part.sum()) for part in values.split(list(counts))]
