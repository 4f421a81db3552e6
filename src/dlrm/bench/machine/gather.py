"""Rows read at random places of tables from cache size to far beyond, and written in order.

    out[i] = table[ids[i]]        ids uniform, and together larger than the last-level cache

What is read and written in order (ids, out) counts into the time of a row, as in a training step.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dlrm import ops
from dlrm.bench.machine.probe import Probe, Way
from dlrm.planning.ceilings import gather_name

ROW_BYTES = (64, 512)
LEAST_BYTES = 1 << 16
"""Of the smallest table; each next one is twice as large."""
OUT_BYTES = 1 << 22
"""What a run writes, little enough for the last-level cache,"""
LEAST_ROWS = 1 << 14
"""but not so few rows that the call counts."""


class Gathers:
    """Tables that are the beginnings of one block of memory, and the ids of their rows.

    Args:
        store: float32, flat, a power of two of bytes, in huge pages as tables are. Nothing
            reads what it holds.
        cache_bytes: Of the last-level cache: ids rotate beyond it, tables within it are warm.

    """

    def __init__(self, store: Tensor, cache_bytes: int):
        self.store, self.cache_bytes = store, cache_bytes
        count = max(cache_bytes * 3 // 2 // 8, 2 * _rows(min(ROW_BYTES)))
        drawn = torch.Generator().manual_seed(0)
        self.drawn = torch.randint(store.nbytes, (count,), generator=drawn)
        self.ids = torch.empty_like(self.drawn)
        self.out = torch.empty(max(_rows(each) * each // 4 for each in ROW_BYTES))

    def curve(self, threads: int) -> Iterator[tuple[int, int, Probe]]:
        """Return row_bytes, table_bytes and what measures rows of such a table."""
        for row_bytes in ROW_BYTES:
            table_bytes = LEAST_BYTES
            while table_bytes <= self.store.nbytes:
                yield row_bytes, table_bytes, self.probe(row_bytes, table_bytes, threads)
                table_bytes *= 2

    def by_threads(self, threads: Sequence[int]) -> Iterator[Probe]:
        """Return what measures the shortest rows of the largest table."""
        for each in threads:
            yield self.probe(min(ROW_BYTES), self.store.nbytes, each)

    def probe(self, row_bytes: int, table_bytes: int, threads: int) -> Probe:
        """Return what measures rows of one table, named as `gather_name` does."""
        table = self.store[: table_bytes // 4].view(-1, row_bytes // 4)
        count = _rows(row_bytes)
        chunks = self.ids.split(count)[: len(self.ids) // count]
        out = self.out[: count * row_bytes // 4].view(count, -1)
        kernels = ops.backend(table)
        at = 0

        def ids() -> Tensor:
            nonlocal at
            at = (at + 1) % len(chunks)
            return chunks[at]

        def prepare() -> None:
            torch.bitwise_and(self.drawn, len(table) - 1, out=self.ids)
            if table_bytes <= 2 * self.cache_bytes:
                table.sum()

        ways = [
            Way("index_select", count, lambda: torch.index_select(table, 0, ids(), out=out)),
            Way("lookup", count, lambda: kernels.lookup(table, ids())),
        ]
        return Probe(gather_name(row_bytes, table_bytes, threads), threads, ways, prepare)


def _rows(row_bytes: int) -> int:
    return max(LEAST_ROWS, OUT_BYTES // row_bytes)
