"""The operators of a training step, each timed by itself, in one of several processes at once."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.bench.batches import Ids, random_batch
from dlrm.bench.local_step import train_step
from dlrm.nn import precision
from dlrm.nn.embedding import (
    Block,
    Collection,
    EmbeddingCollection,
    Initializer,
    Layout,
    constant,
    materialize,
    parameter_groups,
)
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.model import ParallelModel
from dlrm.planning.shards import Kind, Shard
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig
from dlrm.training.step import LOSS

SAMPLES = (128, 1024, 8192)
"""Of a process, that are measured with."""
EACH_S = 0.25
"""Of each measurement."""
LEAST_RUNS = 5
EXCHANGED_BYTES = (1 << 10, 1 << 16, 1 << 20, 1 << 23)
ROUTED: tuple[Kind, ...] = ("table", "row")
"""Kinds of which it is measured what it costs to put ids and vectors in order."""


class GivenVectors(Collection):
    """Tables that hand out the same vectors again and again, in no time."""

    def __init__(self, layout: Layout, dim: int):
        super().__init__(layout, dim)
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def materialize(self, device: torch.device) -> None:
        """Do nothing: there are no numbers."""

    def fill(self, initializer: Initializer) -> None:
        """Do nothing: there are no numbers."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return none."""
        return []

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Return vectors of the right shape."""
        features = len(self.layout.groups[block.group])
        lists = block.ids if block.offsets is None else block.offsets[1:]
        return self._once((lists.numel() // features, features, self.dim))

    def vectors(self, block: Block) -> Tensor:
        """Return vectors of the right shape."""
        return self._once((*block.ids.shape, self.dim))

    def _once(self, shape: tuple[int, ...]) -> Tensor:
        if shape not in self._kept:
            self._kept[shape] = torch.randn(shape).mul_(0.01).requires_grad_()
        vectors = self._kept[shape]
        vectors.grad = None
        return vectors


class _Updates:
    """Observes the updates of a step, and adds up their seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if stage != LOSS:
            self.seconds += time.perf_counter() - began


def _repeat(run: Callable[[], tuple[float, ...]]) -> list[float]:
    """Return the medians of the seconds that runs take, of some tenths of a second of them."""
    run()
    dist.barrier()
    taken: list[tuple[float, ...]] = []
    began = time.perf_counter()
    while len(taken) < LEAST_RUNS or time.perf_counter() - began < EACH_S:
        taken.append(run())
    dist.barrier()
    return [median(values) for values in zip(*taken, strict=True)]


def without_tables(config: TrainConfig, schema: Schema) -> nn.Module:
    """Return a model whose tables hand out vectors in no time."""
    model = config.model.build(schema, precision.resolve(config.precision))
    for path, module in list(model.named_modules()):
        if isinstance(module, Collection):
            model.set_submodule(path, GivenVectors(module.layout, module.dim))
    return materialize(model)


def dense(config: TrainConfig, schema: Schema, alone: Any) -> dict[str, Any]:
    """Measure everything but tables."""
    model = without_tables(config, schema)
    optimizer = config.optim.build(parameter_groups(model))
    net: nn.Module = model
    if dist.get_world_size() > 1:
        net = ParallelModel(model, Exchange(0, 1, alone), alone)
    train, updates = train_step(config, schema, net, optimizer), _Updates()
    bottom = deepcopy(getattr(model, "bottom", None))
    measured: dict[str, Any] = {"bottom": [], "top": []}
    rng = np.random.default_rng(0)
    update_s = []
    for size in SAMPLES:
        batch = random_batch(schema, size, "uniform", rng)
        batch = replace(batch, dense=torch.rand(size, len(schema.dense)), parts=(size,))

        def below(inputs: Tensor = batch.dense) -> tuple[float, ...]:
            if not isinstance(bottom, nn.Module):
                return (0.0,)
            began = time.perf_counter()
            x = bottom(inputs)
            x.backward(torch.ones_like(x))
            return (time.perf_counter() - began,)

        def step(batch: Batch = batch) -> tuple[float, ...]:
            updates.seconds = 0.0
            began = time.perf_counter()
            with train.observed(updates):
                train(batch)
            return time.perf_counter() - began - updates.seconds, updates.seconds

        (first,) = _repeat(below)
        whole, update = _repeat(step)
        measured["bottom"].append((size, first))
        measured["top"].append((size, max(whole - first, 1e-6)))
        update_s.append(update)
    return measured | {"dense_update_s": median(update_s)}


def sparse(
    config: TrainConfig, num_embeddings: Sequence[int], dim: int, ids: Ids, alone: Any
) -> dict[str, Any]:
    """Measure tables: lookups, updates, and what it costs to do so for others.

    Args:
        config: Of the run.
        num_embeddings: Rows of each table.
        dim: D.
        ids: How ids are drawn.
        alone: The process group of this process by itself.

    """
    storage = config.model.tables.storage
    rng = np.random.default_rng(dist.get_rank())
    schema = Schema.one_hot(0, num_embeddings)
    layout, features = Layout.of(schema), len(schema.features)
    batches = {size: random_batch(schema, size, ids, rng) for size in SAMPLES}
    measured: dict[str, Any] = {"lookup": [], "update": [], "dim": dim}
    plain = materialize(EmbeddingCollection(layout, dim, storage=storage))
    there = []
    for size, batch in batches.items():
        looked, back, updated = _train(config, plain, batch)
        measured["lookup"].append((size * features, looked))
        measured["update"].append((size * features, back + updated))
        there.append(looked + back)
    narrow = materialize(EmbeddingCollection(layout, max(1, dim // 2), storage=storage))
    looked, back, updated = _train(config, narrow, batches[SAMPLES[1]])
    for name, half in (("lookup", looked), ("update", back + updated)):
        # A row costs r + d n: of half as long ones, r + d n / 2.
        share = 2 * half / measured[name][1][1] - 1 if dim > 1 else 1.0
        measured[f"{name}_row_share"] = min(1.0, max(0.0, share))
    del plain, narrow
    for kind in ROUTED if dist.get_world_size() > 1 else ():
        exchange = Exchange(0, 1, alone)
        kinds: list[Kind] = [kind] * features
        # On one process all routing is done, and nothing leaves.
        routed = materialize(
            ShardedCollection(
                layout, dim, storage=storage, initializer=constant(0.0),
                kinds=kinds,
                shards=[Shard(t, 0, 0, n, 0, dim) for t, n in enumerate(num_embeddings)],
                exchange=exchange,
            )
        )  # fmt: skip
        measured[kind] = []
        for (size, batch), without in zip(batches.items(), there, strict=True):
            exchange.samples = (size,)
            looked, back, _ = _train(config, routed, batch)
            measured[kind].append((size * features, max(looked + back - without, 1e-6)))
        del routed
    return measured


def _train(config: TrainConfig, tables: Collection, batch: Batch) -> list[float]:
    """Return the seconds of a lookup, of its gradient, and of an update."""
    optimizer = config.optim.build(tables.parameter_groups())
    grad = torch.full((len(batch), tables.num_features, tables.dim), 1e-6)

    def run() -> tuple[float, ...]:
        began = time.perf_counter()
        vectors = tables(batch)
        looked = time.perf_counter()
        vectors.backward(grad)
        back = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad()
        return looked - began, back - looked, time.perf_counter() - back

    return _repeat(run)


def network() -> dict[str, Any]:
    """Measure the exchange of all with all, and the sum, by bytes that leave and of the buffer."""
    world = dist.get_world_size()
    measured: dict[str, Any] = {"exchange": [], "sum": []}
    for size in EXCHANGED_BYTES:
        values = torch.zeros(size // 4 // world * world)
        out = torch.zeros_like(values)
        runs = max(10, min(100, (1 << 26) // size))
        for name, act in (
            ("exchange", lambda values=values, out=out: dist.all_to_all_single(out, values)),
            ("sum", lambda values=values: dist.all_reduce(values)),
        ):
            seconds = []
            for _ in range(runs):
                began = time.perf_counter()
                act()
                seconds.append(time.perf_counter() - began)
            left = values.nbytes * (world - 1) / world if name == "exchange" else values.nbytes
            measured[name].append((left, median(seconds)))
    return measured
