"""Batches in order, for training and for testing, as the training loop reads them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch, Jagged
from dlrm.schema import Schema

Bag = NDArray[np.int64]
"""(k,) ids of one sample in one table."""


@dataclass(frozen=True, slots=True)
class Share:
    """A process' share of each batch: consecutive samples, as even as can be."""

    rank: int = 0
    size: int = 1

    def parts(self, samples: int) -> tuple[int, ...] | None:
        """Return how many of a batch's samples each process takes; None where there is but one."""
        if self.size == 1:
            return None
        least, more = divmod(samples, self.size)
        return tuple(least + (rank < more) for rank in range(self.size))

    def bounds(self, samples: int) -> tuple[int, int]:
        """Return the first of a batch's samples that this process takes, and the one after."""
        parts = self.parts(samples) or (samples,)
        return sum(parts[: self.rank]), sum(parts[: self.rank + 1])

    def of(self, batch: Batch) -> Batch:
        """Return this share of a batch."""
        if self.size == 1:
            return batch
        return replace(batch.slice(*self.bounds(len(batch))), parts=self.parts(len(batch)))


WHOLE = Share()
"""The share of a process that is alone."""


class Batches(Protocol):
    """A fixed number of batches, produced one by one as they are asked for.

    That they are not produced ahead matters: a test pass in the middle of training draws from the
    same random numbers.
    """

    def __len__(self) -> int:
        """Return how many batches there are."""
        ...

    def read(self, start: int = 0, share: Share = WHOLE) -> Iterator[Batch]:
        """Yield a share of each of the batches from number `start` on."""
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
