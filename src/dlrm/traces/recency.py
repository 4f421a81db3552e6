"""Traffic of stack distances: each access takes the id that was used so many ids ago.

`LRUStack` is what the original DLRM generates from a profile of stack distances, with its state
kept over samples, which the original forgets. Popularity is lost: every id moves through the stack
as any other. `TwoDIO` adds it back: an access draws an id by popularity with some probability, and
otherwise the id whose next turn comes first, turns being drawn from the distribution of reuse
distances (Wang et al., "2DIO", EuroSys 2026, arXiv 2603.19971).
"""

from collections.abc import Iterator
from heapq import heapify, heapreplace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dlrm.traces import native, plain
from dlrm.traces.popularity import Zipf, zipf_weights
from dlrm.traces.trace import Ids, Trace
from dlrm.traces.traffic import Traffic, shared_out

CHUNK = 1 << 18


class LRUStack(Traffic):
    """Stack distances, drawn one by one."""

    kind = "lru-stack"

    def __init__(self, distances: Ids, shares: NDArray[np.float64]):
        self.distances, self.shares = distances, shares

    @classmethod
    def fit(cls, trace: Trace) -> Self:
        """Return the distances of the trace: each below 64, and the mean of each bin above."""
        distances, shares = binned(trace.distances)
        return cls(distances, shares)

    def chunks(self, rng: np.random.Generator) -> Iterator[Ids]:
        """Yield the ids of drawn distances."""
        stack = np.empty(0, np.int64)
        while True:
            drawn = self.distances[shared_out(self.shares, CHUNK, rng)]
            ids, stack = native.from_distances(drawn, stack)
            yield ids

    def parameters(self) -> dict[str, Any]:
        """Return the distances and their shares."""
        return {"distances": self.distances.tolist(), "shares": np.round(self.shares, 9).tolist()}

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """Return the model of such parameters."""
        distances = np.array(parameters["distances"], np.int64)
        shares = np.array(parameters["shares"], np.float64)
        if len(distances) != len(shares) or not len(shares) or not shares.sum() > 0:
            raise ValueError("distances and shares differ in number, or there are none")
        if distances.min() < -1 or shares.min() < 0:
            raise ValueError("a distance is below -1, or a share below 0")
        return cls(distances, shares)


class TwoDIO(Traffic):
    """Popularity by Zipf with probability `memoryless`, else turns by reuse distances."""

    kind = "2dio"

    def __init__(self, memoryless: float, zipf: Zipf, turns: LRUStack):
        self.memoryless, self.zipf, self.turns = memoryless, zipf, turns

    @classmethod
    def fit(cls, trace: Trace) -> Self:
        """Return the triplet: the probability is that of five whose miss ratios are closest."""
        from dlrm.traces.measures import cache_sizes, miss_ratios

        zipf = Zipf.fit(trace)
        codes, _ = trace.renumbered
        gaps = np.diff(np.argsort(codes, kind="stable"))
        ordered = np.sort(codes, kind="stable")
        reused = ordered[1:] == ordered[:-1]
        if not reused.any():
            return cls(1.0, zipf, LRUStack(*binned(np.array([len(trace)]))))
        turns = LRUStack(*binned(gaps[reused] - 1))
        beginning = Trace(trace.name, trace.ids[:200_000])
        sizes = cache_sizes(len(beginning.counts))
        goal = miss_ratios(beginning.distances, sizes)

        def error(memoryless: float) -> float:
            other = cls(memoryless, zipf, turns).generate(len(beginning))
            return float(np.abs(miss_ratios(other.distances, sizes) - goal).mean())

        return cls(min((0.0, 0.25, 0.5, 0.75, 1.0), key=error), zipf, turns)

    def chunks(self, rng: np.random.Generator) -> Iterator[Ids]:
        """Yield ids, by a heap of turns."""
        weights = zipf_weights(self.zipf.distinct, self.zipf.q, self.zipf.s)
        cumulated = np.cumsum(weights / weights.sum())
        turns = self.turns.distances[shared_out(self.turns.shares, self.zipf.distinct, rng)]
        heap = list(zip(turns.tolist(), range(self.zipf.distinct), strict=True))
        heapify(heap)
        while True:
            by_popularity = (rng.random(CHUNK) < self.memoryless).tolist()
            popular = np.searchsorted(cumulated[:-1], rng.random(CHUNK), side="right").tolist()
            gaps = self.turns.distances[shared_out(self.turns.shares, CHUNK, rng)].tolist()
            ids = np.empty(CHUNK, np.int64)
            for t in range(CHUNK):
                if by_popularity[t]:
                    ids[t] = popular[t]
                else:
                    turn, id_ = heap[0]
                    ids[t] = id_
                    heapreplace(heap, (turn + 1 + gaps[t], id_))
            yield ids

    def parameters(self) -> dict[str, Any]:
        """Return the probability, the Zipf and the turns."""
        return {
            "memoryless": self.memoryless,
            "zipf": self.zipf.parameters(),
            "turns": self.turns.parameters(),
        }

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """Return the model of such parameters."""
        memoryless = float(parameters["memoryless"])
        if not 0 <= memoryless <= 1:
            raise ValueError(f"memoryless is {memoryless}, expected 0 to 1")
        return cls(memoryless, Zipf.of(parameters["zipf"]), LRUStack.of(parameters["turns"]))


def binned(distances: Ids) -> tuple[Ids, NDArray[np.float64]]:
    """Return distances in ascending order, -1 for a first access, and the share of each.

    Those from 64 on are the means of bins, 16 for each doubling.
    """
    starts = np.concatenate([[-1], plain.bin_starts()])
    bins = np.searchsorted(starts, distances, side="right") - 1
    counts = np.bincount(bins, minlength=len(starts))
    sums = np.bincount(bins, weights=distances, minlength=len(starts))
    used = np.flatnonzero(counts)
    return np.rint(sums[used] / counts[used]).astype(np.int64), counts[used] / counts.sum()
