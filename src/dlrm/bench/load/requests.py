"""Requests for a trained model, made before anything is measured: how large, and of which rows.

    rows of the run's data, or random ones -> slices, as large as queries are -> bytes of requests

They are those of the Open Inference Protocol with binary tensors.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.bench.batches import random_batch
from dlrm.bench.load.client import request
from dlrm.data.loader import Loader
from dlrm.errors import ConfigError, DlrmError
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.run_data import split_of

MLPERF = (100, 100, *12 * (200,), 300, 300, 400, 500, 600, 700)
"""Rows of a query of MLPerf's DLRM, in twentieths of all queries: `dist_quantile.txt` of
mlcommons/inference."""
SIGMA = 1.0
"""Standard deviation of the logarithm of a size that is log-normal."""
MOST_ROWS = 4096
"""Rows of a query at most; a log-normal size has no end."""
REQUESTS, REQUESTS_BYTES = 4096, 64 << 20
"""Different requests of a load, and their bytes, at most: more than caches hold."""
LEAST_REQUESTS = 64
POOL_ROWS = 65536
"""Rows that requests are slices of."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows queries have.

    Raises:
        ConfigError: A size is none.

    """

    kind: Literal["fixed", "lognormal", "mlperf"]
    median: int = 1
    """Rows of each, where they are fixed, or in the median."""

    def __post_init__(self) -> None:
        if not 1 <= self.median <= MOST_ROWS:
            raise ConfigError(f"a query has {self.median:,} rows, expected 1 to {MOST_ROWS:,}")

    @classmethod
    def parse(cls, word: str) -> "Sizes":
        """Return sizes from `64`, `lognormal:64` or `mlperf`."""
        kind, colon, median = word.partition(":")
        if kind == "mlperf" and not colon:
            return cls("mlperf", 200)
        if kind == "lognormal" and median.isdecimal():
            return cls("lognormal", int(median))
        if word.isdecimal():
            return cls("fixed", int(word))
        raise ConfigError(
            f'"{word}" is no size of queries, expected rows such as 64, lognormal:64 or mlperf'
        )

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the rows of so many queries."""
        if self.kind == "fixed":
            return np.full(count, self.median)
        if self.kind == "mlperf":
            return np.array(MLPERF)[rng.integers(0, len(MLPERF), count)]
        drawn = np.rint(rng.lognormal(log(self.median), SIGMA, count))
        return drawn.clip(1, MOST_ROWS).astype(np.int64)


def rows_of(run: Run, rng: np.random.Generator) -> tuple[Batch, bool]:
    """Return rows for requests to the model of a run, and whether they are its own.

    They are test rows, in random order, or those of another split; where the run's data are gone,
    ids are random.
    """
    for name in ("test", "validation", "train"):
        try:
            _, split = split_of(run, None, name)
        except DlrmError:
            continue
        if len(split):
            loader = Loader(split, batch_size=min(POOL_ROWS, len(split)), shuffle=True)
            return next(iter(loader.epoch())), True
    return random_batch(run.schema, POOL_ROWS, "uniform", rng, pooling=8, varied=True), False


def requests_of(
    rows: Batch, schema: Schema, sizes: Sizes, path: str, rng: np.random.Generator
) -> tuple[list[bytes], list[int]]:
    """Return requests by the Open Inference Protocol with binary tensors, and the rows of each.

    Args:
        rows: Rows that each request has some of, one after the other.
        schema: Of the model.
        sizes: How many rows a request has.
        path: Where requests go, such as `/v2/models/NAME/infer`.
        rng: Draws sizes and slices.

    """
    counts = np.minimum(sizes.draw(REQUESTS, rng), len(rows))
    starts = rng.integers(0, len(rows) - counts + 1)
    requests: list[bytes] = []
    size = 0
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if size > REQUESTS_BYTES and len(requests) >= LEAST_REQUESTS:
            break
        body, length = infer_body(rows.slice(start, start + count), schema)
        headers = [("inference-header-content-length", str(length))]
        requests.append(request("localhost", path, body, headers))
        size += len(requests[-1])
    return requests, counts[: len(requests)].tolist()


def infer_body(batch: Batch, schema: Schema) -> tuple[bytes, int]:
    """Return the body of a request that asks for the scores of a batch, and its JSON's length."""
    tensors: list[tuple[str, str, NDArray[np.generic]]] = []
    if schema.dense:
        tensors.append(("dense", "FP32", batch.dense.numpy().astype("<f4")))
    if schema.one_hot_features:
        tensors.append(("ids", "INT64", batch.ids.numpy().astype("<i8")))
    if batch.lists is not None:
        tensors.append(("values", "INT64", batch.lists.values.numpy().astype("<i8")))
        tensors.append(("offsets", "INT64", batch.lists.offsets.numpy().astype("<i8")))
    inputs = [_described(*tensor) for tensor in tensors]
    outputs = [{"name": "scores", "parameters": {"binary_data": True}}]
    text = json.dumps({"inputs": inputs, "outputs": outputs}, separators=(",", ":")).encode()
    return b"".join([text, *(values.tobytes() for _, _, values in tensors)]), len(text)


def _described(name: str, datatype: str, values: NDArray[np.generic]) -> dict[str, object]:
    parameters = {"binary_data_size": values.nbytes}
    shape: Sequence[int] = values.shape
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}
