"""Tables, their parts, and a plan of which rank holds which part; no tensor is involved.

    table       the whole table on one rank
    row         consecutive rows on each of several ranks
    column      all rows of some columns on each of several ranks
    replicate   a copy on every rank, whose gradients are summed

Ids of a table are taken to be spread evenly over its rows.

Source: Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
Learning Recommendation Models", arXiv 2104.05158, section 4.2 (the kinds, and placing by memory and
by work at once).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

Kind = Literal["table", "row", "column", "replicate"]
"""How a table is spread over the ranks."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of one collection of a model."""

    name: str
    """Unique in the model, e.g. `embeddings/C3`."""
    num_embeddings: int
    """Rows."""
    dim: int
    """Numbers of a row."""
    row_bytes: int
    """Bytes of a row with its optimizer state."""
    pooling: float = 1.0
    """Mean ids that a sample looks up, in all features that share the table."""
    may_replicate: bool = True
    """False where updates are rounded at random, so that copies would drift apart."""
    shared_row_bytes: int = 0
    """Part of `row_bytes` that stands for the row as a whole, so that each part of its columns has
    it too, such as the one number of row-wise Adagrad."""
    features: int = 1
    """Features that share the table; a sample gets a vector for each."""
    lists: int = 0
    """Number of the `features` of which a sample has a list of ids instead of one."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole table with its optimizer state."""
        return self.num_embeddings * self.row_bytes

    @property
    def work(self) -> float:
        """Numbers that a sample reads from it."""
        return self.pooling * self.dim


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a table on one rank: rows and columns from `first` up to, not including, `last`."""

    table: int
    """Position of the table in the plan."""
    rank: int
    first_row: int
    last_row: int
    first_column: int
    last_column: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.last_row - self.first_row

    @property
    def columns(self) -> int:
        """How many columns it has."""
        return self.last_column - self.first_column


@dataclass(frozen=True, slots=True)
class Plan:
    """The placement of all tables: which rank holds which rows and columns.

    `shards` come by table, then by rank. A table of kind `table` has exactly one; `row` has ranges
    of rows, and `column` ranges of columns, that cover it and rise with the rank, at most one a
    rank; `replicate` has one whole shard for every rank.
    """

    world: int
    """W, the number of ranks."""
    tables: tuple[Table, ...]
    kinds: tuple[Kind, ...]
    """Kind of sharding of each table."""
    shards: tuple[Shard, ...]

    def of_table(self, table: int) -> tuple[Shard, ...]:
        """Return the shards of a table, by rank."""
        by_table = attrgetter("table")
        first = bisect_left(self.shards, table, key=by_table)
        return self.shards[first : bisect_left(self.shards, table + 1, key=by_table)]

    def on(self, rank: int) -> tuple[Shard, ...]:
        """Return the shards of a rank, by table."""
        return tuple(shard for shard in self.shards if shard.rank == rank)

    def shard_bytes(self, shard: Shard) -> int:
        """Return the bytes of a shard with its optimizer state."""
        return size_bytes(self.tables[shard.table], shard)

    def shard_lookups(self, shard: Shard) -> float:
        """Return the rows that a sample of the whole batch looks up in a shard, on average."""
        table = self.tables[shard.table]
        if self.kinds[shard.table] == "replicate":
            # Each rank looks up its own samples.
            return table.pooling / self.world
        return table.pooling * shard.rows / table.num_embeddings

    @property
    def memory_bytes(self) -> tuple[int, ...]:
        """Bytes of tables and optimizer state, by rank."""
        totals = [0] * self.world
        for shard in self.shards:
            totals[shard.rank] += self.shard_bytes(shard)
        return tuple(totals)

    @property
    def work(self) -> tuple[float, ...]:
        """Numbers that a sample of the whole batch reads from each rank's tables."""
        totals = [0.0] * self.world
        for shard in self.shards:
            totals[shard.rank] += self.shard_lookups(shard) * shard.columns
        return tuple(totals)

    @property
    def memory_imbalance(self) -> float:
        """Memory of the fullest rank over the mean."""
        return imbalance(self.memory_bytes)

    @property
    def work_imbalance(self) -> float:
        """Work of the busiest rank over the mean."""
        return imbalance(self.work)


def size_bytes(table: Table, shard: Shard) -> int:
    """Return the bytes of a shard of a table, with its optimizer state."""
    if shard.columns == table.dim:
        return shard.rows * table.row_bytes
    of_columns = table.row_bytes - table.shared_row_bytes
    return shard.rows * (-(-of_columns * shard.columns // table.dim) + table.shared_row_bytes)


def work(table: Table, shard: Shard) -> float:
    """Return the numbers that a sample reads from a shard, on average."""
    return table.pooling * shard.columns * shard.rows / table.num_embeddings


def imbalance(loads: Sequence[float]) -> float:
    """Return the largest over the mean; 1 where there is no load at all."""
    total = sum(loads)
    return max(loads) * len(loads) / total if total else 1.0
