"""Batches in order, for training and for testing, as the training loop reads them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch, Jagged
from dlrm.parallel.world import World
from dlrm.schema import Schema

Bag = NDArray[np.int64]
"""(k,) ids of one sample in one table."""


class Batches(Protocol):
    """A fixed number of batches, produced one by one as they are asked for.

    That they are not produced ahead matters: a test pass in the middle of training draws from the
    same random numbers.
    """

    def __len__(self) -> int:
        """Return how many batches there are."""
        ...

    def read(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `start` on, the same ones on every process."""
        ...


@dataclass(frozen=True, slots=True)
class Data:
    """The data of a run."""

    schema: Schema
    """Schema of the batches: each of the T features has a table of its own."""
    train: Batches
    test: Batches


def assemble(
    dense: NDArray[np.float32], bags: Sequence[Sequence[Bag]], labels: NDArray[np.float32]
) -> Batch:
    """Return a batch of bags.

    Dense features are (B, N) and labels (B, 1); of each of the T tables there is a bag for each
    sample.
    """
    ordered = [table[sample] for sample in range(len(labels)) for table in bags]
    lengths = np.array([0, *map(len, ordered)])
    lists = Jagged(torch.from_numpy(np.concatenate(ordered)), torch.from_numpy(lengths.cumsum()))
    no_ids = torch.empty(len(labels), 0, dtype=torch.int64)
    return Batch(torch.from_numpy(dense), no_ids, torch.from_numpy(labels), lists)


def own_part(batch: Batch, world: World) -> Batch:
    """Return this process' part of a batch: consecutive samples, as evenly as can be."""
    if world.size == 1:
        return batch
    least, more = divmod(len(batch), world.size)
    parts = tuple(least + (rank < more) for rank in range(world.size))
    start = sum(parts[: world.rank])
    return replace(batch.slice(start, start + parts[world.rank]), parts=parts)
