"""What a row at a random place costs, by how often it is found in the caches.

    seconds(row) = sum over levels of miss(capacity) * (first + rest * (lines - 1))

A level is a capacity beyond which a row takes longer: a cache, or the reach of a table of page
addresses. Which there are, and what they cost, is fitted to the measured gather curve, whose rows
are equally likely. For other popularities, misses follow from Che's approximation: a cache of K
rows holds those that were asked for within a time t such that K are expected,

    sum over rows of (1 - exp(-p t)) = K,     miss = 1 - sum over rows of p (1 - exp(-p t)).

Source: Che, Tung, Wang, "Hierarchical Web Caching Systems", IEEE JSAC 2002.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from dlrm.bench.batches import Ids
from dlrm.bench.cost.nonnegative import solve
from dlrm.bench.cost.work import LINE_BYTES, Random
from dlrm.planning.ceilings import GatherPoint

CAPACITIES = (0, *(2**power for power in range(17, 31)))
"""Bytes of the levels that are tried: all that the curve does not ask for cost nothing. The first
is paid by every row."""
BINS = 120
"""Bins of the rows of a table with unequal popularity."""
ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Level:
    """What a row costs that is not among the `capacity_bytes` that are near."""

    capacity_bytes: float
    first_s: float
    """Seconds of the first line of a row."""
    rest_s: float
    """Seconds of each further line of a row."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The memory of a machine, as random rows see it."""

    levels: tuple[Level, ...]

    @staticmethod
    @lru_cache(maxsize=32)
    def of(points: tuple[GatherPoint, ...]) -> "Levels":
        """Return the levels that give a measured curve best, by relative error."""
        features, lines = [], []
        for point in points:
            rows = max(1, point.table_bytes // point.row_bytes)
            lookups = Random(1.0, point.row_bytes, (rows,))
            missed = [miss(lookups, capacity) for capacity in CAPACITIES]
            lines.append(_lines(point.row_bytes))
            features.append([*missed, *(m * (lines[-1] - 1) for m in missed)])
        seconds = np.array([point.row_s for point in points])
        times = solve(np.array(features) / seconds[:, None], np.ones(len(seconds)))
        first, rest = np.split(times, 2)
        return Levels(
            tuple(
                Level(float(capacity), float(a), float(b))
                for capacity, a, b in zip(CAPACITIES, first, rest, strict=True)
                if a > 0 or b > 0
            )
        )

    def row_s(self, random: Random) -> tuple[float, float]:
        """Return the seconds of a row: of waiting for it, and of moving the rest of its lines.

        Lines that are written back are moved twice.
        """
        lines = _lines(random.row_bytes)
        more = (2 * lines if random.written else lines) - 1
        waiting = moving = 0.0
        for level in self.levels:
            share = miss(random, level.capacity_bytes)
            waiting += share * level.first_s
            moving += share * level.rest_s * more
        return waiting, moving

    def scaled(self, factor: float, above_bytes: float, below_bytes: float) -> "Levels":
        """Return the same with caches of another size.

        Args:
            factor: Times as large.
            above_bytes: Levels of at most so much stay as they are.
            below_bytes: As do levels of more.

        """
        return Levels(
            tuple(
                Level(level.capacity_bytes * factor, level.first_s, level.rest_s)
                if above_bytes < level.capacity_bytes <= below_bytes
                else level
                for level in self.levels
            )
        )


def miss(random: Random, capacity_bytes: float) -> float:
    """Return the share of accesses whose row is not among so many bytes of rows used last."""
    return _miss(random.tables, random.row_bytes, random.ids, capacity_bytes)


@lru_cache(maxsize=4096)
def _miss(tables: tuple[int, ...], row_bytes: int, ids: Ids, capacity_bytes: float) -> float:
    room = capacity_bytes / (LINE_BYTES * _lines(row_bytes))
    if capacity_bytes <= 0:
        return 1.0
    if room >= sum(tables):
        return 0.0
    count, chance = popularity(tables, ids)
    low, high = log(1e-3), log(1e3 * float((1 / chance).max()))
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        if float((count * -np.expm1(-chance * exp(middle))).sum()) < room:
            low = middle
        else:
            high = middle
    return float((count * chance * np.exp(-chance * exp(low))).sum())


def popularity(tables: Sequence[int], ids: Ids) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return numbers of rows that are about equally likely, and how likely each of them is."""
    counts, chances = [], []
    for rows, times in Counter(tables).items():
        edges = np.array([0.0, rows])
        if ids == "zipf":
            edges = np.unique(np.floor(np.geomspace(1, rows + 1, BINS)) - 1)
            edges[-1] = rows
        count = np.diff(edges)
        share = np.diff(np.log1p(edges)) / log(rows + 1) if ids == "zipf" else count / rows
        counts.append(times * count)
        chances.append(share / count / len(tables))
    return np.concatenate(counts), np.concatenate(chances)


def _lines(row_bytes: int) -> int:
    return -(-row_bytes // LINE_BYTES)
