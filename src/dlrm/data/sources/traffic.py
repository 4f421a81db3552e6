"""Source `trace`: samples whose ids are the generated traffic of a workload.

    trace:WORKLOAD[:ROWS[:SEED]]    a file of `dlrm trace fit`, or a preset

Each feature is a stream of its own. Numbers and labels are drawn at random: only the traffic is
that of the source, and nothing can be learnt from such rows but how fast they go.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from dlrm.data.features.column import Column
from dlrm.data.features.columns import Columns, log_columns
from dlrm.data.sources.frame import FrameSource
from dlrm.errors import ConfigError
from dlrm.traces import workload
from dlrm.traces.workload import Workload

CHUNK = 2**16
"""Rows drawn together; part of what a seed means."""
CLICK_RATE = 0.25
LABEL = "label"


def traffic_source(name: str, rows: int = 1_000_000, seed: int = 0) -> "TrafficSource | BagSource":
    """Return the samples of a workload.

    Args:
        name: A file of `dlrm trace fit`, or a preset.
        rows: Samples.
        seed: Seed of the random numbers.

    Raises:
        ConfigError: There is no such workload, or no rows are asked for.
        InputError: The file is no workload.

    """
    if rows < 1:
        raise ConfigError(f"trace: rows is {rows}, expected at least 1")
    loaded = workload.load(name)
    if any(model.lengths is not None for model in loaded.features.values()):
        return BagSource(loaded, rows, seed)
    return TrafficSource(loaded, rows, seed)


class TrafficSource:
    """Samples with one id of each feature."""

    name = "trace"

    def __init__(self, traffic: Workload, rows: int, seed: int = 0):
        self.traffic, self._rows, self.seed = traffic, rows, seed
        self.numbers = tuple(f"number_{number}" for number in range(traffic.dense))

    def fingerprint(self) -> dict[str, Any]:
        """Return what the rows follow from."""
        return fingerprint(self.traffic, self._rows, self.seed)

    def schema(self) -> Columns:
        """Return what the columns are."""
        return log_columns(LABEL, self.numbers, tuple(self.traffic.features), why="it is generated")

    def rows(self) -> int:
        """Return how many rows there are."""
        return self._rows

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, `CHUNK` at a time."""
        streams = {
            name: model.stream(feature_seed(self.seed, number), CHUNK)
            for number, (name, model) in enumerate(self.traffic.features.items())
        }
        for start in range(0, self._rows, CHUNK):
            rows = min(CHUNK, self._rows - start)
            ids = {name: next(stream)[:rows] for name, stream in streams.items()}
            columns = {name: pl.Series(values).cast(pl.UInt32) for name, values in ids.items()}
            yield pl.DataFrame(
                {**labels_and_numbers(self.numbers, rows, self.seed, start), **columns}
            )


class BagSource(FrameSource):
    """Samples with any number of ids of a feature, all of them in memory."""

    def __init__(self, traffic: Workload, rows: int, seed: int = 0):
        numbers = tuple(f"number_{number}" for number in range(traffic.dense))
        columns: dict[str, Any] = labels_and_numbers(numbers, rows, seed, 0)
        for number, (name, model) in enumerate(traffic.features.items()):
            ids, lengths = model.samples(rows, feature_seed(seed, number))
            values = pl.Series(name, ids).cast(pl.UInt32)
            if lengths is None:
                columns[name] = values
                continue
            owners = pl.Series("row", np.repeat(np.arange(rows), lengths))
            bags = pl.DataFrame([owners, values]).group_by("row", maintain_order=True).agg(name)
            whole = pl.DataFrame({"row": np.arange(rows)}).join(bags, on="row", how="left")
            columns[name] = whole[name].fill_null([])
        super().__init__(pl.DataFrame(columns))
        self._fingerprint = fingerprint(traffic, rows, seed)
        self._columns = Columns(
            labels=(LABEL,),
            columns=(
                *(Column(name=name, kind="number", scale="log1p") for name in numbers),
                *(
                    Column(name=name, kind="category" if model.lengths is None else "list")
                    for name, model in traffic.features.items()
                ),
            ),
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return what the rows follow from."""
        return self._fingerprint

    def schema(self) -> Columns:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return what the columns are."""
        return self._columns


def fingerprint(traffic: Workload, rows: int, seed: int) -> dict[str, Any]:
    """Return what generated rows follow from."""
    text = repr({name: model.to_dict() for name, model in traffic.features.items()})
    digest = hashlib.sha256(text.encode()).hexdigest()
    values = {"dense": traffic.dense, "rows": rows, "seed": seed, "traffic": digest}
    return {"source": "trace", "version": 1, **values}


def feature_seed(seed: int, number: int) -> int:
    """Return the seed of the stream of a feature."""
    return seed * 1_000_003 + number


def labels_and_numbers(
    numbers: tuple[str, ...], rows: int, seed: int, start: int
) -> dict[str, pl.Series]:
    """Return labels and counts with a long tail for rows that begin at `start`."""
    rng = np.random.default_rng((seed, start))
    columns = {LABEL: pl.Series(rng.random(rows) < CLICK_RATE).cast(pl.UInt8)}
    for name in numbers:
        columns[name] = pl.Series(rng.pareto(0.7, rows).clip(0, 60_000).astype(np.int64))
    return columns
