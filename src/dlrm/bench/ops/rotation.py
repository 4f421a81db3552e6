"""Inputs that take turns, and results that do: when one comes round, it has left the cache.

Caches keep some of what they should have replaced: of twice their size a part is still found there.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dlrm.bench import batches
from dlrm.bench.ops.setting import Setting
from dlrm.nn.embedding import LISTS, ONE_HOT, Block

CACHES = 4
"""Times the last-level cache that all inputs and results are."""
LEAST, MOST = 2, 16_384
"""Inputs; more than so many tiny ones are not made, which then are colder than real ones only in
what they look up."""


def count(turn_bytes: float, most: int = MOST) -> int:
    """Return how many inputs it takes, and how many results to keep.

    Args:
        turn_bytes: Of an input and of its result.
        most: No more than so many.

    """
    return max(LEAST, min(most, int(CACHES * batches.cache_bytes() // turn_bytes) + 1))


def ids_bytes(setting: Setting) -> int:
    """Return the bytes of the ids of a batch."""
    offsets = 8 * (setting.vectors + 1) if setting.pooling > 1 else 0
    return 4 * setting.lookups + offsets


def draw(setting: Setting, inputs: int) -> list[Block]:
    """Return the ids of so many batches, for the tables of a `Stock`."""
    rng = np.random.default_rng(0)
    samples, pooling = inputs * setting.batch, setting.pooling
    drawn = batches.draw_ids(setting.all_rows, samples * pooling, setting.ids, rng)
    if pooling == 1:
        return [Block(ONE_HOT, ids) for ids in torch.from_numpy(drawn).split(setting.batch)]
    bags = drawn.reshape(samples, pooling, setting.tables).transpose(0, 2, 1).reshape(-1)
    ends = torch.arange(0, setting.lookups + 1, pooling)
    return [
        Block(LISTS, ids, offsets)
        for ids, offsets in zip(
            torch.from_numpy(bags).split(setting.lookups),
            ends.repeat(inputs).split(len(ends)),
            strict=True,
        )
    ]


def normal(inputs: int, *shape: int, scale: float = 1.0, dtype: torch.dtype) -> Sequence[Tensor]:
    """Return so many tensors of random numbers."""
    return torch.randn(inputs, *shape).mul_(scale).to(dtype).unbind()
