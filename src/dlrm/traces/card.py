"""The fidelity card: how far a generated trace is from its source, and whether that is faithful."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.traces.measures import Measures, cache_sizes, miss_ratios

LIMITS = {
    "miss_ratio": 0.01,
    "popularity": 0.02,
    "reuse": 0.02,
    "unique": 0.02,
    "pooling": 0.02,
}
"""Measure of a card -> the most that a faithful trace is off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Distances between a trace and its source, each 0 where they are alike."""

    miss_ratio: float
    """Mean difference of the miss ratios over caches of 1, 1.2, 1.4 ... rows up to all."""
    miss_ratio_max: float
    """The largest of those differences, which no verdict depends on."""
    popularity: float
    """Largest difference of the shares of the k most popular ids (Kolmogorov-Smirnov)."""
    reuse: float
    """Total variation of the shares by doubling stack distances."""
    unique: float
    """Largest relative difference of the distinct ids of batches of 128, 2,048 and 16,384."""
    pooling: float
    """Total variation of the ids of a sample."""

    @property
    def failing(self) -> dict[str, float]:
        """Measures that are off by more than their limit, and by how much."""
        return {name: getattr(self, name) for name, limit in LIMITS.items() if self.over(name) > 1}

    @property
    def faithful(self) -> bool:
        """Whether every measure is within its limit."""
        return not self.failing

    @property
    def worst(self) -> float:
        """The largest measure as a multiple of its limit: what cards are ranked by."""
        return max(map(self.over, LIMITS))

    def over(self, name: str) -> float:
        """Return a measure as a multiple of its limit."""
        return getattr(self, name) / LIMITS[name]

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if self.faithful:
            return "faithful"
        return "off by " + ", ".join(
            f"{value:.3f} in {name} (limit {LIMITS[name]})" for name, value in self.failing.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return this card JSON-ready."""
        values = {name: getattr(self, name) for name in (*LIMITS, "miss_ratio_max")}
        return {**values, "faithful": self.faithful, "failing": list(self.failing)}


def compare(source: Measures, synthetic: Measures) -> Card:
    """Return how far a trace is from its source."""
    most = max(len(measures.trace.counts) for measures in (source, synthetic))
    sizes = cache_sizes(most)
    ratios = [miss_ratios(measures.trace.distances, sizes) for measures in (source, synthetic)]
    differences = np.abs(ratios[0] - ratios[1])
    unique = [
        abs(synthetic.unique[size] / mean - 1.0)
        for size, mean in source.unique.items()
        if size in synthetic.unique
    ]
    return Card(
        miss_ratio=float(differences.mean()),
        miss_ratio_max=float(differences.max()),
        popularity=float(
            np.abs(np.subtract(*_padded(source.popularity, synthetic.popularity, 1.0))).max()
        ),
        reuse=_variation(source.reuse, synthetic.reuse),
        unique=max(unique, default=0.0),
        pooling=_variation(source.pooling, synthetic.pooling),
    )


def _variation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.abs(np.subtract(*_padded(a, b, 0.0))).sum() / 2)


def _padded(
    a: NDArray[np.float64], b: NDArray[np.float64], value: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = max(len(a), len(b))
    return (
        np.pad(a, (0, size - len(a)), constant_values=value),
        np.pad(b, (0, size - len(b)), constant_values=value),
    )
