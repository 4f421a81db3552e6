"""Tables of one collection that are spread over processes alike."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlrm.nn.embedding import EmbeddingCollection, Storage
from dlrm.parallel.exchange import Wire
from dlrm.parallel.shards import Shard

End = Callable[[], Tensor]
"""Waits for the vectors of a unit and returns them, (b, F, width)."""


class Kept(NamedTuple):
    """Rows and columns of a table that this process keeps."""

    weight: nn.Parameter
    shard: Shard
    place: int
    """The first of its rows in the weight."""
    copied: bool
    """Whether every process keeps them."""


class Unit(nn.Module):
    """Tables that are spread alike; each process has a weight of those rows that it keeps.

    `begin` sends what has to be sent and returns what ends it, so that the exchanges of several
    units, and what a model computes meanwhile, overlap. Ids have been checked already.

    Args:
        shards: Of all processes, all of `width` columns. Their tables are numbers of features.
        width: Numbers of a row.
        storage: See `EmbeddingCollection`.
        wire: To the other processes.
        tables: T, features of the collection, those of other units included.

    """

    copied = False

    def __init__(
        self, shards: Sequence[Shard], width: int, storage: Storage, wire: Wire, tables: int
    ):
        super().__init__()
        self.wire, self.width, self.tables = wire, width, tables
        self.by_rank = [[s for s in shards if s.rank == r] for r in range(wire.size)]
        self.mine = self.by_rank[wire.rank]
        rows = [s.rows for s in self.mine]
        self.store = EmbeddingCollection(rows, width, storage=storage, draw=lambda *_: None)
        most = max(sum(s.rows for s in of) for of in self.by_rank)
        self.id_type = torch.int32 if most < 1 << 31 else torch.int64

    @property
    def kept(self) -> list[Kept]:
        """What this process keeps."""
        places = starts(self.mine)
        pairs = zip(self.mine, places, strict=True)
        return [Kept(self.store.weight, s, place, self.copied) for s, place in pairs]

    def begin(self, ids: Tensor, offsets: Tensor | None) -> End:
        """Send the ids of this process' samples; arguments as for `Embeddings.forward`."""
        raise NotImplementedError

    def each(self, ids: Tensor, offsets: Tensor, dim: int) -> Tensor:
        """Return the rows of ids (L,) in vectors (L, dim), 0 where they are of another unit."""
        raise NotImplementedError


def starts(shards: Sequence[Shard]) -> list[int]:
    """Return the first row of each shard of one process in its weight."""
    found, at = [], 0
    for shard in shards:
        found.append(at)
        at += shard.rows
    return found


def ends(lengths: Tensor) -> Tensor:
    """Return offsets (G + 1,) int64 of bags of these lengths (G,)."""
    return torch.cat([lengths.new_zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def sums(values: Tensor, counts: Sequence[int]) -> list[int]:
    """Return the sum of the first `counts[0]` values, of the next `counts[1]`, and so on."""
    return [int(part.sum()) for part in values.split(list(counts))]
