"""The planted truth behind the generated click log `clicks`.

    P(click) = sigmoid(bias + sum_k f_k(count_k)      a smooth curve of each count
                            + sum_t e_t[id_t]         an effect of each id
                            + sum_(s,t) w v_s . v_t)  second-order interactions, over chosen pairs

where v_t[id_t] is a vector of each id, and v_k a fixed direction times the level of the count. A
missing or negative count acts as 0, as every model sees it; a missing category has an effect and a
vector of its own. docs/guides/clicks.md tells the whole story.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from dlrm.data.click_columns import CATEGORIES, COUNTS, DRAWS, Category, Count

Float = NDArray[np.float64]

BIAS = -1.5
"""Sets the click rate."""
RANK = 3
"""Length of the vectors v."""
COUNT_VARIANCE = 0.6
"""Variance of the first sum, shared out by the squares of the counts' weights."""
ID_VARIANCE = 0.8
"""Variance of the second, shared out by the squares of the categories' `spread`."""
PAIR_VARIANCE = 0.8
"""Variance of the third, each pair the same."""
RESOLUTION = 2**24
"""Probabilities are multiples of 1 / RESOLUTION, so that float32 holds each exactly."""

PAIRS: tuple[tuple[str, str], ...] = (
    ("C1", "C6"),
    ("C1", "C14"),
    ("C2", "C17"),
    ("C2", "C23"),
    ("C5", "C6"),
    ("C6", "C17"),
    ("C8", "C14"),
    ("C14", "C23"),
    ("C17", "C25"),
    ("C20", "C25"),
    ("I1", "C6"),
    ("I5", "C14"),
    ("I7", "C17"),
    ("I9", "C23"),
)
"""Columns that interact."""


@dataclass(frozen=True, slots=True)
class CountTruth:
    """What one count does."""

    column: Count
    curve: tuple[float, float, float]
    """f = a + b t + c t^2 of its level t, of mean 0"""
    direction: Float
    """v = direction (RANK, 1) * (t - mean)"""
    mean: float
    covariance: Float
    """Of v, (RANK, RANK)"""

    def effect(self, counts: NDArray[np.int64]) -> Float:
        """Return f (n,)."""
        a, b, c = self.curve
        t = self.column.level(counts)
        return a + t * (b + t * c)

    def vector(self, counts: NDArray[np.int64]) -> Float:
        """Return v (RANK, n)."""
        return self.direction * (self.column.level(counts) - self.mean)


@dataclass(frozen=True, slots=True)
class CategoryTruth:
    """What the ids of one category do."""

    effects: Float
    """e (values + 1,), of mean 0"""
    vectors: Float
    """v (RANK, values + 1), of mean 0"""
    covariance: Float
    """Of v, (RANK, RANK)"""

    def effect(self, ids: NDArray[np.intp]) -> Float:
        """Return e (n,)."""
        return self.effects.take(ids)

    def vector(self, ids: NDArray[np.intp]) -> Float:
        """Return v (RANK, n)."""
        return self.vectors.take(ids, axis=1)


@dataclass(frozen=True, slots=True)
class Truth:
    """A planted truth. The columns are independent, so the variances of its parts just add up."""

    columns: dict[str, CountTruth | CategoryTruth]
    factors: dict[tuple[str, str], float]
    """w of each pair"""

    def logits(self, values: dict[str, NDArray[np.int64]]) -> Float:
        """Return the log-odds of a click (n,).

        Args:
            values: (n,) of each column by name: a count, or an id of `click_columns`.

        """
        logits = np.full(len(next(iter(values.values()))), BIAS)
        for name, column in values.items():
            logits += self.columns[name].effect(column)
        paired = {name for pair in self.factors for name in pair}
        vectors = {name: self.columns[name].vector(values[name]) for name in paired}
        for (s, t), factor in self.factors.items():
            logits += factor * (vectors[s] * vectors[t]).sum(axis=0)
        return logits


def probabilities(logits: Float) -> NDArray[np.int64]:
    """Return sigmoid(logits) in units of 1 / RESOLUTION, never 0 or 1."""
    p = 1.0 / (1.0 + np.exp(-logits))
    return np.clip(np.rint(p * RESOLUTION), 1, RESOLUTION - 1).astype(np.int64)


def plant(world: int) -> Truth:
    """Return the truth of a world: the same number, the same truth."""
    rng = np.random.Generator(np.random.PCG64(world))
    columns: dict[str, CountTruth | CategoryTruth] = {}
    total = sum(count.rise**2 + count.hump**2 for count in COUNTS)
    for count in COUNTS:
        variance = COUNT_VARIANCE * (count.rise**2 + count.hump**2) / total
        columns[count.name] = _count(count, variance, rng)
    total = sum(category.spread**2 for category in CATEGORIES)
    for category in CATEGORIES:
        variance = ID_VARIANCE * category.spread**2 / total
        columns[category.name] = _category(category, variance, rng)
    # Independent, of mean 0: the variance of v_s . v_t is the trace of the covariances' product.
    factors = {
        (s, t): sqrt(
            PAIR_VARIANCE / len(PAIRS) / np.trace(columns[s].covariance @ columns[t].covariance)
        )
        for s, t in PAIRS
    }
    return Truth(columns, factors)


def _count(column: Count, variance: float, rng: np.random.Generator) -> CountTruth:
    # Moments over an even grid of draws are those of the column, as near as matters.
    t = column.level(column.sample(np.arange(0, DRAWS, 2**16, dtype=np.uint32)))
    hump = 4.0 * column.hump
    curve = (column.rise + hump) * t - hump * t**2
    scale = sqrt(variance / curve.var()) if variance else 0.0
    direction = rng.uniform(-1.0, 1.0, size=RANK) / t.std()
    return CountTruth(
        column,
        (-scale * float(curve.mean()), scale * (column.rise + hump), -scale * hump),
        direction[:, None],
        float(t.mean()),
        np.outer(direction, direction),
    )


def _category(column: Category, variance: float, rng: np.random.Generator) -> CategoryTruth:
    p = column.probabilities()
    drawn = rng.uniform(-1.0, 1.0, size=(1 + RANK, len(p)))
    drawn -= (drawn @ p)[:, None]
    effects, vectors = drawn[0], drawn[1:]
    return CategoryTruth(
        effects * sqrt(variance / float(effects**2 @ p)), vectors, (vectors * p) @ vectors.T
    )
