"""In which order the original trains on the days of a Criteo log.

All functions return (rows,) numbers of rows and draw from the run's random numbers as the original
does. It shuffles prepared files in memory, once for the training data and once more for the test
data; with `--memory-map` it shuffles while it prepares them, day by day, out of core.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Order = NDArray[np.int64]


def in_memory(days: Sequence[int], randomize: str, rng: RandomState) -> Order:
    """Return the order of all days but the last.

    Args:
        days: Rows of each day.
        randomize: `total` mixes all rows, `day` those of each day, `none` none.
        rng: Random numbers.

    """
    train = np.arange(sum(days[:-1]))
    if randomize == "total":
        return rng.permutation(train)
    if randomize == "day":
        bounds = np.cumsum(days[:-1])[:-1]
        return np.concatenate([rng.permutation(day) for day in np.split(train, bounds)])
    return train


def memory_mapped(days: Sequence[int], randomize: str, rng: RandomState) -> Order:
    """Return the order of all days but the last.

    `total` throws each row into a random day, again and again until it meets one that is not full,
    and then mixes each day.

    Args:
        days: Rows of each day.
        randomize: `total`, `day` or `none`.
        rng: Random numbers.

    """
    buckets = np.split(np.arange(sum(days[:-1])), np.cumsum(days[:-1])[:-1])
    if randomize == "total":
        chosen = _choose(days, rng)
        buckets = [np.flatnonzero(chosen == bucket) for bucket in range(len(buckets))]
    if randomize in ("total", "day"):
        buckets = [bucket[rng.permutation(len(bucket))] for bucket in buckets]
    return np.concatenate(buckets)


def _choose(days: Sequence[int], rng: RandomState) -> NDArray[np.int64]:
    """Return the bucket of each row of all days but the last."""
    buckets = len(days) - 1
    room = list(days[:-1])
    parts = []
    for size in days:
        part = rng.randint(0, buckets, size)
        parts.append(part)
        if len(parts) == len(days):
            # The last day stays where it is, but numbers were drawn for it.
            break
        # Up to the first row that meets a full bucket, nothing is drawn again.
        places = [np.flatnonzero(part == bucket) for bucket in range(buckets)]
        first = min((p[r] for p, r in zip(places, room, strict=True) if len(p) > r), default=size)
        counts = np.bincount(part[:first], minlength=buckets)
        room = [r - int(c) for r, c in zip(room, counts, strict=True)]
        for row in range(int(first), size):
            bucket = int(part[row])
            while room[bucket] == 0:
                bucket = rng.randint(0, buckets)
            part[row] = bucket
            room[bucket] -= 1
    return np.concatenate(parts[:-1])


def batches_shuffled(order: NDArray[np.int64], batch_size: int, seed: int) -> NDArray[np.int64]:
    """Return rows whose batches are in a random order, and the rows within each as they are.

    Args:
        order: (rows,) numbers of rows. The last batch, which may be short, stays the last.
        batch_size: Rows of a batch.
        seed: Of the order.

    """
    whole = len(order) // batch_size
    batches = order[: whole * batch_size].reshape(whole, batch_size)
    shuffled = batches[RandomState(seed).permutation(whole)].ravel()
    return np.concatenate([shuffled, order[whole * batch_size :]])
