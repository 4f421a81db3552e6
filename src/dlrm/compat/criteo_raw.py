"""The raw Criteo log as the original reads it: by days, sub-sampled, missing categories as 0.

Kaggle's `train.txt` is one file of seven days of equal length; a Terabyte log is one file a day,
`day_0 ... day_23`, plain or with `.gz`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.random import RandomState

from dlrm.compat.flags import Flags
from dlrm.data.features.columns import Columns
from dlrm.data.sources.criteo import CriteoSource
from dlrm.errors import ConfigError

KAGGLE_DAYS, TERABYTE_DAYS = 7, 24


@dataclass(frozen=True, slots=True)
class Day:
    """How many rows a day has."""

    raw: int
    """In the raw log."""
    kept: int
    """After sub-sampling."""


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
    """A Source that drops the share `rate` of the rows without a click.

    Args:
        files: One of seven days, or one a day.
        days: How many days each file has.
        rate: `--data-sub-sample-rate`.
        seed: Of the random numbers that choose the rows; no two rates share one prepared dataset.

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
        """Yield the rows that are kept, in order.

        Raises:
            InputError: A row is not what it should be; names file, line and column.

        """
        rng = RandomState(self.seed)
        self.days = []
        for source in self.sources:
            kept = []
            for frame in source.read():
                keep = np.ones(len(frame), dtype=bool)
                if self.rate:
                    clicked = frame[self.label].to_numpy() == 1
                    keep = clicked | (rng.random_sample(len(frame)) >= self.rate)
                kept.append(keep)
                # The original knows no missing category: it reads one as the value 0.
                yield frame.filter(pl.Series(keep)).with_columns(
                    pl.col(self.categorical).fill_null(0)
                )
            # The first days are a row longer where the rows do not divide, as in the original.
            for day in np.array_split(np.concatenate(kept), self.days_of_file):
                self.days.append(Day(len(day), int(day.sum())))
