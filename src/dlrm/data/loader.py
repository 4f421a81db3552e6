"""A split of a prepared dataset as batches: shuffled, prefetched, and resumable at any batch.

Rows are read in windows of many batches. With shuffling, the split is cut into blocks of
consecutive rows; an epoch takes the blocks in random order, and a window's rows are mixed among
themselves. So every read is a large slice of the memory map, a batch is a slice of a window, and
the order depends on nothing but (seed, epoch): a cursor is an epoch and a number of batches.
Bags of ids are read and mixed likewise, in the order that rows with one id per feature would have.
"""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from dlrm.batch import Batch
from dlrm.data.bags import Bags, consecutive, join, take
from dlrm.data.store import Split
from dlrm.errors import ConfigError

BLOCK_ROWS = 1024
WINDOW_ROWS = 65536
WINDOW_IDS = 1 << 24
"""Of bags: where they are long, a window has fewer rows, so that it has about so many ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How a split becomes batches."""

    batch_size: int = 128
    """Samples a batch; the last of an epoch may be smaller."""
    shuffle: bool = True
    """Whether each epoch takes the rows in a new random order."""
    seed: int = 0
    """Of the order."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"loader.batch_size is {self.batch_size}: it must be positive")


class Loader:
    """Batches of a split.

    Args:
        split: Rows to read.
        batch_size: Samples a batch; the last of an epoch may be smaller.
        shuffle: Whether each epoch takes the rows in a new random order.
        seed: Of the order.

    """

    waited_s: float
    """Seconds that the consumer has waited for data so far."""

    def __init__(self, split: Split, *, batch_size: int, shuffle: bool = False, seed: int = 0):
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.waited_s = 0.0
        rows = WINDOW_ROWS
        if split.offsets is not None and len(split.ids):
            rows = min(rows, WINDOW_IDS * len(split) // len(split.ids))
        # Whole batches, so that none spans two windows.
        self.window_rows = max(1, rows // batch_size) * batch_size

    def __len__(self) -> int:
        """Batches an epoch."""
        return (len(self.split) + self.batch_size - 1) // self.batch_size

    def epoch(self, epoch: int = 0, first_batch: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, in its order, from `first_batch` on."""
        rows = len(self.split)
        order = self._block_order(epoch)
        first_row = first_batch * self.batch_size
        windows = range(first_row // self.window_rows, -(-rows // self.window_rows))
        with ThreadPoolExecutor(1, "loader") as reader:
            pending = [reader.submit(self._window, epoch, w, order) for w in windows[:1]]
            for w in windows:
                started = time.perf_counter()
                window = pending.pop().result()
                self.waited_s += time.perf_counter() - started
                if w + 1 in windows:
                    pending.append(reader.submit(self._window, epoch, w + 1, order))
                skip = max(0, first_row - w * self.window_rows)
                for start in range(skip, len(window), self.batch_size):
                    yield window.slice(start, start + self.batch_size)

    def _block_order(self, epoch: int) -> np.ndarray:
        blocks = -(-len(self.split) // BLOCK_ROWS)
        if not self.shuffle:
            return np.arange(blocks)
        return np.random.default_rng([self.seed, epoch]).permutation(blocks)

    def _window(self, epoch: int, window: int, order: np.ndarray) -> Batch:
        start = window * self.window_rows
        stop = min(start + self.window_rows, len(self.split))
        pieces = list(_pieces(order, len(self.split), start, stop))
        mix = None
        if self.shuffle:
            mix = np.random.default_rng([self.seed, epoch, window]).permutation(stop - start)

        # Only numpy computes here: a torch operation would give this thread an OpenMP team of its
        # own, and with more threads than cores OpenMP stops spinning at its barriers, which makes
        # every training step half as slow again.
        def read(array: np.ndarray) -> np.ndarray:
            rows = np.concatenate([array[piece] for piece in pieces])
            return rows if mix is None else rows.take(mix, axis=0)

        def read_bags(stored: Bags) -> Bags:
            tables = (len(stored.offsets) - 1) // len(self.split)
            bags = join([consecutive(stored, tables, p.start, p.stop) for p in pieces])
            return bags if mix is None else take(bags, tables, mix)

        if self.split.offsets is None:
            ids, offsets = read(self.split.ids), None
        else:
            ids, offsets = read_bags(Bags(self.split.ids, self.split.offsets))
        return Batch(
            dense=torch.from_numpy(read(self.split.dense)),
            ids=torch.from_numpy(ids),
            labels=torch.from_numpy(read(self.split.labels).astype(np.float32)),
            offsets=None if offsets is None else torch.from_numpy(offsets),
        )


def _pieces(order: np.ndarray, rows: int, start: int, stop: int) -> Iterator[slice]:
    """Yield the slices of a split that make rows start to stop of an epoch.

    The last block of the split may be short, and lies anywhere in the order.
    """
    begins = order * BLOCK_ROWS
    lengths = np.minimum(begins + BLOCK_ROWS, rows) - begins
    ends = np.cumsum(lengths)
    for position in range(int(np.searchsorted(ends, start, side="right")), len(order)):
        at = int(ends[position] - lengths[position])
        if at >= stop:
            return
        low, high = max(start - at, 0), min(stop - at, int(lengths[position]))
        yield slice(int(begins[position]) + low, int(begins[position]) + high)
