"""Numbers as positions between knots, from which a model makes functions that bend at the knots.

    position(x) = 0                                            where x is missing
                  1                                            at knot 0 and below
                  1 + t + (x - knot_t) / (knot_(t+1) - knot_t) between two knots
                  number of knots                              at the last knot and above

A frequent value has a knot, and so has the next greater one: a zero that nine in ten rows have is
no point on the way to the others.
"""

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 1_000_000
"""More numbers than these are drawn from, so many of them."""


def find_knots(values: NDArray[np.float64], most: int) -> tuple[float, ...]:
    """Return the knots of finite numbers (n,), rising: all of their values, or `most` of them.

    A value with more rows than an equal share of those that are left is a bin by itself; the others
    share the remaining bins in equal parts. Bins are fewer where those of frequent values cut too
    many of the others in two.
    """
    if len(values) > MOST_ROWS:
        values = np.random.default_rng(0).choice(values, MOST_ROWS)
    distinct, counts = np.unique(values, return_counts=True)
    bins = most
    while len(distinct) > most:
        starts = _starts(counts, bins)
        if starts.sum() <= most:
            distinct = distinct[starts]
        else:
            bins -= max(1, (int(starts.sum()) - most) // 2)
    return tuple(distinct.tolist())


def _starts(counts: NDArray[np.int64], bins: int) -> NDArray[np.bool_]:
    """Return which of more than `bins` values, by their numbers of rows, are knots."""
    heavy = np.zeros(len(counts), bool)
    while True:
        left, rows = bins - heavy.sum(), counts[~heavy].sum()
        more = ~heavy & (counts * left > rows)
        if not more.any():
            break
        heavy |= more
    light = np.cumsum(np.where(heavy, 0, counts))
    places = (light - 1) * left // rows
    starts = np.ones(len(counts), bool)
    starts[1:-1] = ((np.diff(places) > 0) | heavy[1:] | heavy[:-1])[:-1]
    return starts


def positions(x: NDArray[np.float64], knots: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the positions of numbers (n,); NaN stays NaN."""
    places = np.interp(x, knots, np.arange(len(knots)))
    # Infinite between two knots that are closer than a float64 can divide by.
    return 1 + np.minimum(places, len(knots) - 1)


def at_positions(places: NDArray[np.float64], knots: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the numbers (n,) at some positions, NaN for missing ones."""
    return np.where(places < 1, np.nan, np.interp(places - 1, np.arange(len(knots)), knots))
