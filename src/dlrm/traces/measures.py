"""What decides the cost of a stream of ids, measured: its locality in numbers that can be compared.

miss ratios      of an LRU cache of c rows, c from 1 to all of them (Mattson et al. 1970)
popularity       accesses of the most popular ids together, by rank
reuse            accesses by the logarithm of their stack distance
unique           distinct ids of a batch, which are the rows that an update writes
pooling          ids of a sample
drift            how much popular ids of one part of the trace are those of another
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.traces import native, plain
from dlrm.traces.trace import Trace

BATCHES = (128, 2048, 16384)
"""Samples of the batches whose distinct ids are counted."""
WINDOWS = 16
"""Parts of a trace that drift compares."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """Locality, popularity and drift of one trace, each computed when it is first asked for."""

    trace: Trace

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of the caches whose miss ratios are measured: four for each doubling."""
        return cache_sizes(len(self.trace.counts))

    @cached_property
    def miss_ratios(self) -> Floats:
        """Share of the accesses that an LRU cache of each of `sizes` misses."""
        return miss_ratios(self.trace.distances, self.sizes)

    @cached_property
    def reuse(self) -> Floats:
        """Shares of accesses: first ones, then distance 0, 1, 2-3, 4-7 and so on, (64,)."""
        return reuse_shares(self.trace.distances)

    @cached_property
    def popularity(self) -> Floats:
        """Share of the accesses that go to the k most popular ids, for k from 1 (U,)."""
        counts = np.sort(self.trace.counts)[::-1].astype(np.float64)
        return np.cumsum(counts / len(self.trace))

    @cached_property
    def unique(self) -> dict[int, float]:
        """Batch size -> mean number of distinct ids in a batch, where there is a whole one."""
        codes, _ = self.trace.renumbered
        previous = _previous(codes)
        means = {}
        for size in BATCHES:
            bounds = self.trace.first_of_batches(size)
            if len(bounds) < 2 or bounds[-1] == 0:
                continue
            starts = np.repeat(bounds[:-1], np.diff(bounds))
            means[size] = float((previous[: bounds[-1]] < starts).sum() / (len(bounds) - 1))
        return means

    @cached_property
    def pooling(self) -> Floats:
        """Share of the samples that look up 0, 1, 2 ... ids."""
        lengths = self.trace.lengths
        counts = np.array([0, 1]) if lengths is None else np.bincount(lengths)
        return counts / counts.sum()

    @cached_property
    def drift(self) -> Floats:
        """Shares of accesses that two parts of the trace have in common, by their distance (16,).

        Of each pair of parts the smaller of the two shares that an id has, summed over ids; the
        mean of the pairs that are so far apart. 1 for a part and itself.
        """
        codes, distinct = self.trace.renumbered
        parts = [
            np.bincount(part, minlength=distinct) / max(len(part), 1)
            for part in np.array_split(codes, WINDOWS)
        ]
        return np.array(
            [
                np.mean([np.minimum(parts[i], parts[i + lag]).sum() for i in range(WINDOWS - lag)])
                for lag in range(WINDOWS)
            ],
            np.float64,
        )

    def to_dict(self, sampler: native.Sampler | None = None) -> dict[str, Any]:
        """Return the measures JSON-ready, popularity at ranks 1, 2, 4 and so on.

        Args:
            sampler: That was fed the trace, whose miss ratios are given in place of the exact ones.

        """
        if sampler is None:
            locality = {
                "cache_rows": self.sizes.tolist(),
                "miss_ratios": _rounded(self.miss_ratios),
                "reuse": _rounded(_trimmed(self.reuse)),
            }
        else:
            sizes, ratios, rate = sampled_miss_ratios(sampler)
            locality = {
                "cache_rows": np.rint(sizes).astype(np.int64).tolist(),
                "miss_ratios": _rounded(ratios),
                "sampled_share": rate,
            }
        ranks = cache_sizes(len(self.trace.counts), per_octave=1)
        return {
            "accesses": len(self.trace),
            "samples": self.trace.samples,
            "distinct_ids": len(self.trace.counts),
            **locality,
            "ranks": ranks.tolist(),
            "share_of_most_popular": _rounded(self.popularity[ranks - 1]),
            "unique_ids": {str(size): round(mean, 3) for size, mean in self.unique.items()},
            "pooling": _rounded(self.pooling[:1024]),
            "drift": _rounded(self.drift),
        }


def cache_sizes(most: int, per_octave: int = 4) -> NDArray[np.int64]:
    """Return sizes from 1 to `most`, so many for each doubling, and `most` itself."""
    octaves = np.arange(int(np.log2(max(most, 1)) * per_octave) + 1) / per_octave
    return np.unique(np.append(np.rint(2.0**octaves).astype(np.int64), most))


def miss_ratios(distances: NDArray[np.int64], sizes: NDArray[np.int64]) -> Floats:
    """Return the share of accesses that caches of these sizes miss, of their stack distances."""
    hits = np.cumsum(np.bincount(distances[distances >= 0], minlength=int(sizes[-1]) + 1))
    return 1.0 - hits[np.minimum(sizes, len(hits)) - 1] / len(distances)


def reuse_shares(distances: NDArray[np.int64]) -> Floats:
    """Return the shares of accesses by stack distance: first ones, 0, 1, 2-3, 4-7 ... (64,)."""
    bins = np.where(distances < 0, 0, np.frexp(np.maximum(distances, 0))[1] + 1)
    return np.bincount(bins, minlength=64) / len(distances)


def correlation(a: Trace, b: Trace) -> float:
    """Return how much the ids of one feature say about those of another, 0 for nothing, 1 for all.

    The mutual information of the first id of each sample, less what as many independent samples
    would have by chance (half the product of the degrees of freedom over n, at most), as a share of
    the smaller entropy.
    """
    columns = [_first_ids(trace) for trace in (a, b)]
    both = min(map(len, columns))
    x, y = (native.renumber(column[:both]) for column in columns)
    pairs, pair_count = native.renumber(x[0] * y[1] + y[0])
    entropies = [_entropy(np.bincount(codes)) for codes in (x[0], y[0], pairs)]
    shuffled = np.random.default_rng(0).permutation(y[0])
    chance = _entropy(np.bincount(native.renumber(x[0] * y[1] + shuffled)[0]))
    information = chance - entropies[2]
    return (
        float(np.clip(information / max(min(entropies[:2]), 1e-12), 0.0, 1.0))
        if pair_count
        else 0.0
    )


def sampled_miss_ratios(sampler: native.Sampler) -> tuple[Floats, Floats, float]:
    """Return cache sizes, their miss ratios, and the share of ids that they were estimated from."""
    weights, rate = sampler.read()
    sizes = plain.bin_starts()[1:]
    ratios = 1.0 - np.cumsum(weights[:-1])[:-1] / weights.sum()
    whole = np.flatnonzero(weights[:-1])[-1:] + 1
    return sizes[: whole.max(initial=1)], ratios[: whole.max(initial=1)], rate


def _previous(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the id of each access was accessed before (L,), -1 for nowhere."""
    order = np.argsort(codes, kind="stable")
    previous = np.full(len(codes), -1)
    same = codes[order[1:]] == codes[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def _first_ids(trace: Trace) -> NDArray[np.int64]:
    if trace.lengths is None:
        return trace.ids
    first = np.cumsum(trace.lengths) - trace.lengths
    ids = np.append(trace.ids, 0)
    # An empty bag is a value as well.
    return np.where(trace.lengths > 0, ids[first] + 1, 0)


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _trimmed(values: Floats) -> Floats:
    return values[: np.flatnonzero(values).max(initial=0) + 1]


def _rounded(values: Floats) -> list[float]:
    return np.round(values, 6).tolist()
