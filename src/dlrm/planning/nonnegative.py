"""Least squares whose solution has no negative number."""

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-9
"""Tolerance of slopes, relative to the largest that there can be."""


def solve(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x (N,) of no negative number with the least |a x - b|, of a (M, N) and b (M,).

    Source: Lawson, Hanson, "Solving Least Squares Problems", 1974, chapter 23.
    """
    # A column of zeros stays one.
    norms = np.linalg.norm(a, axis=0)
    norms[norms == 0] = np.inf
    scaled = a / norms
    x, free = np.zeros(a.shape[1]), np.zeros(a.shape[1], bool)
    least = TOLERANCE * (float(np.linalg.norm(b)) or 1.0)
    # Each free set is better than the one before, so none comes twice but for rounding.
    for _ in range(10 * len(x)):
        slope = np.where(free, -np.inf, scaled.T @ (b - scaled @ x))
        if slope.max(initial=-np.inf) <= least:
            break
        free[slope.argmax()] = True
        x = _inside(scaled, b, x, free)
    return x / norms


def _inside(
    a: NDArray[np.float64], b: NDArray[np.float64], x: NDArray[np.float64], free: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the solution over the free numbers; those that would fall below 0 are made fixed."""
    while True:
        solution = np.zeros_like(x)
        solution[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
        below = free & (solution <= 0)
        if not below.any():
            return solution
        step = np.min(x[below] / np.maximum(x[below] - solution[below], 1e-300))
        x = x + step * (solution - x)
        free &= x > TOLERANCE
        x[~free] = 0.0
