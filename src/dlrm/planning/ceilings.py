"""What a machine can do at most: copies, matrix products, rows at random places, calls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class GatherPoint:
    """Rows read at random places of a table, one after another, and written in order."""

    row_bytes: int
    table_bytes: int
    row_s: float
    """Seconds a row, all threads together."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The rates of one machine with so many threads; medians."""

    threads: int
    copy: dict[int, float]
    """Threads -> bytes/s, read plus written, far outside of every cache."""
    flops: dict[str, dict[int, float]]
    """fp32, bf16 or int8 -> threads -> operations/s; what cannot be multiplied is absent."""
    gather: tuple[GatherPoint, ...]
    """With all threads: of every length of row, over tables from small to large."""
    gather_by_threads: dict[int, float]
    """Threads -> rows/s of the shortest rows, from the largest table."""
    call_s: float
    """Of a smallest torch operation."""
    spread: dict[str, float]
    """Name of a ceiling, see `rates` -> half the width of its 95% interval, as a share of it."""
    quiet: bool = True
    """Whether nothing else computed meanwhile; if something did, they may be far too low."""

    def rates(self) -> dict[str, float]:
        """Return every ceiling by name: what is done in a second.

        `copy 2` and `bf16 2` are with 2 threads, `gather 64 65536 2` is rows of 64 bytes from a
        table of 65,536 with 2 threads, `call` is of calls.
        """
        found = {f"copy {threads}": rate for threads, rate in self.copy.items()}
        for name, rates in self.flops.items():
            found |= {f"{name} {threads}": rate for threads, rate in rates.items()}
        for point in self.gather:
            name = gather_name(point.row_bytes, point.table_bytes, self.threads)
            found[name] = 1 / point.row_s
        shortest = min(point.row_bytes for point in self.gather)
        largest = max(point.table_bytes for point in self.gather)
        for threads, rate in self.gather_by_threads.items():
            found[gather_name(shortest, largest, threads)] = rate
        return found | {"call": 1 / self.call_s}

    def row_s(self, table_bytes: float, row_bytes: float) -> float:
        """Return the seconds of a random row, all threads together.

        Interpolated between what was measured: by logarithms in the size of the table, along a
        line in the length of the row. A table smaller or larger than all that were measured counts
        as the smallest or largest, a shorter row as the shortest; a longer row goes on the line.

        Args:
            table_bytes: Size of what rows are read from.
            row_bytes: Length of a row.

        """
        lengths = sorted({point.row_bytes for point in self.gather})
        if row_bytes <= lengths[0] or len(lengths) == 1:
            return self._of_length(lengths[0], table_bytes)
        long = next((at for at, each in enumerate(lengths) if each >= row_bytes), len(lengths) - 1)
        below, above = lengths[long - 1 : long + 1]
        below_s, above_s = (self._of_length(each, table_bytes) for each in (below, above))
        # Where noise made longer rows faster, the line must not fall.
        slope = max(0.0, above_s - below_s) / (above - below)
        return below_s + slope * (row_bytes - below)

    def _of_length(self, row_bytes: int, table_bytes: float) -> float:
        points = sorted(
            (math.log(point.table_bytes), math.log(point.row_s))
            for point in self.gather
            if point.row_bytes == row_bytes
        )
        return math.exp(_between(points, math.log(max(table_bytes, 1))))

    def to_dict(self) -> dict[str, Any]:
        """Return the rates JSON-ready."""
        return {
            "threads": self.threads,
            "copy": _by_threads(self.copy),
            "flops": {name: _by_threads(rates) for name, rates in self.flops.items()},
            "gather": [
                {
                    "row_bytes": point.row_bytes,
                    "table_bytes": point.table_bytes,
                    "row_s": point.row_s,
                }
                for point in self.gather
            ],
            "gather_by_threads": _by_threads(self.gather_by_threads),
            "call_s": self.call_s,
            "spread": dict(self.spread),
            "quiet": self.quiet,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Ceilings":
        """Return what `to_dict` was made of.

        Raises:
            KeyError, TypeError, ValueError: These are no such values.

        """
        return cls(
            threads=int(values["threads"]),
            copy=_threads(values["copy"]),
            flops={name: _threads(rates) for name, rates in values["flops"].items()},
            gather=tuple(
                GatherPoint(int(p["row_bytes"]), int(p["table_bytes"]), float(p["row_s"]))
                for p in values["gather"]
            ),
            gather_by_threads=_threads(values["gather_by_threads"]),
            call_s=float(values["call_s"]),
            spread={name: float(share) for name, share in values["spread"].items()},
            quiet=bool(values.get("quiet", True)),
        )


def gather_name(row_bytes: int, table_bytes: int, threads: int) -> str:
    """Return the name of the rate of random rows, see `Ceilings.rates`."""
    return f"gather {row_bytes} {table_bytes} {threads}"


def _between(points: Sequence[tuple[float, float]], x: float) -> float:
    """Return y at x on the line through points in order of x; outside them the nearest."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            share = max(0.0, (x - x0) / (x1 - x0))
            return y0 + share * (y1 - y0)
    return points[-1][1]


def _by_threads(rates: Mapping[int, float]) -> dict[str, float]:
    return {str(threads): rate for threads, rate in rates.items()}


def _threads(values: Mapping[str, Any]) -> dict[int, float]:
    return {int(threads): float(rate) for threads, rate in values.items()}
