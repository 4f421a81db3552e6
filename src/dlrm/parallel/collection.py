"""Tables that are sharded over processes, behind the seam: no model, loss or metric knows."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.embedding import Block, Collection, EmbeddingCollection, Layout, Part, Storage
from dlrm.nn.initializer import Initializer
from dlrm.parallel.data_parallel import DataParallel
from dlrm.parallel.exchange import Exchange, Wait
from dlrm.parallel.row_wise import RowWise
from dlrm.parallel.table_wise import TableWise
from dlrm.parallel.unit import LocalShard, Unit
from dlrm.planning.shards import Kind, Shard


class DistributedCollection(Collection):
    """Tables of which this process keeps some rows and columns, and others the rest."""

    exchange: Exchange
    """How vectors and gradients reach the other processes"""

    @classmethod
    def of(
        cls,
        collection: EmbeddingCollection,
        kinds: Sequence[Kind],
        shards: Sequence[Shard],
        exchange: Exchange,
        **options: Any,
    ) -> Self:
        """Return tables as those of a collection, without memory yet, but sharded."""
        return cls(
            collection.layout,
            collection.dim,
            storage=collection.storage,
            initializer=collection.initializer,
            **{"kinds": kinds, "shards": shards, "exchange": exchange, **options},
        )

    @property
    def local_shards(self) -> list[LocalShard]:
        """Shards in the memory of this process, which a checkpoint reads and writes."""
        raise NotImplementedError

    def parts(self, t: int) -> list[Part]:
        """Return what this process keeps of table t; see `Collection.parts`."""
        return [local.part for local in self.local_shards if local.shard.table == t]

    @torch.no_grad()
    def table(self, t: int) -> Tensor:
        """Gather a table from all processes, each of which asks for it; see `Collection.table`."""
        device = self._buffers["order"].device  # pyright: ignore[reportOptionalMemberAccess]
        whole = torch.zeros(self.layout.sizes[t], self.dim, device=device)
        for local in self.local_shards:
            if local.shard.table == t and (not local.copied or self.exchange.rank == 0):
                rows, first, columns = local.part
                whole[first : first + len(rows), columns] = rows.float()
        if self.exchange.size > 1:
            torch.distributed.all_reduce(whole, group=self.exchange.group)
        return whole


class ShardedCollection(DistributedCollection):
    """Tables of dimension D that are sharded over the processes of a run.

    `kinds` says how each table is sharded; the shards are those of all tables and processes, whose
    tables are positions in the layout. All else is as for `Collection`.
    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        storage: Storage = "fp32",
        initializer: Initializer | None = None,
        kinds: Sequence[Kind],
        shards: Sequence[Shard],
        exchange: Exchange,
    ):
        super().__init__(layout, dim, storage=storage, initializer=initializer)
        self.exchange = exchange
        self._sent: _Sent | None = None
        units: list[Unit] = []
        widths = sorted({s.columns for s in shards if s.columns < dim})
        for kind, width, make in (
            ("table", dim, TableWise),
            *(("column", width, TableWise) for width in widths),
            ("row", dim, RowWise),
            ("replicate", dim, DataParallel),
        ):
            chosen = [s for s in shards if kinds[s.table] == kind and s.columns == width]
            if chosen:
                units.append(make(chosen, width, layout, dim, storage, exchange))
        self.units = torch.nn.ModuleList(units)
        for group, features in enumerate(layout.groups):
            positions = [f for unit in units for f in unit.served[group]]
            if sorted(positions) != list(range(len(features))):
                # Optimizers that keep one number a row need equal parts, too.
                raise ValueError(f"parts of tables that are cut by columns must be equal: {shards}")
            place = sorted(range(len(positions)), key=positions.__getitem__)
            self._register(f"place_{group}", () if place == sorted(place) else place)

    @property
    def local_shards(self) -> list[LocalShard]:
        """Shards in the memory of this process; see `DistributedCollection.local_shards`."""
        return [
            LocalShard(f"units.{u}.store.weight", unit.store.weight, shard, place, unit.copied)
            for u, unit in enumerate(self.typed_units())
            for shard, place in unit.placed_shards
        ]

    def materialize(self, device: torch.device) -> None:
        """Give the rows that this process keeps memory, and draw them; see `Collection`."""
        for unit in self.typed_units():
            unit.materialize(device)
        self.fill(self.initializer)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the weights that this process has, one of each unit; see `Collection`.

        Where rows have other columns elsewhere, the group has `mean_squares`, too; where all
        processes have the same rows, it is `copied`.
        """
        groups = []
        for unit in self.typed_units():
            group = {"params": list(unit.parameters()), "sparse": True, "storage": self.storage}
            if not group["params"]:
                continue  # Its rows were quantised.
            if unit.copied:
                group["copied"] = True
            if isinstance(unit, TableWise) and unit.has_columns:
                group["mean_squares"] = unit.mean_squares
            groups.append(group)
        return groups

    def prefetch(self, batch: Batch) -> None:
        """Send the ids of a batch ahead of `forward`, which must then be of the same batch."""
        self._drop()
        blocks = self.layout.blocks(batch)
        self._sent = _Sent(batch, [self._begin(block) for block in blocks])

    def forward(self, batch: Batch) -> Tensor:
        """Fetch the vectors, or wait for those that were sent for; see `Embeddings.forward`.

        Raises:
            ConfigError: The ids of another batch were sent ahead.

        """
        if self._sent is None:
            return super().forward(batch)
        if self._sent.batch is not batch:
            self._drop()
            raise ConfigError(
                f"{self.names[0]}: ids of one batch were sent ahead, and vectors of another are "
                "asked for: where a model computes ids, set `derived` of these embeddings"
            )
        parts, self._sent = [self._end(group, ends) for group, ends in self._sent.parts], None
        return self._joined(batch, parts)

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Fetch the rows of a block and add up those of each list; see `Embeddings.pooled`."""
        if per_sample_weights is None:
            return self._end(*self._begin(block))
        return super().pooled(block, per_sample_weights)

    def vectors(self, block: Block) -> Tensor:
        """Fetch the row of each id; see `Embeddings.vectors`."""
        if block.offsets is None:
            return self.pooled(block)
        checked = block._replace(ids=self.checked_ids(block))
        parts = [unit.vectors(checked) for unit in self._serving(block.group)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def typed_units(self) -> list[Unit]:
        """Return the units, typed."""
        return [unit for unit in self.units if isinstance(unit, Unit)]

    def _serving(self, group: int) -> list[Unit]:
        return [unit for unit in self.typed_units() if unit.served[group]]

    def _begin(self, block: Block) -> tuple[int, list[Wait]]:
        """Send the ids of a block; returns what `_end` takes."""
        checked = block._replace(ids=self.checked_ids(block))
        return block.group, [unit.begin(checked) for unit in self._serving(block.group)]

    def _end(self, group: int, ends: list[Wait]) -> Tensor:
        """Return the pooled vectors (b, F, D) of a block."""
        parts = [end() for end in ends]
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        place = self._registered(f"place_{group}")
        return vectors.index_select(1, place) if len(place) else vectors.contiguous()

    def _drop(self) -> None:
        """Wait for vectors that nobody has asked for, such as those of a batch that failed."""
        sent, self._sent = self._sent, None
        if sent is not None:
            for group, ends in sent.parts:
                self._end(group, ends)


class _Sent(NamedTuple):
    """Vectors that are on their way."""

    batch: Batch
    parts: list[tuple[int, list[Wait]]]
    """Group of each block, and the calls that wait for its vectors, one of each unit"""
