"""The columns of the generated click log `clicks`, and the planted truth behind its clicks.

    P(click) = sigmoid(bias + f + sum_t e_t[id_t] + sum_(s,t) w_st v_s . v_t)

f = sum_k f_k(count_k), a smooth curve of each count; e_t, an effect of each id; and second-order
interactions over chosen pairs, where v_t[id_t] is a vector of each id, and that of the counts is a
fixed direction times f. A missing or negative count acts as 0, as every model sees it; a missing
category has an effect and a vector of its own. docs/guides/data.md tells the whole story.

Shaped after Criteo's: 13 heavy-tailed counts and 26 categories with power-law popularity, some
often missing. All columns are independent of each other. Every value comes from one 32-bit draw.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

DRAWS = 2**32
"""Each cell is one draw, uniform on 0 ... DRAWS - 1."""

MISSING = np.iinfo(np.int64).min
"""How a missing count is marked in an array."""


@dataclass(frozen=True, slots=True)
class Count:
    """A count: `floor(scale * (v^-tail - 1)) + low` for v uniform on (0, 1], or missing."""

    name: str
    scale: float
    """The median, up to a factor 2^tail - 1."""
    tail: float
    """P(count > x) falls as x^(-1 / tail)."""
    missing: float = 0.0
    """Probability of a missing value."""
    low: int = 0
    """The smallest count; that of `I2` is negative, as Criteo's."""
    high: int = 65_535
    """Larger counts become this one."""
    rise: float = 0.0
    """Weight of the level t in what the count does to the truth."""
    hump: float = 0.0
    """Weight of the hump 4 t (1 - t)."""

    def level(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return t = z / (z + log(1 + scale)) in [0, 1), where z = log(1 + max(count, 0))."""
        z = np.log1p(np.maximum(counts, 0).astype(np.float64))
        return z / (z + np.log1p(self.scale))

    def sample(self, draws: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return counts (n,), `MISSING` where missing, from draws (n,)."""
        u = (draws + 0.5) / DRAWS
        v = (1.0 - u) / (1.0 - self.missing)
        x = np.minimum(self.scale * (v**-self.tail - 1.0) + self.low, self.high)
        return np.where(u < self.missing, MISSING, np.floor(x).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Category:
    """A category of `values` values, or missing: P(value r) is proportional to (r + 1)^-exponent.

    Here and in the truth its ids are 0 for missing and 1 ... values by falling popularity.
    """

    name: str
    values: int
    exponent: float
    missing: float = 0.0
    """Probability of a missing value."""
    spread: float = 1.0
    """Relative standard deviation of what its ids do to the truth."""

    def probabilities(self) -> NDArray[np.float64]:
        """Return the probability of each id (values + 1,)."""
        weight = np.arange(2, self.values + 2, dtype=np.float64) ** -self.exponent
        return np.append(self.missing, weight * ((1.0 - self.missing) / weight.sum()))

    def thresholds(self) -> NDArray[np.uint32]:
        """Return the draw at which each id but the first begins (values,)."""
        edges = np.cumsum(self.probabilities())[:-1] * DRAWS
        return np.minimum(edges.round(), DRAWS - 1).astype(np.uint32)

    def keys(self, table: int) -> NDArray[np.uint32]:
        """Return what the log holds for each id (values + 1,), distinct over all tables.

        Murmur3's finalizer, a bijection of 32 bits, applied to `table * 2^27 + id`: it looks like
        Criteo's hashes and tells nothing of popularity.
        """
        h = np.arange(self.values + 1, dtype=np.uint32) + np.uint32(table << 27)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h ^= h >> np.uint32(shift)
            h *= np.uint32(factor)
        return h ^ (h >> np.uint32(16))


COUNTS = (
    Count("I1", 1.5, 0.75, missing=0.45, rise=1.0),
    Count("I2", 4.0, 1.25, low=-2, rise=0.5, hump=0.25),
    Count("I3", 7.0, 1.0, missing=0.20, rise=0.5, hump=0.5),
    Count("I4", 5.0, 0.5, missing=0.20, rise=-0.5, hump=0.25),
    Count("I5", 2500.0, 1.0, missing=0.05, high=2_097_151, rise=-1.0),
    Count("I6", 40.0, 0.75, missing=0.25, rise=-1.0, hump=0.25),
    Count("I7", 3.0, 1.0, missing=0.05, rise=1.0),
    Count("I8", 10.0, 0.5, rise=-0.5, hump=-0.5),
    Count("I9", 40.0, 0.75, missing=0.05, rise=0.5),
    Count("I10", 1.0, 0.25, missing=0.45, rise=0.5),
    Count("I11", 1.5, 0.5, missing=0.05, rise=1.0, hump=-0.25),
    Count("I12", 0.75, 0.75, missing=0.77, rise=0.5),
    Count("I13", 5.0, 0.75, missing=0.20, rise=-0.5, hump=0.25),
)

CATEGORIES = (
    Category("C1", 200, 1.2),
    Category("C2", 400, 1.1),
    Category("C3", 20_000, 1.1, missing=0.04, spread=0.4),
    Category("C4", 10_000, 1.1, missing=0.04, spread=0.4),
    Category("C5", 60, 1.4),
    Category("C6", 10, 0.8, missing=0.13),
    Category("C7", 6_000, 1.0, spread=0.4),
    Category("C8", 120, 1.2),
    Category("C9", 3, 1.5, spread=0.5),
    Category("C10", 15_000, 1.3, spread=0.4),
    Category("C11", 3_000, 1.0, spread=0.6),
    Category("C12", 20_000, 1.1, missing=0.04, spread=0.4),
    Category("C13", 2_000, 1.0, spread=0.6),
    Category("C14", 25, 1.0),
    Category("C15", 5_000, 1.1, spread=0.4),
    Category("C16", 30_000, 1.1, missing=0.04, spread=0.4),
    Category("C17", 10, 0.7),
    Category("C18", 2_500, 1.1, spread=0.6),
    Category("C19", 1_000, 1.2, missing=0.45, spread=0.6),
    Category("C20", 4, 0.5, missing=0.45),
    Category("C21", 40_000, 1.1, missing=0.04, spread=0.4),
    Category("C22", 8, 1.0, missing=0.75),
    Category("C23", 12, 0.9),
    Category("C24", 8_000, 1.2, missing=0.04, spread=0.4),
    Category("C25", 50, 1.1, missing=0.45),
    Category("C26", 4_000, 1.2, missing=0.45, spread=0.6),
)


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
"""Name, in a pair, of the counts together, that is f."""

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
"""Pairs of columns whose vectors interact."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Effect of one count on the logit: `a + b t + c t^2` of its level t, of mean 0."""

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
    """Effects and vectors of the ids of one category."""

    effects: Float
    """e (values + 1,), of mean 0"""
    vectors: Float
    """v (RANK, values + 1), of mean 0"""
    covariance: Float
    """(RANK, RANK) covariance of v"""


@dataclass(frozen=True, slots=True)
class Truth:
    """A planted truth. The columns are independent, so the variances of its parts just add up."""

    curves: dict[str, Curve]
    """Count -> its curve"""
    direction: Float
    """The vector of the counts is this (RANK, 1) times f"""
    categories: dict[str, Ids]
    """Category -> its ids"""
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
