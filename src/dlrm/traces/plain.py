"""The inner loops over streams of ids in plain Python: slow, and what the C++ must equal."""

from collections import Counter
from heapq import heappop, heappush
from math import log2

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

LINEAR, PER_OCTAVE = 64, 16
BINS = LINEAR + PER_OCTAVE * 58
"""Bins of stack distances: one for each below LINEAR, then PER_OCTAVE for each doubling."""


def bin_of(distance: float) -> int:
    """Return the bin of a stack distance."""
    if distance < LINEAR:
        return int(distance)
    return min(LINEAR + int(log2(distance / LINEAR) * PER_OCTAVE), BINS - 1)


def bin_starts() -> NDArray[np.float64]:
    """Return the smallest distance of each bin (BINS,)."""
    octaves = np.arange(BINS - LINEAR) / PER_OCTAVE
    return np.concatenate([np.arange(LINEAR, dtype=np.float64), LINEAR * 2.0**octaves])


def renumber(ids: Ids) -> tuple[Ids, int]:
    """Return ids as places among the distinct ones, in order of first access; and their number."""
    codes: dict[int, int] = {}
    return np.array([codes.setdefault(i, len(codes)) for i in ids.tolist()], np.int64), len(codes)


def stack_distances(codes: Ids, distinct: int) -> Ids:
    """Return the LRU stack distances (L,), by a list with the newest id last."""
    stack: list[int] = []
    distances = np.empty(len(codes), np.int64)
    for t, code in enumerate(codes.tolist()):
        place = stack.index(code) if code in stack else None
        distances[t] = -1 if place is None else len(stack) - 1 - place
        if place is not None:
            del stack[place]
        stack.append(code)
    return distances


def from_distances(distances: Ids, stack: Ids) -> tuple[Ids, Ids]:
    """Return ids (L,) that have these stack distances, and the stack after them."""
    newest_last = stack.tolist()
    ids = np.empty(len(distances), np.int64)
    for t, distance in enumerate(distances.tolist()):
        new = not 0 <= distance < len(newest_last)
        code = len(newest_last) if new else newest_last.pop(-1 - distance)
        newest_last.append(code)
        ids[t] = code
    return ids, np.array(newest_last, np.int64)


def hash_of(id_: int) -> int:
    """Return the 32-bit hash by which ids are sampled: of splitmix64."""
    mask = (1 << 64) - 1
    x = (~id_ + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) >> 32


class Sampler:
    """SHARDS of a fixed size, and the hottest ids; see `dlrm.traces.native.Sampler`.

    Source: Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015.
    """

    MODULUS = 1 << 32

    def __init__(self, ids: int):
        self.most, self.threshold, self.accesses = ids, self.MODULUS, 0
        self.hot: set[int] | None = None
        self.stack: list[int] = []  # followed ids, the newest last
        self.hashes: list[tuple[int, int]] = []
        self.weights = {False: np.zeros(BINS + 1), True: np.zeros(BINS + 1)}
        self.hot_accesses, self.spread = 0, 0.0

    def feed(self, ids: Ids) -> None:
        """Take the next ids (L,) of the stream."""
        if self.hot is None and len(ids):
            self.hot = {id_ for id_, _ in Counter(ids.tolist()).most_common(self.most // 4)}
        self.accesses += len(ids)
        for id_ in ids.tolist():
            assert self.hot is not None
            hashed, is_hot = hash_of(id_), id_ in self.hot
            if not is_hot and hashed >= self.threshold:
                continue
            self.hot_accesses += is_hot
            if id_ in self.stack:
                place = self.stack.index(id_)
                self.weights[is_hot][bin_of(self._distance(self.stack[place + 1 :]))] += 1
                del self.stack[place]
            else:
                self.weights[is_hot][BINS] += 1
                if not is_hot:
                    heappush(self.hashes, (-hashed, id_))
            self.stack.append(id_)
            if len(self.hashes) > self.most - len(self.hot):
                self._lower()

    def _distance(self, others: list[int]) -> float:
        """Return the distinct ids that followed ones stand for.

        Between two sampled ids an access lies anywhere, evenly; nowhere if all are followed.
        """
        assert self.hot is not None
        hot = sum(id_ in self.hot for id_ in others)
        if self.threshold == self.MODULUS:
            return len(others)
        self.spread = (self.spread + 0.6180339887498949) % 1.0
        return hot + (len(others) - hot + self.spread) / (self.threshold / self.MODULUS)

    def _lower(self) -> None:
        before, self.threshold = self.threshold, -self.hashes[0][0]
        while self.hashes and -self.hashes[0][0] >= self.threshold:
            self.stack.remove(heappop(self.hashes)[1])
        self.weights[False] *= self.threshold / before

    def read(self) -> tuple[NDArray[np.float64], float]:
        """Return the accesses by bin, first accesses last, and the share of ids sampled."""
        total = self.weights[False].sum()
        scale = (self.accesses - self.hot_accesses) / total if total > 0 else 0.0
        rate = self.threshold / self.MODULUS
        return self.weights[True] + scale * self.weights[False], rate
