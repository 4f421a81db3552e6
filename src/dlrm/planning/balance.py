"""Pieces of tables onto ranks, so that all have about as much memory and work: longest first.

A piece weighs its share of all memory and its share of all work together. The heaviest goes first,
each to the rank with the least weight that has room: the heaviest rank then has at most
4/3 - 1/(3 W) times what the best assignment has, and each of memory and work at most its weight.
Afterwards pieces move from the fullest or busiest rank, alone or in exchange, where that helps.

Source: Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Applied Mathematics 1969.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

LOOKS = 400_000
"""Moves and exchanges to look at, at most: half a second."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What has to be put on one rank."""

    size_bytes: int
    work: float
    table: int
    """Pieces of one table go to different ranks."""


@dataclass(slots=True)
class _Rank:
    memory: int
    work: float
    tables: set[int]


class Balance:
    """Ranks that fill up, with the memory and the work that each has already.

    None has more than `capacity` bytes. `by_memory` counts no work, which finds room where there is
    little.
    """

    def __init__(
        self,
        memory: Sequence[int],
        work: Sequence[float],
        capacity: int | None,
        *,
        by_memory: bool = False,
    ):
        self._ranks = [_Rank(m, w, set()) for m, w in zip(memory, work, strict=True)]
        self._capacity = capacity
        self._by_memory = by_memory

    def assign(self, pieces: Sequence[Piece]) -> list[int] | None:
        """Return the rank of each piece; None where this way does not find room for one."""
        self._normalise(pieces)
        order = sorted(range(len(pieces)), key=lambda i: (-self._weight(pieces[i]), i))
        ranks = [-1] * len(pieces)
        lightest = [(self._of(rank), r) for r, rank in enumerate(self._ranks)]
        heapq.heapify(lightest)
        for i in order:
            passed: list[tuple[float, int]] = []
            while lightest and not self._takes(self._ranks[lightest[0][1]], pieces[i]):
                passed.append(heapq.heappop(lightest))
            if not lightest:
                return None
            ranks[i] = lightest[0][1]
            self._put(ranks[i], pieces[i])
            heapq.heapreplace(lightest, (self._of(self._ranks[ranks[i]]), ranks[i]))
            for entry in passed:
                heapq.heappush(lightest, entry)
        self._improve(pieces, ranks)
        return ranks

    def _normalise(self, pieces: Sequence[Piece]) -> None:
        memory = sum(rank.memory for rank in self._ranks) + sum(p.size_bytes for p in pieces)
        work = sum(rank.work for rank in self._ranks) + sum(p.work for p in pieces)
        self._per_byte = len(self._ranks) / memory if memory else 0.0
        counts = work and not self._by_memory
        self._per_work = len(self._ranks) / work if counts else 0.0

    def _weight(self, piece: Piece) -> float:
        return piece.size_bytes * self._per_byte + piece.work * self._per_work

    def _of(self, rank: _Rank) -> float:
        return rank.memory * self._per_byte + rank.work * self._per_work

    def _worse(self, memory: float, work: float) -> float:
        return max(memory * self._per_byte, work * self._per_work)

    def _takes(self, rank: _Rank, piece: Piece) -> bool:
        return piece.table not in rank.tables and self._fits(rank.memory + piece.size_bytes)

    def _fits(self, memory: int) -> bool:
        return self._capacity is None or memory <= self._capacity

    def _put(self, rank: int, piece: Piece, sign: int = 1) -> None:
        self._ranks[rank].memory += sign * piece.size_bytes
        self._ranks[rank].work += sign * piece.work
        if sign > 0:
            self._ranks[rank].tables.add(piece.table)
        else:
            self._ranks[rank].tables.discard(piece.table)

    def _improve(self, pieces: Sequence[Piece], ranks: list[int]) -> None:
        looks = LOOKS
        while looks > 0:
            worst = max(
                range(len(self._ranks)),
                key=lambda r: self._worse(self._ranks[r].memory, self._ranks[r].work),
            )
            mine = [i for i, rank in enumerate(ranks) if rank == worst]
            looks -= len(mine) * (len(pieces) + len(self._ranks))
            if looks < 0 or not (change := self._best(pieces, ranks, worst, mine)):
                return
            i, to, j = change
            self._put(worst, pieces[i], -1)
            if j is not None:
                self._put(to, pieces[j], -1)
                self._put(worst, pieces[j])
                ranks[j] = worst
            self._put(to, pieces[i])
            ranks[i] = to

    def _best(
        self, pieces: Sequence[Piece], ranks: list[int], worst: int, mine: list[int]
    ) -> tuple[int, int, int | None] | None:
        """Return the piece that leaves the worst rank, where to, and what comes back for it."""
        here = self._ranks[worst]
        least = self._worse(here.memory, here.work) * (1 - 1e-9)
        limit = max(map(self._of, self._ranks))
        change = None
        moves = [(to, None) for to in range(len(self._ranks)) if to != worst]
        swaps = [(to, j) for j, to in enumerate(ranks) if to != worst]
        for i in mine:
            gone = pieces[i]
            for to, j in (*moves, *swaps):
                there = self._ranks[to]
                back = None if j is None else pieces[j]
                memory = gone.size_bytes - (back.size_bytes if back else 0)
                work = gone.work - (back.work if back else 0.0)
                value = max(
                    self._worse(here.memory - memory, here.work - work),
                    self._worse(there.memory + memory, there.work + work),
                )
                if (
                    value < least
                    and self._fits(there.memory + memory)
                    and self._fits(here.memory - memory)
                    # Tables stay apart, and the bound above stays true.
                    and (gone.table not in there.tables or (back and back.table == gone.table))
                    and (back is None or back.table not in here.tables)
                    and self._after(there, memory, work) <= limit
                    and self._after(here, -memory, -work) <= limit
                ):
                    least, change = value, (i, to, j)
        return change

    def _after(self, rank: _Rank, memory: int, work: float) -> float:
        return (rank.memory + memory) * self._per_byte + (rank.work + work) * self._per_work
