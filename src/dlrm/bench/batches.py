"""Random samples to measure on: batches that rotate past the last-level cache, and datasets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.data.encoded import Lists
from dlrm.data.store import LIST_IDS, LIST_OFFSETS, Split
from dlrm.planning.facts import cache_bytes
from dlrm.planning.work import Ids
from dlrm.schema import Schema

CLICK_RATE = 0.25
LEAST_BATCHES = 4
MOST_BATCHES = 4096
"""Most tiny batches, whose rows fill the cache long before the batches themselves do."""


def rotation(
    schema: Schema,
    batch_size: int,
    ids: Ids,
    seed: int = 0,
    *,
    pooling: int = 1,
    varied: bool = False,
) -> list[Batch]:
    """Return batches of B samples that together are larger than the last-level cache.

    With one batch again and again, its inputs and the rows that it looks up would stay in the
    cache, where in training they never are. Lists have `pooling` ids; any number from 1 to it where
    `varied`.
    """
    rng = np.random.default_rng(seed)
    count = batches_of(schema, batch_size, pooling, MOST_BATCHES)
    samples = count * batch_size
    everything = random_batch(schema, samples, ids, rng, pooling=pooling, varied=varied)
    return [everything.slice(i * batch_size, (i + 1) * batch_size) for i in range(count)]


def batches_of(schema: Schema, batch_size: int, pooling: float, most: int) -> int:
    """Return how many batches together are larger than the last-level cache, `most` at most."""
    numbers = len(schema.dense) + len(schema.one_hot_features) + schema.num_labels
    sample_bytes = 4 * (numbers + len(schema.list_features) * pooling)
    count = int(cache_bytes() * 3 // 2 // (sample_bytes * batch_size)) + 1
    return max(LEAST_BATCHES, min(most, count))


def random_batch(
    schema: Schema,
    samples: int,
    ids: Ids,
    rng: np.random.Generator,
    *,
    pooling: int = 1,
    varied: bool = False,
) -> Batch:
    """Return a batch of Criteo's kind: counts with a long tail, as log(1 + count), and ids.

    Lists have `pooling` ids; any number from 1 to it where `varied`.
    """
    sizes = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
    counts = rng.pareto(0.7, (samples, len(schema.dense))).clip(0, 60_000).astype(np.int32)
    if schema.task == "classification":
        labels = rng.random((samples, schema.num_labels)) < CLICK_RATE
    else:
        labels = rng.normal(size=(samples, schema.num_labels))
    one_hot = [sizes[feature.name] for feature in schema.one_hot_features]
    several = [sizes[feature.name] for feature in schema.list_features]
    return Batch.of(
        np.log1p(counts.astype(np.float32)),
        draw_ids(one_hot, samples, ids, rng),
        labels,
        _draw_lists(several, samples, ids, rng, pooling, varied=varied) if several else None,
    )


def _draw_lists(
    num_embeddings: Sequence[int],
    samples: int,
    ids: Ids,
    rng: np.random.Generator,
    pooling: int,
    *,
    varied: bool = False,
) -> Lists:
    """Return lists of ids of samples in F features; arguments as for `random_batch`."""
    drawn = draw_ids(num_embeddings, samples * pooling, ids, rng)
    # Sample by sample, and feature by feature within.
    drawn = drawn.reshape(samples, pooling, len(num_embeddings)).swapaxes(1, 2)
    drawn = drawn.reshape(-1, pooling)
    lengths = np.full(len(drawn), pooling)
    if varied:
        lengths = np.maximum(1, np.rint(rng.random(len(drawn)) * pooling)).astype(np.int64)
    values = drawn[np.arange(pooling) < lengths[:, None]]
    return Lists(values, np.concatenate([[0], lengths.cumsum()]).astype(np.int64))


def draw_ids(
    num_embeddings: Sequence[int], samples: int, ids: Ids, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return ids (samples, T), one a feature, from tables of so many rows each.

    `uniform`: every row is equally likely, the hardest case for memory. `zipf`: row i of n has
    probability log(1 + 1 / (i + 1)) / log(n + 1), which falls as 1 / i.
    """
    n = np.array(num_embeddings, np.float64)
    u = rng.random((samples, len(n)))
    drawn = np.floor(u * n) if ids == "uniform" else np.floor((n + 1) ** u) - 1
    # Rounding may reach n itself.
    return np.minimum(drawn, n - 1).astype(np.int32)


def write_split(folder: Path, arch: Arch, rows: int, ids: Ids) -> Split:
    """Write samples of equal shapes as the arrays of a dataset, and map them into memory.

    Args:
        folder: For the files.
        arch: Of whose tables ids are drawn: lists of `pooling` ids where that is above 1.
        rows: Samples.
        ids: How ids are distributed.

    """
    rng = np.random.default_rng(1)
    batch = random_batch(arch.schema, rows, ids, rng, pooling=arch.pooling, varied=arch.varied)
    tensors = {"dense": batch.dense, "ids": batch.ids, "labels": batch.labels.to(torch.uint8)}
    if batch.lists is not None:
        tensors |= {LIST_IDS: batch.lists.values, LIST_OFFSETS: batch.lists.offsets}
    mapped: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        array = tensor.numpy()
        array.tofile(folder / f"{name}.bin")
        # An empty file cannot be mapped.
        mapped[name] = array
        if array.size:
            mapped[name] = np.memmap(folder / f"{name}.bin", array.dtype, "r", shape=array.shape)
    lists = Lists(mapped[LIST_IDS], mapped[LIST_OFFSETS]) if batch.lists is not None else None
    return Split("train", mapped["dense"], mapped["ids"], mapped["labels"], lists)
