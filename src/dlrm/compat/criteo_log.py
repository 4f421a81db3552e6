"""The raw Criteo log as the original reads it, and the order in which it trains on its days.

Kaggle's `train.txt` is one file of seven days of equal length; a Terabyte log is one file a day,
`day_0 ... day_23`, plain or with `.gz`. Rows are sub-sampled, and missing categories are 0.

Orders are (rows,) numbers of rows, drawn from the run's random numbers as the original does. It
shuffles prepared files in memory, once for the training data and once more for the test data; with
`--memory-map` it shuffles while it prepares them, day by day, out of core.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.random import RandomState
from numpy.typing import NDArray

from dlrm.compat.flags import Flags
from dlrm.data.features.columns import Columns
from dlrm.data.sources.criteo import CriteoSource
from dlrm.errors import ConfigError

KAGGLE_DAYS, TERABYTE_DAYS = 7, 24


@dataclass(frozen=True, slots=True)
class Day:
    """Numbers of rows of a day."""

    raw: int
    """Rows in the raw log."""
    sampled: int
    """Rows after sub-sampling."""


def raw_files(flags: Flags) -> list[Path]:
    """Return the files that `--raw-data-file` stands for, whether they exist or not."""
    if not flags.raw_data_file:
        raise ConfigError("--raw-data-file is missing: --data-generation=dataset reads a raw log")
    path = Path(flags.raw_data_file)
    if flags.data_set == "kaggle":
        return [path]
    days = [path.with_name(f"{path.name}_{day}") for day in range(TERABYTE_DAYS)]
    compressed = [day.with_name(f"{day.name}.gz") for day in days]
    return [
        c if c.exists() and not d.exists() else d for d, c in zip(days, compressed, strict=True)
    ]


class OriginalCriteo:
    """A Source that drops the share `rate` of the rows without a click, at random by a seed.

    Each file has so many days.

    Raises:
        InputError: A file is missing, empty or a folder.

    """

    name = "criteo-original"
    categorical = CriteoSource.categorical
    label = CriteoSource.label

    def __init__(self, files: list[Path], days: int, rate: float, seed: int):
        self.sources = [CriteoSource(file) for file in files]
        self.days_of_file = days
        self.rate = rate
        self.seed = seed
        self.days: list[Day] = []
        """Filled by `read`."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what the rows depend on."""
        sample = {"rate": self.rate, "seed": self.seed} if self.rate else None
        logs = [source.fingerprint() for source in self.sources]
        return {"source": self.name, "logs": logs, "sub_sample": sample}

    def schema(self) -> Columns:
        """Return what the columns are: the format says so."""
        return self.sources[0].schema()

    def rows(self) -> int:
        """Return about how many rows there are before sub-sampling."""
        return sum(source.rows() for source in self.sources)

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the rows that are kept, in order; see `Source.read`."""
        rng = RandomState(self.seed)
        self.days = []
        for source in self.sources:
            masks = []
            for frame in source.read():
                keep = np.ones(len(frame), dtype=bool)
                if self.rate:
                    clicked = frame[self.label].to_numpy() == 1
                    keep = clicked | (rng.random_sample(len(frame)) >= self.rate)
                masks.append(keep)
                # The original knows no missing category: it reads one as the value 0.
                yield frame.filter(pl.Series(keep)).with_columns(
                    pl.col(self.categorical).fill_null(0)
                )
            # The first days are a row longer where the rows do not divide, as in the original.
            for day in np.array_split(np.concatenate(masks), self.days_of_file):
                self.days.append(Day(len(day), int(day.sum())))


Order = NDArray[np.int64]


def in_memory(days: Sequence[int], randomize: str, rng: RandomState) -> Order:
    """Return the order of all days but the last.

    `total` mixes all rows, `day` those of each day, and `none` none.
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

    The last batch, which may be short, stays the last.
    """
    whole = len(order) // batch_size
    batches = order[: whole * batch_size].reshape(whole, batch_size)
    shuffled = batches[RandomState(seed).permutation(whole)].ravel()
    return np.concatenate([shuffled, order[whole * batch_size :]])
