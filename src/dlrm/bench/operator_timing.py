"""The pieces of a training step, each measured by itself, in one of several processes at once."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from dlrm.bench.batches import Ids, draw_ids, random_batch
from dlrm.nn import precision
from dlrm.nn.embedding import Collection, EmbeddingCollection, Storage, made_by
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Wire
from dlrm.parallel.shards import Kind, Shard
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig
from dlrm.training.loop import compute_loss

SAMPLES = (128, 1024, 8192)
"""Of a process, that are measured with."""
EACH_S = 0.25
"""Of each measurement."""
LEAST_RUNS = 5
EXCHANGED_BYTES = (1 << 10, 1 << 16, 1 << 20, 1 << 23)
ROUTED: tuple[Kind, ...] = ("table", "row")
"""Kinds of which it is measured what it costs to put ids and vectors in order."""


class Given(Collection):
    """Tables that hand out the same vectors again and again, in no time."""

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: object = None,
    ):
        super().__init__(rows, dim, names)
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Return vectors of the right shape."""
        samples = len(ids) if offsets is None else (len(offsets) - 1) // len(self.rows)
        return self._of((samples, len(self.rows), self.dim))

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Return vectors of the right shape."""
        return self._of((*ids.shape, self.dim))

    def _of(self, shape: tuple[int, ...]) -> Tensor:
        if shape not in self._kept:
            self._kept[shape] = torch.randn(shape).mul_(0.01).requires_grad_()
        found = self._kept[shape]
        found.grad = None
        return found


def _repeat(run: Callable[[], tuple[float, ...]]) -> list[float]:
    """Return the medians of the seconds that runs say, of some tenths of a second of them."""
    run()
    dist.barrier()
    said: list[tuple[float, ...]] = []
    began = time.perf_counter()
    while len(said) < LEAST_RUNS or time.perf_counter() - began < EACH_S:
        said.append(run())
    dist.barrier()
    return [median(values) for values in zip(*said, strict=True)]


def dense(config: TrainConfig, schema: Schema, alone: Any) -> dict[str, Any]:
    """Measure everything but tables."""
    with made_by(Given):
        model = config.model.build(schema, precision.resolve(config.precision))
    optimizer = config.optim.build(model.parameters())
    net: nn.Module = model
    if dist.get_world_size() > 1:
        net = DistributedDataParallel(model, process_group=alone, gradient_as_bucket_view=True)
        # As `ParallelModel` has it: the mean over ranks would take time of its own.
        net.register_comm_hook(None, _as_it_is)
    bottom = deepcopy(getattr(model, "bottom", None))
    found: dict[str, Any] = {"bottom": [], "top": []}
    rng = np.random.default_rng(0)
    ones = [1] * len(schema.categorical)
    updates = []
    for size in SAMPLES:
        batch = random_batch(ones, size, "uniform", rng)
        batch = replace(batch, dense=torch.rand(size, len(schema.dense)))

        def below(dense: Tensor = batch.dense) -> tuple[float, ...]:
            if not isinstance(bottom, nn.Module):
                return (0.0,)
            began = time.perf_counter()
            x = bottom(dense)
            x.backward(torch.ones_like(x))
            return (time.perf_counter() - began,)

        def step(batch: Any = batch) -> tuple[float, ...]:
            began = time.perf_counter()
            logits = net(batch)
            compute_loss(config.loss, logits, batch.labels).backward()
            computed = time.perf_counter()
            optimizer.step()
            optimizer.zero_grad()
            return computed - began, time.perf_counter() - computed

        (first,) = _repeat(below)
        whole, update = _repeat(step)
        found["bottom"].append((size, first))
        found["top"].append((size, max(whole - first, 1e-6)))
        updates.append(update)
    return found | {"dense_update_s": median(updates)}


def _as_it_is(state: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def sparse(config: TrainConfig, rows: list[int], dim: int, ids: Ids, alone: Any) -> dict[str, Any]:
    """Measure tables: lookups, updates, and what it costs to do so for others."""
    storage = config.model.tables.storage
    rng = np.random.default_rng(dist.get_rank())
    drawn = {size: torch.from_numpy(draw_ids(rows, size, ids, rng)) for size in SAMPLES}
    found: dict[str, Any] = {"lookup": [], "update": [], "dim": dim}
    plain = EmbeddingCollection(rows, dim, storage=storage)
    there = []
    for size, given in drawn.items():
        looked, back, updated = _train(config, plain, given)
        found["lookup"].append((size * len(rows), looked))
        found["update"].append((size * len(rows), back + updated))
        there.append(looked + back)
    narrow = EmbeddingCollection(rows, max(1, dim // 2), storage=storage)
    middle = SAMPLES[1]
    looked, back, updated = _train(config, narrow, drawn[middle])
    for name, half in (("lookup", looked), ("update", back + updated)):
        # A row costs r + d n: of half as long ones, r + d n / 2.
        share = 2 * half / found[name][1][1] - 1 if dim > 1 else 1.0
        found[f"{name}_row_share"] = min(1.0, max(0.0, share))
    del plain, narrow
    for kind in ROUTED if dist.get_world_size() > 1 else ():
        shards = [Shard(t, 0, 0, n, 0, dim) for t, n in enumerate(rows)]
        wire = Wire(0, 1, alone)
        kinds: list[Kind] = [kind] * len(rows)
        spread = ShardedCollection(
            rows, dim, storage=storage, draw=lambda values, *_: values.zero_(),
            kinds=kinds, shards=shards, wire=wire,
        )  # fmt: skip
        found[kind] = []
        for (size, given), without in zip(drawn.items(), there, strict=True):
            wire.samples = (size,)
            looked, back, _ = _train(config, spread, given)
            found[kind].append((size * len(rows), max(looked + back - without, 1e-6)))
        del spread
    return found


def _train(config: TrainConfig, tables: Collection, ids: Tensor) -> list[float]:
    """Return the seconds of a lookup, of its gradient, and of an update."""
    optimizer = config.optim.build(tables.parameters())
    grad = torch.full((*ids.shape, tables.dim), 1e-6)

    def run() -> tuple[float, ...]:
        began = time.perf_counter()
        vectors = tables(ids)
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
    found: dict[str, Any] = {"exchange": [], "sum": []}
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
            found[name].append((left, median(seconds)))
    return found
