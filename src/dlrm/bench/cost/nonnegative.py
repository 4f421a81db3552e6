"""Least squares whose solution has no negative number."""

import numpy as np
from numpy.typing import NDArray

SWEEPS = 4000
TOLERANCE = 1e-12


def solve(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x (N,) of no negative number with the least |a x - b|, by coordinate descent.

    Args:
        a: (M, N).
        b: (M,).

    """
    norms = np.sqrt((a * a).sum(axis=0))
    used = norms > 0
    scaled = a[:, used] / norms[used]
    gram, target = scaled.T @ scaled, scaled.T @ b
    x = np.zeros(len(target))
    for _ in range(SWEEPS):
        before = x.copy()
        for j in range(len(x)):
            x[j] = max(0.0, x[j] + target[j] - gram[j] @ x)
        if np.abs(x - before).max(initial=0.0) <= TOLERANCE * max(1.0, np.abs(x).max(initial=0.0)):
            break
    found = np.zeros(a.shape[1])
    found[used] = x / norms[used]
    return found
