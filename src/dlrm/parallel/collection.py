"""Tables that are spread over processes, behind the seam: no model, loss or metric knows."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from dlrm.nn.embedding import Collection, Initializer, Storage, bags_of, pieces, uniform
from dlrm.parallel.data_parallel import Copies
from dlrm.parallel.exchange import Wire
from dlrm.parallel.row_wise import Rows
from dlrm.parallel.shards import Kind, Shard
from dlrm.parallel.table_wise import Slots
from dlrm.parallel.unit import End, Kept, Unit


class _Begun(NamedTuple):
    """Vectors that are on their way, for these ids."""

    ids: Tensor
    offsets: Tensor | None
    ends: list[End]


class ShardedCollection(Collection):
    """T tables of dimension D, spread over the processes of a run.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        names: Name of the feature behind each table, for errors.
        storage: See `EmbeddingCollection`.
        draw: As there. Every process draws all rows and keeps its own, so that a model starts from
            the same numbers on one process and on many, wherever its rows are.
        kinds: How each table is spread.
        shards: Of all tables and processes; their tables are numbers of features.
        wire: To the other processes.

    """

    place: Tensor
    """(T,) int64, where the vector of each feature stands among those of the units"""

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: Initializer | None = None,
        kinds: Sequence[Kind],
        shards: Sequence[Shard],
        wire: Wire,
    ):
        super().__init__(rows, dim, names)
        self.storage: Storage = storage
        self.wire = wire
        self._begun: _Begun | None = None
        made: list[Unit] = []
        columns = sorted({s.columns for s in shards if s.columns < dim})
        for kind, width, unit in (
            ("table", dim, Slots),
            *(("column", width, Slots) for width in columns),
            ("row", dim, Rows),
            ("replicate", dim, Copies),
        ):
            theirs = [s for s in shards if kinds[s.table] == kind and s.columns == width]
            if theirs:
                made.append(unit(theirs, width, storage, wire, len(self.rows)))
        self.units = torch.nn.ModuleList(made)
        # What a unit's vectors are: whole ones of features, or columns of one from slots.
        whole = [_features(unit) for unit in made if unit.width == dim]
        self.cut = sorted({s.table for s in shards if s.columns < dim})
        order = [feature for features in whole for feature in features] + self.cut
        place = torch.tensor(sorted(range(len(order)), key=order.__getitem__))
        self.register_buffer("place", place, persistent=False)
        self.sorted = order == sorted(order)
        self.fill(draw or uniform([sqrt(1 / n) for n in self.rows]))

    @property
    def kept(self) -> list[Kept]:
        """What this process keeps."""
        return [kept for unit in self._typed() for kept in unit.kept]

    def begin(self, ids: Tensor, offsets: Tensor | None = None) -> None:
        """Send ids ahead of `forward`, which then only waits for the vectors of the same ids."""
        checked = self.rows_of(ids, offsets)
        ends = [unit.begin(checked, offsets) for unit in self._typed()]
        self._begun = _Begun(ids, offsets, ends)

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Fetch the vectors; see `Collection.forward`."""
        if per_sample_weights is not None:
            assert offsets is not None
            bags = bags_of(offsets, ids.shape[0])
            values = self.each(ids, offsets) * per_sample_weights[:, None]
            pooled = values.new_zeros(offsets.shape[0] - 1, self.dim).index_add(0, bags, values)
            return pooled.view(-1, len(self.rows), self.dim)
        if self._begun is None or self._begun.ids is not ids or self._begun.offsets is not offsets:
            self.begin(ids, offsets)
        assert self._begun is not None
        ends, self._begun = self._begun.ends, None
        return self._joined([end() for end in ends])

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Fetch the row of each id; see `Collection.each`."""
        if offsets is None:
            return self(ids)
        checked = self.rows_of(ids, offsets)
        found = [unit.each(checked, offsets, self.dim) for unit in self._typed()]
        return torch.stack(found).sum(0)

    @torch.no_grad()
    def fill(self, draw: Initializer) -> None:
        """Overwrite all tables; every process draws the same."""
        kept = self.kept
        for t, n in enumerate(self.rows):
            mine = [each for each in kept if each.shard.table == t]
            for first, last in pieces(n, self.dim):
                values = torch.empty(last - first, self.dim)
                draw(values, t, first)
                for each in mine:
                    _keep(each, values, first)

    def table(self, t: int) -> Tensor:
        """Gather a table from all processes, each of which asks for it; see `Collection.table`."""
        whole = torch.zeros(self.rows[t], self.dim)
        for weight, shard, place, copied in self.kept:
            if shard.table == t and (not copied or self.wire.rank == 0):
                part = weight.detach()[place : place + shard.rows].float()
                rows = whole[shard.first_row : shard.last_row]
                rows[:, shard.first_column : shard.last_column] = part
        torch.distributed.all_reduce(whole, group=self.wire.group)
        return whole

    def _joined(self, found: list[Tensor]) -> Tensor:
        """Return vectors (b, T, D) of what the units found."""
        pairs = list(zip(self._typed(), found, strict=True))
        parts = [vectors for unit, vectors in pairs if unit.width == self.dim]
        if self.cut:
            columns: dict[int, list[tuple[int, Tensor]]] = {feature: [] for feature in self.cut}
            for unit, vectors in pairs:
                if isinstance(unit, Slots) and unit.width < self.dim:
                    for number, slot in enumerate(unit.slots):
                        columns[slot.table].append((slot.first_column, vectors[:, number]))
            whole = [
                torch.cat([v for _, v in sorted(columns[feature], key=lambda each: each[0])], 1)
                for feature in self.cut
            ]
            parts.append(torch.stack(whole, 1))
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return joined.contiguous() if self.sorted else joined.index_select(1, self.place)

    def _typed(self) -> list[Unit]:
        return [unit for unit in self.units if isinstance(unit, Unit)]


def _features(unit: Unit) -> list[int]:
    return unit.get_buffer("features").tolist()


def _keep(kept: Kept, values: Tensor, first: int) -> None:
    """Copy what this process keeps of drawn rows, which begin at `first` of their table."""
    weight, shard, place, _ = kept
    low, high = max(first, shard.first_row), min(first + len(values), shard.last_row)
    if low >= high:
        return
    rows = values[low - first : high - first, shard.first_column : shard.last_column]
    weight[place + low - shard.first_row : place + high - shard.first_row] = rows
