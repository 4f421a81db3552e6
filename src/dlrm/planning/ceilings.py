"""What a machine can do at most: copies, matrix products, rows at random places, calls."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from dlrm.planning.record import Record

SUMMED = 16
"""Rows of each sum, where rows are read and not written."""


@dataclass(frozen=True, slots=True)
class GatherPoint(Record):
    """Rows read at random places of a table, and written in order, or added up."""

    row_bytes: int
    table_bytes: int
    row_s: float
    """Seconds a row, all threads together."""


@dataclass(frozen=True, slots=True)
class Ceilings(Record):
    """The rates of one machine with so many threads; medians, or what somebody says of it."""

    threads: int
    copy: dict[int, float]
    """Threads -> bytes/s, read plus written, far outside of every cache."""
    flops: dict[str, dict[int, float]]
    """fp32, bf16 or int8 -> threads -> operations/s; what cannot be multiplied is absent."""
    gather: tuple[GatherPoint, ...] = ()
    """With all threads: of every length of row, over tables from small to large. Where there are
    none, rows are read as fast as memory is."""
    summed: tuple[GatherPoint, ...] = ()
    """The same of rows that are added up, `SUMMED` a sum, so that hardly anything is written. Where
    there are none, lines beyond the first of such a row count as free in what is least."""
    gather_by_threads: dict[int, float] = field(default_factory=dict)
    """Threads -> rows/s of the shortest rows, from the largest table."""
    call_s: float = 0.0
    """Seconds of a smallest torch operation."""
    spread: dict[str, float] = field(default_factory=dict)
    """Name of a ceiling, see `rates` -> half the width of its 95% interval, as a share of it."""
    quiet: bool = True
    """Whether nothing else computed meanwhile; if something did, they may be far too low."""

    def rates(self) -> dict[str, float]:
        """Return every ceiling by name: what is done in a second.

        `copy 2` and `bf16 2` are with 2 threads, `gather 64 65536 2` is rows of 64 bytes from a
        table of 65,536 with 2 threads, `sum 64 65536 2` of those that are added up, `call` is of
        calls.
        """
        named = {f"copy {threads}": rate for threads, rate in self.copy.items()}
        for name, rates in self.flops.items():
            named |= {f"{name} {threads}": rate for threads, rate in rates.items()}
        for point in self.gather:
            name = gather_name(point.row_bytes, point.table_bytes, self.threads)
            named[name] = 1 / point.row_s
        for point in self.summed:
            name = gather_name(point.row_bytes, point.table_bytes, self.threads, "sum")
            named[name] = 1 / point.row_s
        shortest = min(point.row_bytes for point in self.gather)
        largest = max(point.table_bytes for point in self.gather)
        for threads, rate in self.gather_by_threads.items():
            named[gather_name(shortest, largest, threads)] = rate
        return named | {"call": 1 / self.call_s}

    def row_s(self, table_bytes: float, row_bytes: float) -> float:
        """Return the seconds of a random row, all threads together.

        Interpolated between what was measured: by logarithms in the size of the table, along a
        line in the length of the row. A table smaller or larger than all that were measured counts
        as the smallest or largest, a shorter row as the shortest; a longer row goes on the line.
        """
        lengths = sorted({point.row_bytes for point in self.gather})
        if row_bytes <= lengths[0] or len(lengths) == 1:
            return self._of_length(lengths[0], table_bytes)
        long = next((i for i, length in enumerate(lengths) if length >= row_bytes), -1)
        below, above = lengths[long - 1], lengths[long]
        below_s, above_s = (self._of_length(length, table_bytes) for length in (below, above))
        # Where noise made longer rows faster, the line must not fall.
        return below_s + max(0.0, above_s - below_s) / (above - below) * (row_bytes - below)

    def _of_length(self, row_bytes: int, table_bytes: float) -> float:
        points = sorted(
            (math.log(point.table_bytes), math.log(point.row_s))
            for point in self.gather
            if point.row_bytes == row_bytes
        )
        x, y = zip(*points, strict=True)
        return math.exp(float(np.interp(math.log(max(table_bytes, 1)), x, y)))

    def with_threads(self, threads: int) -> "Ceilings":
        """Return the ceilings of fewer threads of the same machine.

        Of more than were measured there are no others: the nearest count below is taken. Rows at
        random take longer as the longest tables' shortest rows do.
        """
        measured = [count for count in self.copy if count <= threads]
        if threads == self.threads or not measured:
            return self
        nearest, rows_per_s = max(measured), self.gather_by_threads
        return self._slower(rows_per_s[self.threads] / rows_per_s[nearest], threads=nearest)

    def shared(self, processes: int) -> "Ceilings":
        """Return the ceilings of one of several processes of one thread that compute at once.

        They share what as many threads of the machine can do, all of its threads at most.
        """
        together = self.with_threads(min(processes, self.threads))
        count = together.threads
        return replace(
            together._slower(count, threads=1),
            copy={1: together.copy[count] / count},
            flops={name: {1: rates[count] / count} for name, rates in together.flops.items()},
            gather_by_threads={1: together.gather_by_threads[count] / count},
        )

    def _slower(self, factor: float, *, threads: int) -> "Ceilings":
        gather, summed = (
            tuple(replace(point, row_s=point.row_s * factor) for point in points)
            for points in (self.gather, self.summed)
        )
        return replace(self, threads=threads, gather=gather, summed=summed)


def gather_name(row_bytes: int, table_bytes: int, threads: int, what: str = "gather") -> str:
    """Return the name of the rate of random rows, see `Ceilings.rates`; `what` may be `sum`."""
    return f"{what} {row_bytes} {table_bytes} {threads}"
