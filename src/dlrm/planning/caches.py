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

from dlrm.planning.ceilings import GatherPoint
from dlrm.planning.nonnegative import solve
from dlrm.planning.work import LINE_BYTES, Ids, Random, Shape

CAPACITIES = (0, *(2**power for power in range(17, 31)))
"""Bytes of the levels that are tried: all that the curve does not ask for cost nothing. The first
is paid by every row."""
BINS = 120
"""Groups of the rows of a table with unequal popularity."""
ROUNDS = 60
UNCHANGED = (1.0, 0.0, 0.0)
"""The last-level cache as it is, see `Levels.scaled`."""


@dataclass(frozen=True, slots=True)
class Level:
    """Seconds that a row costs for lying outside of the nearest `capacity_bytes`."""

    capacity_bytes: float
    first_s: float
    """Seconds of its first line."""
    rest_s: float
    """Seconds of each further line."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The memory of a machine, as random rows see it."""

    levels: tuple[Level, ...]

    @staticmethod
    @lru_cache(maxsize=32)
    def of(points: tuple[GatherPoint, ...]) -> "Levels":
        """Return the levels that give a measured curve best, by relative error."""
        features = []
        for point in points:
            rows = Random(1.0, point.row_bytes, (max(1, point.table_bytes // point.row_bytes),))
            missed = [miss(rows, capacity) for capacity in CAPACITIES]
            features.append([*missed, *(m * (rows.row_lines - 1) for m in missed)])
        seconds = np.array([point.row_s for point in points])
        solved = solve(np.array(features) / seconds[:, None], np.ones(len(seconds)))
        costs = zip(CAPACITIES, *np.split(solved, 2), strict=True)
        return Levels(
            tuple(Level(float(c), float(a), float(b)) for c, a, b in costs if a > 0 or b > 0)
        )

    def row_s(self, random: Random) -> tuple[float, float]:
        """Return the seconds of a row: of waiting for it, and of moving the rest of its lines.

        Lines that are written back are moved twice.
        """
        more = random.row_lines * (2 if random.written else 1) - 1
        shares = [(miss(random, level.capacity_bytes), level) for level in self.levels]
        waiting = sum(share * level.first_s for share, level in shares)
        return waiting, sum(share * level.rest_s * more for share, level in shares)

    def scaled(self, factor: float, above_bytes: float, below_bytes: float) -> "Levels":
        """Return the same with caches, of `above_bytes` to `below_bytes`, times as large."""
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
    return _miss(random.tables, random.row_lines, random.ids, capacity_bytes)


@lru_cache(maxsize=65536)
def _miss(tables: tuple[int, ...], row_lines: int, ids: Ids, capacity_bytes: float) -> float:
    room = capacity_bytes / (LINE_BYTES * row_lines)
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


def distinct(tables: Sequence[int], shape: Shape) -> float:
    """Return how many different rows of the tables of T features a batch looks up, as a mean."""
    count, chance = popularity(tables, shape.ids)
    drawn = shape.batch_size * len(tables) * shape.pooling
    return float((count * -np.expm1(-chance * drawn)).sum())
