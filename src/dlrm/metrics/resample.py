"""Samples drawn again: the sums over samples on each of many resamples.

Every metric is a function of a few sums over samples. These are dealt into at most 4096 blocks, at
random (one each where they are fewer), and as many blocks are drawn again with replacement, 1000
times: a resample costs one product of drawn counts with the blocks' sums, whatever the number of
samples. A sample that has a weight is drawn as often as another, and counts as its weight says.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
BLOCKS = 4096
_SEED = 0

Floats = NDArray[np.float64]
Column = NDArray[np.number | np.bool_] | None
"""(S,) what each row adds to a sum; None for 1."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Sums over the rows of each of K bins."""

    bin: NDArray[np.int64]
    """(S,) the bin of each row"""
    values: Floats
    """(S,) what it adds"""
    count: int
    """K"""


class Rows(Protocol):
    """What rows add to the sums that metrics are functions of."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What each row adds to each sum."""
        ...

    @property
    def cells(self) -> Cells | None:
        """What it adds to the sum of its bin; None for no bins."""
        ...

    def metrics(self, totals: Floats) -> dict[str, Floats]:
        """Return each metric on R resamples (R,), NaN where undefined, from sums (C + K, R)."""
        ...


class Blocks:
    """The blocks that samples are dealt into.

    Args:
        samples: S.
        users: (S,) or None; the samples of a user are in one block. Negative for a sample of none.

    """

    def __init__(self, samples: int, users: NDArray[np.integer] | None):
        rng = np.random.default_rng(_SEED)
        if users is None:
            units, member = samples, np.arange(samples)
        else:
            # A row of no user stands for itself.
            alone = users < 0
            numbers, known = np.unique(users[~alone], return_inverse=True)
            units = len(numbers) + int(alone.sum())
            member = np.empty(samples, np.int64)
            member[~alone], member[alone] = known, np.arange(len(numbers), units)
        if units > BLOCKS:
            block = rng.integers(0, BLOCKS, units, dtype=np.uint16)
            member = block if users is None else block[member]
        self._member = member
        self._count = min(units, BLOCKS)

    def resampled(self, rows: Rows) -> dict[str, Floats]:
        """Return each metric on each resample (R,); NaN where it is undefined."""
        columns, cells = rows.columns, rows.cells
        bins = 0 if cells is None else cells.count
        sums = np.empty((self._count, len(columns) + bins))
        for place, column in enumerate(columns):
            sums[:, place] = np.bincount(self._member, column, self._count)
        if cells is not None:
            cell = self._member.astype(np.int64) * bins + cells.bin
            totals = np.bincount(cell, cells.values, self._count * bins)
            sums[:, len(columns) :] = totals.reshape(self._count, bins)
        return rows.metrics((_drawn(self._count) @ sums).T)


@lru_cache(maxsize=1)
def _drawn(count: int) -> Floats:
    """Return how often each of K blocks is drawn in each resample (R, K); K each time."""
    rng = np.random.default_rng([_SEED, count])
    drawn = rng.integers(0, max(count, 1), (RESAMPLES, count), dtype=np.int32)
    drawn += np.arange(RESAMPLES, dtype=np.int32)[:, None] * count
    times = np.bincount(drawn.ravel(), minlength=RESAMPLES * count)
    return times.reshape(RESAMPLES, count).astype(np.float64)


def positive(counts: Floats, total: Floats) -> Floats:
    """Return counts to divide by (R,): NaN where none, up to rounding, of `total` was drawn."""
    return np.where(counts > 1e-12 * total, counts, np.nan)
