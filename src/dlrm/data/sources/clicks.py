"""Source `clicks`: a generated click log whose truth is known.

    draws -> 13 counts, 26 ids -> P(click) from the planted truth -> label

Columns as Criteo's, plus `truth`, the very probability that each label was drawn with. No model can
expect to score better on these rows than `truth` does.

Row r depends on the seed and r alone: a shorter log is the beginning of a longer one, and with
another seed come other rows of the same world. Only uniform draws are used, so that the log is the
same everywhere.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.columns import Columns, log_columns
from dlrm.data.sources.click_truth import (
    CATEGORIES,
    COUNTS,
    DRAWS,
    MISSING,
    RESOLUTION,
    plant,
    probabilities,
)
from dlrm.errors import ConfigError

CHUNK = 2**16
"""Rows drawn together; part of what a seed means."""


class ClicksSource:
    """A generated click log."""

    name = "clicks"
    dense = tuple(count.name for count in COUNTS)
    categorical = tuple(category.name for category in CATEGORIES)
    label = "label"

    def __init__(self, rows: int = 1_000_000, seed: int = 0, world: int = 0):
        for name, value, least in (("rows", rows, 1), ("seed", seed, 0), ("world", world, 0)):
            if value < least:
                raise ConfigError(f"clicks: {name} is {value}, expected at least {least}")
        self._rows, self.seed, self.world = rows, seed, world
        self._truth = plant(world)
        self._thresholds = [category.thresholds() for category in CATEGORIES]
        # Id 0 is a missing value.
        self._keys = [
            pl.Series([None, *category.keys(table)[1:].tolist()], dtype=pl.UInt32)
            for table, category in enumerate(CATEGORIES)
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Return what the rows follow from."""
        return {
            "source": "clicks",
            "version": 1,
            "rows": self._rows,
            "seed": self.seed,
            "world": self.world,
        }

    def schema(self) -> Columns:
        """Return what the columns are, as Criteo's format says it."""
        why = f"the format {self.name} says so"
        return log_columns(self.label, self.dense, self.categorical, why=why)

    def rows(self) -> int:
        """Return how many rows there are."""
        return self._rows

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in order; columns as `Source.read` says, `truth` included."""
        for chunk, start in enumerate(range(0, self._rows, CHUNK)):
            yield self._chunk(chunk).head(self._rows - start)

    def _chunk(self, chunk: int) -> pl.DataFrame:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, chunk))))

        def draws() -> NDArray[np.uint32]:
            return rng.integers(0, DRAWS, size=CHUNK, dtype=np.uint32)

        values: dict[str, NDArray[np.int64]] = {}
        for count in COUNTS:
            values[count.name] = count.sample(draws())
        for category, thresholds in zip(CATEGORIES, self._thresholds, strict=True):
            values[category.name] = np.searchsorted(thresholds, draws(), side="right")
        chance = probabilities(self._truth.logits(values))
        clicks = rng.integers(0, RESOLUTION, size=CHUNK) < chance
        columns = {"label": pl.Series(clicks).cast(pl.UInt8)}
        for count in self.dense:
            columns[count] = pl.Series(values[count])
        for category, keys in zip(self.categorical, self._keys, strict=True):
            columns[category] = keys.gather(values[category])
        columns["truth"] = pl.Series((chance / RESOLUTION).astype(np.float32))
        present = pl.col(self.dense)
        return pl.DataFrame(columns).with_columns(
            pl.when(present != MISSING).then(present).name.keep()
        )
