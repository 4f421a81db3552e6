"""A split of a prepared dataset as batches: shuffled, prefetched, and resumable at any batch.

Rows are read in windows of many batches. With shuffling, the split is cut into blocks of
consecutive rows; an epoch takes the blocks in random order, and a window's rows are mixed among
themselves. So every read is a large slice of the memory map, a batch is a slice of a window, and
the order depends on nothing but (seed, epoch): a cursor is an epoch and a number of batches.
Lists of ids are read and mixed likewise, in the order that rows without them would have.

On W processes each reads its part of every batch: the batches are those of one process.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np

from dlrm.batch import Batch
from dlrm.data.encoded import Lists, consecutive, join, take
from dlrm.data.store import Split
from dlrm.errors import ConfigError

BLOCK_ROWS = 1024
WINDOW_ROWS = 65536
WINDOW_IDS = 1 << 24
"""Where lists are long, a window has fewer rows, so that it has about so many ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How a split becomes batches."""

    batch_size: int = 128
    """Samples a batch; the last of an epoch may be smaller."""
    shuffle: bool = True
    """Whether each epoch takes the rows in a new random order."""
    seed: int = 0
    """Seed of the order of rows."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"loader.batch_size is {self.batch_size}: it must be positive")


class Loader:
    """Batches of a split; `batch_size`, `shuffle` and `seed` are those of `LoaderConfig`.

    `part` is the number of this process and how many there are. With `pin` batches lie in
    page-locked memory, from which a GPU copies while it computes.
    """

    waited_s: float
    """Seconds that the consumer has waited for data so far."""

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        part: tuple[int, int] = (0, 1),
        pin: bool = False,
    ):
        self.split = split
        self.rank, self.world = part
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.pin = pin
        self.waited_s = 0.0
        rows = WINDOW_ROWS
        if split.lists is not None and len(split):
            ids = split.ids.size + len(split.lists.ids)
            rows = min(rows, WINDOW_IDS * len(split) // max(ids, 1))
        # Whole batches, so that none spans two windows.
        self.window_rows = max(1, rows // batch_size) * batch_size

    def __len__(self) -> int:
        """Batches an epoch."""
        return (len(self.split) + self.batch_size - 1) // self.batch_size

    def epoch(self, epoch: int = 0, first_batch: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, in its order, from `first_batch` on.

        On several processes the part of this one, which may be empty in a small last batch.
        """
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
                skip = max(0, first_row - w * self.window_rows) // self.batch_size
                size = min(self.window_rows, rows - w * self.window_rows)
                yield from self._batches(window, size, skip)

    def _batches(self, window: Batch, rows: int, skip: int) -> Iterator[Batch]:
        """Yield the batches of a window of so many rows, but the first `skip`."""
        starts = range(0, rows, self.batch_size)
        if self.world == 1:
            for start in starts[skip:]:
                yield window.slice(start, start + self.batch_size)
            return
        parts = [shares(min(self.batch_size, rows - start), self.world) for start in starts]
        ends = list(accumulate((part[self.rank] for part in parts), initial=0))
        for number, part in enumerate(parts[skip:], start=skip):
            yield replace(window.slice(ends[number], ends[number + 1]), parts=part)

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

        if self.world > 1:
            places = self._local_places(stop - start)
            mix = places if mix is None else mix[places]

        # Only numpy computes here: a torch operation would give this thread an OpenMP team of its
        # own, and with more threads than cores OpenMP stops spinning at its barriers, which makes
        # every training step half as slow again.
        def read(array: np.ndarray) -> np.ndarray:
            if self.world > 1:
                # The rows of this process alone, wherever they lie.
                numbers = np.concatenate([np.arange(p.start, p.stop) for p in pieces])
                return array[numbers[mix]]
            rows = np.concatenate([array[piece] for piece in pieces])
            return rows if mix is None else rows.take(mix, axis=0)

        def read_lists(stored: Lists) -> Lists:
            features = (len(stored.offsets) - 1) // len(self.split)
            lists = join([consecutive(stored, features, p.start, p.stop) for p in pieces])
            return lists if mix is None else take(lists, features, mix)

        split = self.split
        batch = Batch.of(
            read(split.dense),
            read(split.ids),
            read(split.labels).astype(np.float32, copy=False),
            None if split.lists is None else read_lists(split.lists),
            None if split.weights is None else read(split.weights),
        )
        return batch.pin() if self.pin else batch

    def _local_places(self, rows: int) -> np.ndarray:
        """Return the places of this process' rows among those of a window."""
        places = []
        for begin in range(0, rows, self.batch_size):
            ends = np.cumsum([0, *shares(min(self.batch_size, rows - begin), self.world)])
            places.append(np.arange(begin + ends[self.rank], begin + ends[self.rank + 1]))
        return np.concatenate(places)


def shares(samples: int, world: int) -> tuple[int, ...]:
    """Return how many of so many samples each of W processes gets: all alike, or one more."""
    ends = [samples * rank // world for rank in range(world + 1)]
    return tuple(last - first for first, last in pairwise(ends))


def joined(arrays: Sequence[np.ndarray], samples: int, batch_size: int) -> np.ndarray:
    """Put what each process has of the samples of an epoch back into the order of the epoch."""
    if len(arrays) == 1:
        return arrays[0]
    out = np.empty((samples, *arrays[0].shape[1:]), arrays[0].dtype)
    at = [0] * len(arrays)
    for begin in range(0, samples, batch_size):
        first = begin
        for rank, count in enumerate(shares(min(batch_size, samples - begin), len(arrays))):
            out[first : first + count] = arrays[rank][at[rank] : at[rank] + count]
            at[rank] += count
            first += count
    return out


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
