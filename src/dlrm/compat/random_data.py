"""Random batches, drawn number by number as the original draws them.

With one `RandomState` per run, and of a batch of n samples in this order:

    dense     rand(n, N)
    ids       per table, per sample: the size of the bag, then its ids
    labels    rand(n, 1)

HEAD draws a batch when it is asked for and seeds again at batch 0. The README's sample run of 2019
drew dense features and ids of all batches first, then all labels, once.

Synthetic ids have the reuse pattern of a recorded trace. A distribution file describes one table,
in three lines of numbers separated by commas: the distinct ids in order of first access; stack
distances in ascending order, 0 for an id never seen before; and the cumulative probability of each.
Ids are drawn by drawing stack distances: 0 takes the oldest id, d the one accessed d distinct ids
ago, and either becomes the newest.
"""

from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.compat.batches import Bag, Data, assemble
from dlrm.compat.flags import Flags
from dlrm.errors import IdError, InputError
from dlrm.schema import Schema

DrawIds = Callable[[int, int, int], Bag]
"""(table, its rows, size of the bag) -> the ids; duplicates drop out, so it may be shorter."""


class RandomBatches:
    """Batches of a random click log, the same ones in every epoch."""

    def __init__(self, flags: Flags, rng: RandomState, draw_ids: DrawIds):
        self.flags, self.rng, self.draw_ids = flags, rng, draw_ids
        size, samples = flags.mini_batch_size, flags.data_size
        self.sizes = [min(size, samples - first) for first in range(0, samples, size)]
        """Samples of each batch; the last may be short."""
        if flags.num_batches:
            self.sizes = [size] * flags.num_batches
        self.drawn: list[Batch] | None = None
        if flags.numerics == "readme2019":
            features = [self._features(n) for n in self.sizes]
            labels = [self._labels(n) for n in self.sizes]
            self.drawn = [assemble(*f, y) for f, y in zip(features, labels, strict=True)]

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `start` on; number 0 seeds the random numbers again."""
        if self.drawn is not None:
            yield from self.drawn[start:]
            return
        for number in range(start, len(self)):
            if number == 0:
                self.rng.seed(self.flags.numpy_rand_seed)
            n = self.sizes[number]
            yield assemble(*self._features(n), self._labels(n))

    def _features(self, n: int) -> tuple[NDArray[np.float32], list[list[Bag]]]:
        """Draw the dense features (n, N) and, per table, the bags of n samples."""
        dense = self.rng.rand(n, self.flags.arch_mlp_bot[0]).astype(np.float32)
        bags = [
            [self.draw_ids(table, rows, self._bag_size(rows)) for _ in range(n)]
            for table, rows in enumerate(self.flags.arch_embedding_size)
        ]
        return dense, bags

    def _labels(self, n: int) -> NDArray[np.float32]:
        """Draw labels (n, 1): probabilities, or 0 and 1 where they are to be rounded."""
        labels = self.rng.rand(n, 1).astype(np.float32)
        return np.round(labels) if self.flags.round_targets else labels

    def _bag_size(self, rows: int) -> int:
        most = self.flags.num_indices_per_lookup
        if self.flags.num_indices_per_lookup_fixed:
            return most
        return int(np.round(max(1.0, self.rng.random_sample() * min(rows, most))))


def random_data(flags: Flags, rng: RandomState) -> Data:
    """Return random data; the test data are the training data, drawn again.

    Raises:
        InputError: A distribution file is missing or is not what it should be.

    """
    sizes = flags.arch_embedding_size
    if flags.data_generation == "synthetic":
        padding = flags.data_trace_enable_padding
        draw = synthetic(rng, flags.data_trace_file, len(sizes), padding=padding)
    elif flags.rand_data_dist == "gaussian":
        draw = gaussian(
            rng,
            low=flags.rand_data_min,
            high=flags.rand_data_max,
            mean=flags.rand_data_mu,
            sigma=flags.rand_data_sigma,
        )
    else:
        draw = uniform(rng)
    names = [f"table {table}" for table in range(len(sizes))]
    schema = Schema.one_hot(flags.arch_mlp_bot[0], sizes, names, kind="bag")
    batches = RandomBatches(flags, rng, draw)
    return Data(schema=schema, train=batches, test=batches)


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


WARNING = (
    "WARNING: distribution is inconsistent with embedding table size "
    "(using mod to recover and continue)"
)


@dataclass(frozen=True, slots=True)
class Distribution:
    """The reuse pattern of one table."""

    ids: tuple[int, ...]
    distances: tuple[int, ...]
    cumulative: tuple[float, ...]

    @classmethod
    def read(cls, file: Path) -> "Distribution":
        """Read a distribution file.

        Raises:
            InputError: It is missing or is not what it should be.

        """
        try:
            lines = file.read_text().splitlines()
        except OSError as error:
            problem = f"cannot be read ({error.strerror}); --data-trace-file names it, with the "
            raise InputError(problem + "number of the table for j", file=file) from None
        if len(lines) < 3:
            raise InputError(f"{len(lines)} lines, expected 3", file=file)
        ids = tuple(map(int, _numbers(file, lines, 1)))
        distances = tuple(map(int, _numbers(file, lines, 2)))
        cumulative = tuple(_numbers(file, lines, 3))
        if list(distances) != sorted(set(distances)) or not 0 <= distances[-1] <= len(ids):
            expected = f"expected ascending stack distances from 0 to {len(ids)}"
            raise InputError(expected, file=file, line=2)
        if len(cumulative) != len(distances):
            problem = f"{len(cumulative)} probabilities for {len(distances)} stack distances"
            raise InputError(problem, file=file, line=3)
        return cls(ids, distances, cumulative)

    def draw(self, rng: RandomState, size: int, *, padding: bool) -> list[int]:
        """Draw a bag of ids, starting from a trace that nothing was accessed in yet.

        Each of the `size` ids takes a random number. `padding` stops drawing new ids once every
        distance is possible.
        """
        trace = list(self.ids)
        bag = []
        distinct = 0
        for _ in range(size):
            u = rng.random_sample()
            if distinct < self.distances[-1]:
                # No distance can be larger than the number of ids seen so far.
                u *= self.cumulative[bisect(self.distances, distinct) - 1]
            elif padding:
                u = (1.0 - self.cumulative[0]) * u + self.cumulative[0]
            place = next((j for j, c in enumerate(self.cumulative) if u <= c), -1)
            distance = self.distances[place]
            distinct += distance == 0
            bag.append(trace.pop(0 if distance == 0 else len(trace) - distance))
            trace.append(bag[-1])
        return bag


def _numbers(file: Path, lines: list[str], line: int) -> list[float]:
    try:
        return [float(word) for word in lines[line - 1].split(",")]
    except ValueError as error:
        problem = f"{error}; expected numbers separated by commas"
        raise InputError(problem, file=file, line=line) from None


def distribution_file(pattern: str, table: int) -> Path:
    """Return the file of a table: its number stands for the last j of the file's name.

    Only of the name: the original replaces every j of the whole path.
    """
    path = Path(pattern)
    before, j, after = path.name.rpartition("j")
    return path.with_name(f"{before}{table}{after}") if j else path


def synthetic(rng: RandomState, pattern: str, tables: int, *, padding: bool) -> DrawIds:
    """Return a draw of ids that follows one distribution file a table.

    `pattern` is the path of the files, with j for the number of the table.

    Raises:
        InputError: A file is missing or is not what it should be.

    """
    distributions = [Distribution.read(distribution_file(pattern, t)) for t in range(tables)]

    def draw(table: int, rows: int, size: int) -> Bag:
        ids = np.unique(distributions[table].draw(rng, size, padding=padding)).astype(np.int64)
        if ids[0] < 0 or ids[-1] >= rows:
            print(WARNING)
            ids = np.mod(ids, rows)
        return ids

    return draw
