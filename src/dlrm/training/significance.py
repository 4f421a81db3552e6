"""Whether a difference between two sets of runs is larger than the noise of their seeds."""

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""A difference counts as real when chance alone makes one as large less often than this."""
EXACT = 20_000
"""Regroupings up to which all are counted; beyond, so many are drawn."""


def chance_of_difference(first: list[float], second: list[float]) -> float:
    """Return how often chance alone makes the means differ as much as they do.

    The permutation test: if it did not matter which model a run belongs to, every regrouping of the
    runs would be as likely as the one seen; the share of regroupings whose means lie at least as
    far apart is the p-value. It assumes nothing of how the metric is distributed.

    Args:
        first: A metric over the seeds of one model.
        second: The same of another model; the numbers of seeds may differ.

    Returns:
        The two-sided p-value; never below the share of one regrouping, so that few seeds cannot
        show anything (see `can_tell`).

    Source: Fisher, "The Design of Experiments", 1935.

    """
    values = np.array([*first, *second])
    n, k = len(values), len(first)
    observed = abs(values[:k].mean() - values[k:].mean())
    means = _regrouped(values, k)
    rest = (values.sum() - k * means) / (n - k)
    # Equal up to rounding counts as equal: the seen grouping is among them.
    return float(np.mean(np.abs(means - rest) >= observed - 1e-12 * max(1.0, abs(values).max())))


def can_tell(first: int, second: int) -> bool:
    """Return whether so many seeds on either side can show any difference at all."""
    symmetric = 2 if first == second else 1
    return symmetric / comb(first + second, first) <= LEVEL


def _regrouped(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    n = len(values)
    if comb(n, k) <= EXACT:
        groups = np.array(list(combinations(range(n), k)))
    else:
        rng = np.random.default_rng(0)
        groups = rng.permuted(np.tile(np.arange(n), (EXACT, 1)), axis=1)[:, :k]
        groups[0] = np.arange(k)
    return values[groups].mean(axis=1)
