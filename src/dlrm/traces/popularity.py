"""Traffic without memory: each access draws an id by its popularity alone.

`Uniform`, `Zipf` (Zipf-Mandelbrot: the k-th id is drawn in proportion to (k + q)^-s), and
`HeavyHitters`: the shares of the 20 most popular ids as they are, Zipf for the others, as FBGEMM's
estimator of index streams has it.
"""

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dlrm.traces.trace import Ids, Trace
from dlrm.traces.traffic import Traffic

CHUNK = 1 << 20
HITTERS = 20
"""Ids whose shares FBGEMM keeps, at most."""


class Uniform(Traffic):
    """Every id is as likely as any other."""

    kind = "uniform"

    def __init__(self, distinct: int):
        self.distinct = distinct

    @classmethod
    def fit(cls, trace: Trace) -> Self:
        """Return the model with as many ids as the trace has."""
        return cls(len(trace.counts))

    def chunks(self, rng: np.random.Generator) -> Iterator[Ids]:
        """Yield draws."""
        while True:
            yield rng.integers(0, self.distinct, CHUNK)

    def parameters(self) -> dict[str, Any]:
        """Return the number of ids."""
        return {"distinct_ids": self.distinct}

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """Return the model of such parameters."""
        return cls(_positive(parameters["distinct_ids"]))


class HeavyHitters(Traffic):
    """Shares of the most popular ids, then Zipf-Mandelbrot."""

    kind = "heavy-hitters"
    hitters = HITTERS

    def __init__(self, distinct: int, q: float, s: float, shares: NDArray[np.float64]):
        self.distinct, self.q, self.s, self.shares = distinct, q, s, shares

    @classmethod
    def fit(cls, trace: Trace) -> Self:
        """Return the model of greatest likelihood for a tail of this form."""
        counts = np.sort(trace.counts)[::-1].astype(np.float64)
        hitters = min(cls.hitters, len(counts) - 1)
        q, s = fit_zipf(counts[hitters:])
        return cls(len(counts), q, s, counts[:hitters] / counts.sum())

    def chunks(self, rng: np.random.Generator) -> Iterator[Ids]:
        """Yield draws, by the inverse of the cumulated shares."""
        tail = zipf_weights(self.distinct - len(self.shares), self.q, self.s)
        rest = max(1.0 - self.shares.sum(), 0.0)
        cumulated = np.cumsum(np.concatenate([self.shares, tail / tail.sum() * rest]))
        while True:
            draws = np.searchsorted(cumulated, rng.random(CHUNK) * cumulated[-1], side="right")
            yield np.minimum(draws, self.distinct - 1)

    def parameters(self) -> dict[str, Any]:
        """Return the exponent, the shift and the shares."""
        return {
            "distinct_ids": self.distinct,
            "q": self.q,
            "s": self.s,
            "shares": np.round(self.shares, 9).tolist(),
        }

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """Return the model of such parameters."""
        shares = np.array(parameters.get("shares", []), np.float64)
        distinct = _positive(parameters["distinct_ids"])
        if len(shares) >= distinct or (shares < 0).any() or shares.sum() > 1 + 1e-6:
            raise ValueError("shares of more ids than there are, or of more than all accesses")
        q, s = float(parameters["q"]), float(parameters["s"])
        if not (q > -1 and math.isfinite(s) and math.isfinite(q)):
            raise ValueError(f"q is {q} and s is {s}, expected numbers, q above -1")
        return cls(distinct, q, s, shares)


class Zipf(HeavyHitters):
    """Zipf-Mandelbrot for all ids."""

    kind = "zipf"
    hitters = 0


def zipf_weights(size: int, q: float, s: float) -> NDArray[np.float64]:
    """Return (k + q)^-s for k from 1 to size, the first being 1 (size,)."""
    return ((np.arange(1, size + 1, dtype=np.float64) + q) / (1 + q)) ** -s


def fit_zipf(counts: NDArray[np.float64]) -> tuple[float, float]:
    """Return shift and exponent of greatest likelihood for counts in descending order.

    Golden sections over the shift, with Newton steps for the exponent of each.
    """

    def best(q: float) -> tuple[float, float]:
        logs = np.log(np.arange(1, len(counts) + 1) + q)
        observed = (counts @ logs) / counts.sum()
        s = 1.0
        for _ in range(40):
            weights = np.exp(-s * (logs - logs[0]))
            weights /= weights.sum()
            mean = weights @ logs
            step = (mean - observed) / max(weights @ (logs - mean) ** 2, 1e-12)
            s = min(max(s + step, 0.0), 8.0)
            if abs(step) < 1e-7:
                break
        likelihood = -s * observed - np.log(np.exp(-s * (logs - logs[0])).sum()) + s * logs[0]
        return float(likelihood), float(s)

    low, high, ratio = np.log(0.01), np.log(max(len(counts), 2)), (math.sqrt(5) - 1) / 2
    for _ in range(30):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if best(math.exp(left) - 0.5)[0] > best(math.exp(right) - 0.5)[0]:
            high = right
        else:
            low = left
    q = math.exp((low + high) / 2) - 0.5
    return round(q, 6), round(best(q)[1], 6)


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"distinct_ids is {value!r}, expected a number from 1")
    return value
