"""Random batches to measure on: a set that rotates past the last-level cache."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.bench.arch import NUM_DENSE
from dlrm.bench.machine.facts import facts, last_level
from dlrm.errors import ConfigError

Ids = Literal["uniform", "zipf"]

CLICK_RATE = 0.25
LEAST_BATCHES = 4
MOST_BATCHES = 4096
"""Of tiny batches, whose rows fill the cache long before the batches themselves do."""


def rotation(
    rows: Sequence[int],
    batch_size: int,
    ids: Ids,
    seed: int = 0,
    *,
    num_dense: int = NUM_DENSE,
    pooling: int = 1,
    varied: bool = False,
) -> list[Batch]:
    """Return batches that together are larger than the last-level cache.

    With one batch again and again, its inputs and the rows that it looks up would stay in the
    cache, where in training they never are.

    Args:
        rows: Rows of each of the T tables.
        batch_size: B.
        ids: How ids are distributed, see `draw_ids`.
        seed: Of the values.
        num_dense: N.
        pooling: Ids of a bag; 1 gives one-hot batches.
        varied: Whether bags have any number of ids from 1 to `pooling`.

    """
    rng = np.random.default_rng(seed)
    sample_bytes = 4 * (num_dense + len(rows) * pooling + 1)
    batches = cache_bytes() * 3 // 2 // (sample_bytes * batch_size) + 1
    batches = max(LEAST_BATCHES, min(MOST_BATCHES, batches))
    everything = random_batch(
        rows, batches * batch_size, ids, rng, num_dense=num_dense, pooling=pooling, varied=varied
    )
    return [everything.slice(i * batch_size, (i + 1) * batch_size) for i in range(batches)]


def random_batch(
    rows: Sequence[int],
    samples: int,
    ids: Ids,
    rng: np.random.Generator,
    *,
    num_dense: int = NUM_DENSE,
    pooling: int = 1,
    varied: bool = False,
) -> Batch:
    """Return a batch of Criteo's kind: counts with a long tail, as log(1 + count), and ids.

    Args:
        rows: See `rotation`, as for what follows.
        samples: B.
        ids: How ids are distributed.
        rng: Where values come from.
        num_dense: N.
        pooling: Ids of a bag.
        varied: Whether bags have fewer.

    """
    counts = rng.pareto(0.7, (samples, num_dense)).clip(0, 60_000)
    labels = rng.random(samples) < CLICK_RATE
    offsets = None
    drawn = draw_ids(rows, samples * pooling, ids, rng)
    if pooling > 1:
        # Sample by sample, and table by table within.
        drawn = drawn.reshape(samples, pooling, len(rows)).swapaxes(1, 2).reshape(-1, pooling)
        lengths = np.full(len(drawn), pooling)
        if varied:
            lengths = np.maximum(1, np.rint(rng.random(len(drawn)) * pooling)).astype(np.int64)
        drawn = drawn[np.arange(pooling) < lengths[:, None]]
        offsets = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]).astype(np.int64))
    return Batch(
        dense=torch.from_numpy(np.log1p(counts.astype(np.float32))),
        ids=torch.from_numpy(drawn),
        labels=torch.from_numpy(labels.astype(np.float32)),
        offsets=offsets,
    )


def draw_ids(
    rows: Sequence[int], samples: int, ids: Ids, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return ids (samples, T), one a table.

    `uniform`: every row is equally likely, the hardest case for memory. `zipf`: row i of n has
    probability log(1 + 1 / (i + 1)) / log(n + 1), which falls as 1 / i.
    """
    n = np.array(rows, np.float64)
    u = rng.random((samples, len(rows)))
    drawn = np.floor(u * n) if ids == "uniform" else np.floor((n + 1) ** u) - 1
    # Rounding may reach n itself.
    return np.minimum(drawn, n - 1).astype(np.int32)


def batch_sizes(text: str) -> list[int]:
    """Read sizes separated by commas, e.g. `128,2048`.

    Raises:
        ConfigError: One is not a positive number.

    """
    sizes = [word.strip() for word in text.split(",")]
    for size in sizes:
        if not size.isdecimal() or int(size) < 1:
            raise ConfigError(
                f'batch is "{text}": "{size}" is no positive number; give sizes such as 128,2048'
            )
    return [int(size) for size in sizes]


def cache_bytes() -> int:
    """Return the size of the last-level cache; 32 MB where the system does not tell."""
    found = last_level(facts().caches)
    return found.size_bytes if found else 32 * 2**20
