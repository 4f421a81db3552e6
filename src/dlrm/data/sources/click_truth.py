"""The planted truth behind the generated click log `clicks`.

    P(click) = sigmoid(bias + f + sum_t e_t[id_t] + sum_(s,t) w_st v_s . v_t)

f = sum_k f_k(count_k), a smooth curve of each count; e_t, an effect of each id; and second-order
interactions over chosen pairs, where v_t[id_t] is a vector of each id, and that of the counts is a
fixed direction times f. A missing or negative count acts as 0, as every model sees it; a missing
category has an effect and a vector of its own. docs/guides/data.md#the-generated-click-log tells the whole story.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from dlrm.data.sources.click_columns import CATEGORIES, COUNTS, DRAWS, Category, Count

Float = NDArray[np.float64]

BIAS = -1.5
"""Sets the click rate."""
RANK = 3
"""Length of the vectors v."""
COUNT_VARIANCE = 0.6
"""Variance of the first sum, shared out by the squares of the counts' weights."""
ID_VARIANCE = 0.8
"""Variance of the second, shared out by the squares of the categories' `spread`."""
PAIR_VARIANCE = 0.7
"""Variance of the third, each pair the same."""
RESOLUTION = 2**24
"""Probabilities are multiples of 1 / RESOLUTION, so that float32 holds each exactly."""

ALL_COUNTS = "counts"
"""In a pair: the counts together, that is f."""

PAIRS: tuple[tuple[str, str], ...] = (
    ("C1", "C6"),
    ("C2", "C17"),
    ("C5", "C6"),
    ("C6", "C17"),
    ("C8", "C14"),
    ("C14", "C23"),
    ("C17", "C25"),
    ("C20", "C25"),
    (ALL_COUNTS, "C9"),
    (ALL_COUNTS, "C23"),
)
"""What interacts."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What one count does: `a + b t + c t^2` of its level t, of mean 0."""

    column: Count
    a: float
    b: float
    c: float

    def __call__(self, counts: NDArray[np.int64]) -> Float:
        """Return the effect (n,) of counts (n,)."""
        t = self.column.level(counts)
        return self.a + t * (self.b + t * self.c)


@dataclass(frozen=True, slots=True)
class Ids:
    """What the ids of one category do."""

    effects: Float
    """e (values + 1,), of mean 0"""
    vectors: Float
    """v (RANK, values + 1), of mean 0"""
    covariance: Float
    """Of v, (RANK, RANK)"""


@dataclass(frozen=True, slots=True)
class Truth:
    """A planted truth. The columns are independent, so the variances of its parts just add up."""

    curves: dict[str, Curve]
    """Of each count"""
    direction: Float
    """The vector of the counts is this (RANK, 1) times f"""
    categories: dict[str, Ids]
    """Of each category"""
    factors: dict[tuple[str, str], float]
    """w of each pair"""

    def logits(self, values: dict[str, NDArray[np.int64]]) -> Float:
        """Return the log-odds of a click (n,).

        Args:
            values: (n,) of each column by name: a count, or an id of `click_columns`.

        """
        f = np.zeros(len(next(iter(values.values()))))
        for name, curve in self.curves.items():
            f += curve(values[name])
        logits = BIAS + f
        for name, category in self.categories.items():
            logits += category.effects.take(values[name])
        vectors = {
            name: self.direction * f
            if name == ALL_COUNTS
            else self.categories[name].vectors.take(values[name], axis=1)
            for name in {name for pair in self.factors for name in pair}
        }
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
    total = sum(count.rise**2 + count.hump**2 for count in COUNTS)
    curves = {
        count.name: _curve(count, COUNT_VARIANCE * (count.rise**2 + count.hump**2) / total)
        for count in COUNTS
    }
    total = sum(category.spread**2 for category in CATEGORIES)
    categories = {
        category.name: _ids(category, ID_VARIANCE * category.spread**2 / total, rng)
        for category in CATEGORIES
    }
    direction = rng.uniform(-1.0, 1.0, size=(RANK, 1))
    covariances = {name: category.covariance for name, category in categories.items()}
    covariances[ALL_COUNTS] = COUNT_VARIANCE * direction * direction.T
    # Independent, of mean 0: the variance of v_s . v_t is the trace of the covariances' product.
    factors = {
        (s, t): sqrt(PAIR_VARIANCE / len(PAIRS) / np.trace(covariances[s] @ covariances[t]))
        for s, t in PAIRS
    }
    return Truth(curves, direction, categories, factors)


def _curve(column: Count, variance: float) -> Curve:
    # Moments over an even grid of draws are those of the column, as near as matters.
    t = column.level(column.sample(np.arange(0, DRAWS, 2**16, dtype=np.uint32)))
    b, c = column.rise + 4.0 * column.hump, -4.0 * column.hump
    curve = t * (b + t * c)
    scale = sqrt(variance / curve.var()) if variance else 0.0
    return Curve(column, -scale * float(curve.mean()), scale * b, scale * c)


def _ids(column: Category, variance: float, rng: np.random.Generator) -> Ids:
    p = column.probabilities()
    drawn = rng.uniform(-1.0, 1.0, size=(1 + RANK, len(p)))
    drawn -= (drawn @ p)[:, None]
    effects, vectors = drawn[0], drawn[1:]
    scale = sqrt(variance / float(effects**2 @ p))
    return Ids(effects * scale, vectors, (vectors * p) @ vectors.T)
