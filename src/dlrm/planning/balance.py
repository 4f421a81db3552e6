"""Pieces of tables onto ranks, so that all have about as much memory and work: longest first.

A piece weighs its share of all memory and its share of all work together. The heaviest goes first,
each to the rank with the least weight that has room: the heaviest rank then has at most
4/3 - 1/(3 W) times what the best assignment has, and each of memory and work at most its weight.
Afterwards pieces move from the fullest or busiest rank, alone or in exchange, where that helps.

Source: Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Applied Mathematics 1969.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

LOOKS = 400_000
"""Moves and exchanges to look at, at most: half a second."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A table, or a part of one, that one rank has to hold."""

    size_bytes: int
    work: float
    table: int
    """Pieces of one table go to different ranks."""


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
        self._memory, self._work = list(memory), list(work)
        self._holders: dict[int, set[int]] = defaultdict(set)
        self._capacity = inf if capacity is None else capacity
        self._by_memory = by_memory

    def assign(self, pieces: Sequence[Piece]) -> list[int] | None:
        """Return the rank of each piece; None where this way does not find room for one."""
        world = range(len(self._memory))
        memory = sum(self._memory) + sum(piece.size_bytes for piece in pieces)
        work = sum(self._work) + sum(piece.work for piece in pieces)
        self._per_byte = len(world) / memory if memory else 0.0
        self._per_work = len(world) / work if work and not self._by_memory else 0.0
        ranks = [-1] * len(pieces)
        weights = [self._weight(piece.size_bytes, piece.work) for piece in pieces]
        taken = np.array(self._memory, np.float64)
        loads = np.array([*map(self._weight, self._memory, self._work)])
        for i in sorted(range(len(pieces)), key=lambda i: (-weights[i], i)):
            piece = pieces[i]
            room = taken + piece.size_bytes <= self._capacity
            room[list(self._holders[piece.table])] = False
            if not room.any():
                return None
            ranks[i] = rank = int(np.where(room, loads, inf).argmin())
            self._put(rank, piece)
            taken[rank] = self._memory[rank]
            loads[rank] = self._weight(self._memory[rank], self._work[rank])
        looks = LOOKS
        while looks > 0:
            worst = max(world, key=lambda r: self._worse(self._memory[r], self._work[r]))
            mine = [i for i, rank in enumerate(ranks) if rank == worst]
            looks -= len(mine) * (len(pieces) + len(world))
            if looks < 0 or not (change := self._best(pieces, ranks, worst, mine)):
                break
            i, to, j = change
            self._put(worst, pieces[i], -1)
            if j is not None:
                self._put(to, pieces[j], -1)
                self._put(worst, pieces[j])
                ranks[j] = worst
            self._put(to, pieces[i])
            ranks[i] = to
        return ranks

    def _weight(self, memory: float, work: float) -> float:
        return memory * self._per_byte + work * self._per_work

    def _worse(self, memory: float, work: float) -> float:
        return max(memory * self._per_byte, work * self._per_work)

    def _put(self, rank: int, piece: Piece, sign: int = 1) -> None:
        self._memory[rank] += sign * piece.size_bytes
        self._work[rank] += sign * piece.work
        holders = self._holders[piece.table]
        (holders.add if sign > 0 else holders.discard)(rank)

    def _best(
        self, pieces: Sequence[Piece], ranks: list[int], worst: int, mine: list[int]
    ) -> tuple[int, int, int | None] | None:
        """Return the piece that leaves the worst rank, where to, and what comes back for it."""
        memory, work, holders = self._memory, self._work, self._holders
        least = self._worse(memory[worst], work[worst]) * (1 - 1e-9)
        limit = max(map(self._weight, memory, work))
        change = None
        moves = [(to, None) for to in range(len(memory)) if to != worst]
        swaps = [(to, j) for j, to in enumerate(ranks) if to != worst]
        for i in mine:
            gone = pieces[i]
            for to, j in (*moves, *swaps):
                back = None if j is None else pieces[j]
                moved = gone.size_bytes - (back.size_bytes if back else 0)
                busy = gone.work - (back.work if back else 0.0)
                left, left_work = memory[worst] - moved, work[worst] - busy
                there, there_work = memory[to] + moved, work[to] + busy
                value = max(self._worse(left, left_work), self._worse(there, there_work))
                if (
                    value < least
                    and max(left, there) <= self._capacity
                    # Tables stay apart, and the bound above stays true.
                    and (to not in holders[gone.table] or (back and back.table == gone.table))
                    and (back is None or worst not in holders[back.table])
                    and self._weight(left, left_work) <= limit
                    and self._weight(there, there_work) <= limit
                ):
                    least, change = value, (i, to, j)
        return change
