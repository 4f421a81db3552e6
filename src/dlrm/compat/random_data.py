"""Random batches, drawn number by number as the original draws them.

With one `RandomState` per run, and of a batch of n samples in this order:

    dense     rand(n, N)
    ids       per table, per sample: the size of the bag, then its ids
    labels    rand(n, 1)

HEAD draws a batch when it is asked for and seeds again at batch 0. The README's sample run of 2019
drew dense features and ids of all batches first, then all labels, once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.compat.batches import WHOLE, Bag, Data, Share, assemble
from dlrm.compat.flags import Flags
from dlrm.errors import IdError
from dlrm.schema import Schema

DrawIds = Callable[[int, int, int], Bag]
"""(table, its rows, size of the bag) -> the ids; duplicates drop out, so it may be shorter."""


@dataclass(frozen=True, slots=True)
class RandomLog:
    """What a random click log looks like, and the random numbers that it is drawn from."""

    flags: Flags
    rng: RandomState
    draw_ids: DrawIds

    @property
    def batch_sizes(self) -> list[int]:
        """Samples of each batch; the last may be short."""
        size = self.flags.mini_batch_size
        if self.flags.num_batches:
            return [size] * self.flags.num_batches
        samples = self.flags.data_size
        return [min(size, samples - j * size) for j in range(ceil(samples / size))]

    def features(self, n: int) -> tuple[NDArray[np.float32], list[list[Bag]]]:
        """Draw the dense features (n, N) and, per table, the bags of n samples."""
        dense = self.rng.rand(n, self.flags.arch_mlp_bot[0]).astype(np.float32)
        bags = [
            [self.draw_ids(table, rows, self._bag_size(rows)) for _ in range(n)]
            for table, rows in enumerate(self.flags.arch_embedding_size)
        ]
        return dense, bags

    def labels(self, n: int) -> NDArray[np.float32]:
        """Draw labels (n, 1): probabilities, or 0 and 1 where they are to be rounded."""
        labels = self.rng.rand(n, 1).astype(np.float32)
        return np.round(labels) if self.flags.round_targets else labels

    def _bag_size(self, rows: int) -> int:
        most = self.flags.num_indices_per_lookup
        if self.flags.num_indices_per_lookup_fixed:
            return most
        return int(np.round(max(1.0, self.rng.random_sample() * min(rows, most))))


class HeadBatches:
    """Batches drawn as they are asked for, the same ones in every epoch."""

    def __init__(self, log: RandomLog):
        self.log = log
        self.sizes = log.batch_sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, start: int = 0, share: Share = WHOLE) -> Iterator[Batch]:
        """Yield a share of each of the batches from number `start` on.

        Number 0 seeds the random numbers again. All of a batch is drawn, whoever takes it.
        """
        for number in range(start, len(self)):
            if number == 0:
                self.log.rng.seed(self.log.flags.numpy_rand_seed)
            dense, bags = self.log.features(self.sizes[number])
            yield share.of(assemble(dense, bags, self.log.labels(self.sizes[number])))


class Readme2019Batches:
    """Batches drawn all at once, labels after everything else."""

    def __init__(self, log: RandomLog):
        features = [log.features(n) for n in log.batch_sizes]
        labels = [log.labels(n) for n in log.batch_sizes]
        self.batches = [
            assemble(dense, bags, y) for (dense, bags), y in zip(features, labels, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def read(self, start: int = 0, share: Share = WHOLE) -> Iterator[Batch]:
        """Yield a share of each of the batches from number `start` on."""
        yield from map(share.of, self.batches[start:])


def uniform(rng: RandomState) -> DrawIds:
    """Return a draw of ids that are all equally likely, but for the first and the last."""

    def draw(table: int, rows: int, size: int) -> Bag:
        return np.unique(np.round(rng.random_sample(size) * (rows - 1)).astype(np.int64))

    return draw


def gaussian(rng: RandomState, *, low: float, high: float, mean: float, sigma: float) -> DrawIds:
    """Return a draw of ids around a mean, clipped to low ... high.

    A mean of -1 stands for the middle. As in the original, duplicates are dropped before the
    numbers are cut to integers, so that a bag may hold an id twice.
    """
    centre = (high + low) / 2.0 if mean == -1 else mean

    def draw(table: int, rows: int, size: int) -> Bag:
        ids = np.unique(np.clip(rng.normal(centre, sigma, size), low, high)).astype(np.int64)
        if ids[0] < 0 or ids[-1] >= rows:
            raise IdError(
                f"table {table}: --rand-data-min={low:g} and --rand-data-max={high:g} allow ids "
                f"outside of its {rows} rows (0 to {rows - 1})"
            )
        return ids

    return draw


def random_data(flags: Flags, rng: RandomState, draw_ids: DrawIds) -> Data:
    """Return random data; the test data are the training data, drawn again."""
    log = RandomLog(flags, rng, draw_ids)
    batches = Readme2019Batches(log) if flags.numerics == "readme2019" else HeadBatches(log)
    sizes = flags.arch_embedding_size
    names = [f"table {table}" for table in range(len(sizes))]
    schema = Schema.one_hot(flags.arch_mlp_bot[0], sizes, names, kind="bag")
    return Data(schema=schema, train=batches, test=batches)
