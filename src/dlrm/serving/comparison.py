"""How the scores of two models compare over the requests that both answered, as running numbers."""

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LAST = 1024
"""Requests whose times are kept."""


@dataclass(slots=True)
class Comparison:
    """Scores of a model and of its shadow; one thread adds, any may read.

    Nothing is kept of a request but its time, and of its last row the scores.
    """

    requests: int = 0
    rows: int = 0
    dropped: int = 0
    """Requests that the shadow did not get, because too many waited for it."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests that the shadow got and did not answer, by reason."""
    _count: int = 0
    """Scores: labels times rows."""
    _mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """Of the scores of both."""
    _moment: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 2)))
    """Sums of the products of their deviations from their means."""
    _difference: float = 0.0
    """Sum of absolute differences."""
    _largest: float = 0.0
    _alike: int = 0
    _ordered: int = 0
    _before: NDArray[np.float64] | None = None
    """(2, 1, K) scores of the row before."""
    _elapsed_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_LAST))
    _shadow_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_LAST))

    def add(
        self,
        scores: NDArray[np.float32],
        shadow: NDArray[np.float32],
        elapsed_ns: int,
        shadow_ns: int,
    ) -> None:
        """Compare the answers to a request.

        Args:
            scores: (n, K) of the model, finite.
            shadow: (n, K) of its shadow, finite.
            elapsed_ns: Of the model, from the request's place in the queue to its answer.
            shadow_ns: Of the shadow, likewise.

        """
        both = np.stack([scores, shadow]).astype(np.float64)
        self.requests += 1
        self.rows += both.shape[1]
        difference = np.abs(both[0] - both[1])
        self._difference += float(difference.sum())
        self._largest = max(self._largest, float(difference.max()))
        # Chan et al. (1979): moments of two parts are added without a look back at either.
        flat = both.reshape(2, -1)
        count, mean = flat.shape[1], flat.mean(1)
        apart, total = mean - self._mean, self._count + flat.shape[1]
        centred = flat - mean[:, None]
        self._moment += centred @ centred.T + np.outer(apart, apart) * self._count * count / total
        self._mean = self._mean + apart * count / total
        self._count = total
        self._add_order(both)
        self._elapsed_ns.append(elapsed_ns)
        self._shadow_ns.append(shadow_ns)

    def _add_order(self, both: NDArray[np.float64]) -> None:
        """Count of each two rows in succession whether both models rank them alike."""
        rows = both if self._before is None else np.concatenate([self._before, both], 1)
        steps = np.sign(np.diff(rows, axis=1))
        product = steps[0] * steps[1]
        self._alike += int((product > 0).sum())
        self._ordered += int((product != 0).sum())
        self._before = both[:, -1:]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison JSON-ready; a number that does not exist yet is None."""
        failures = dict(self.failures)
        deviations = np.sqrt(np.diag(self._moment))
        scale = float(deviations[0] * deviations[1])
        correlation = float(np.clip(self._moment[0, 1] / scale, -1, 1)) if scale > 0 else None
        any_scores = self._count > 0
        return {
            "requests": self.requests,
            "rows": self.rows,
            "dropped": self.dropped,
            "failed": sum(failures.values()),
            "failures": failures,
            "mean_abs_diff": self._difference / self._count if any_scores else None,
            "max_abs_diff": self._largest if any_scores else None,
            "correlation": correlation,
            "rank_agreement": self._alike / self._ordered if self._ordered else None,
            "mean_score": float(self._mean[0]) if any_scores else None,
            "shadow_mean_score": float(self._mean[1]) if any_scores else None,
            "latency_ms": quantiles_ms(self._elapsed_ns),
            "shadow_latency_ms": quantiles_ms(self._shadow_ns),
        }


def quantiles_ms(elapsed_ns: Collection[int]) -> dict[str, float] | None:
    """Return the median and the 99th percentile of times in nanoseconds; None of none."""
    if not elapsed_ns:
        return None
    # Another thread may append meanwhile.
    p50, p99 = np.percentile(
        np.array(list(elapsed_ns), np.float64), [50, 99], method="inverted_cdf"
    )
    return {"p50": round(float(p50) / 1e6, 4), "p99": round(float(p99) / 1e6, 4)}
